//! How a call to a provider fails, and what the router may do then.

use std::time::Duration;

/// A call that made no picture. Its texts may be shown to the caller: no key, no address of the inside, no prompt.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure; everything that the router does follows from it.
    pub kind: FailureKind,
    /// What the provider said or what happened, for people.
    pub message: String,
    /// The provider's HTTP status, if it answered.
    pub status: Option<u16>,
    /// The provider's own code, as `DataInspectionFailed`.
    pub code: Option<String>,
    /// For [`FailureKind::Rejected`]: the parameter, in canonical terms, where the provider names one.
    pub parameter: Option<String>,
    /// When it may be asked again, as it said.
    pub retry_after: Option<Duration>,
    /// Whether it is paid for all the same.
    pub billed: Billed,
    /// From sending to the first byte of its answer, if there was one.
    pub first_byte: Option<Duration>,
}

/// Whether a failed call is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billed {
    /// It is not.
    No,
    /// Nobody can tell: it was submitted, and no end was heard of.
    Maybe,
    /// It is.
    Yes,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Nobody answered: name, connection or TLS. Nothing was submitted.
    Unreachable,
    /// It was submitted, and its time ran out.
    TimedOut,
    /// 429: too many at once.
    Throttled,
    /// A queue that we can look into is too long, or closed.
    Busy,
    /// 5xx, a connection that broke, an answer that nobody can read.
    Broken,
    /// 401, 402 or 403: our key or our account there.
    Configuration,
    /// 400 or 422: a parameter.
    Rejected,
    /// The prompt or the picture was refused, in words or as a black picture.
    Policy,
    /// An answer of success without a whole picture in it.
    NoImage,
    /// 404: the model is not there (any more).
    Gone,
    /// Whoever asked has gone.
    Cancelled,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the same deployment may be tried once more, if nothing was paid for.
    pub again: bool,
    /// Whether the next one may be tried. For [`FailureKind::Policy`] and [`FailureKind::Rejected`] the router knows more.
    pub elsewhere: bool,
    /// What it says about the deployment's health.
    pub health: Health,
}

/// What a failure says about a deployment's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing: it is about the request, or about load.
    Unchanged,
    /// One more fault.
    Fault,
    /// It cannot work until somebody changes something.
    Down,
}

impl FailureKind {
    /// What follows from it.
    pub fn verdict(self) -> Verdict {
        let (again, elsewhere, health) = match self {
            Self::Unreachable | Self::Broken => (true, true, Health::Fault),
            Self::TimedOut | Self::NoImage => (false, true, Health::Fault),
            Self::Throttled | Self::Busy | Self::Rejected | Self::Policy => {
                (false, true, Health::Unchanged)
            }
            Self::Configuration | Self::Gone => (false, true, Health::Down),
            Self::Cancelled => (false, false, Health::Unchanged),
        };
        Verdict { again, elsewhere, health }
    }

    /// In rows, metrics and `attempts`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Throttled => "throttled",
            Self::Busy => "busy",
            Self::Broken => "broken",
            Self::Configuration => "configuration",
            Self::Rejected => "rejected",
            Self::Policy => "policy",
            Self::NoImage => "no_image",
            Self::Gone => "gone",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Failure {
    /// A failure that is not paid for.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
            code: None,
            parameter: None,
            retry_after: None,
            billed: Billed::No,
            first_byte: None,
        }
    }
}

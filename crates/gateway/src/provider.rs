//! A provider: what it can do, and one call to it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use zoetrope_api::images::{Handling, ImageRequest, Mode, Pixels, SizeRule};
use zoetrope_api::{Controls, Format, Variation};

use crate::caller::Caller;
use crate::catalogue::Deployment;
use crate::failure::Failure;
use crate::plan::{Encoding, Part};
use crate::price::Bill;
use crate::source::Sources;

/// Somebody who makes pictures.
///
/// One of these stands for an entry of the catalogue's providers, and is asked by many calls at once.
pub trait Provider: Send + Sync {
    /// What it does for `deployment` in `mode`. Asked for every request, before anybody is called: knows, and does not ask.
    fn abilities(&self, deployment: &Deployment, mode: Mode) -> Abilities;

    /// Makes the pictures of one call, all of them or none, and never returns later than its deadline.
    ///
    /// A picture that it returns is whole: of a known format, with its end, and of a size that was read from its bytes.
    /// Dropping the future means that nobody waits any more: what was submitted is then cancelled as far as the provider's
    /// protocol allows, by a task that outlives the future.
    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>>;

    /// Requests that wait there, where we can know: the router spills over to others when there are too many.
    fn waiting(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { None })
    }
}

/// What a provider does for one deployment in one mode.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// Sizes that it makes.
    pub sizes: SizeRule,
    /// Pictures of one call, 1 or more.
    pub count_max: u32,
    /// Formats that it can be asked for; the first is the one that it makes unasked. Not empty.
    pub formats: &'static [Format],
    /// Pictures that an edit may start from.
    pub inputs_max: usize,
    /// Characters of a prompt.
    pub prompt_chars_max: usize,
    /// Whether it shows unfinished pictures.
    pub partials: bool,
    /// How each parameter of the table reaches it, by canonical name. What is missing here, and not emulated for everybody, is
    /// dropped and told.
    pub handling: &'static [(&'static str, Handling)],
    /// Whether parameters that the table does not know are sent on as they are.
    pub passes_unknown: bool,
    /// Whole numbers of which it takes fewer than the table does.
    pub bounds: &'static [Bound],
}

/// What a provider takes of a whole number. Both limits are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its canonical name.
    pub parameter: &'static str,
    /// The least.
    pub least: u64,
    /// The most.
    pub most: u64,
    /// What becomes of others.
    pub beyond: Beyond,
}

/// What becomes of a number that a provider does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// The nearest that it takes.
    Nearest,
    /// Its rest by one more than the most: seeds, of which any is as good as another.
    Rest,
}

impl Abilities {
    /// How the provider itself takes the parameter called `name`; `None` where it does not.
    pub fn handling(&self, name: &str) -> Option<Handling> {
        self.handling.iter().find(|(known, _)| *known == name).map(|(_, handling)| *handling)
    }

    /// `value` as the provider takes it for the parameter called `name`.
    pub fn bounded(&self, name: &str, value: u64) -> u64 {
        let Some(bound) = self.bounds.iter().find(|bound| bound.parameter == name) else {
            return value;
        };
        match bound.beyond {
            Beyond::Rest if value > bound.most => value % (bound.most + 1),
            Beyond::Rest | Beyond::Nearest => value.clamp(bound.least, bound.most),
        }
    }
}

/// One call: a part of a plan, with everything that a provider needs.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request's id, `req_…`, for logs.
    pub id: String,
    /// What is called.
    pub deployment: Arc<Deployment>,
    /// What was asked for. Its size, count, seed, format and pictures are not what is to be made: those below are.
    pub request: Arc<ImageRequest>,
    /// What an edit starts from.
    pub sources: Arc<Sources>,
    /// For whom.
    pub caller: Arc<Caller>,
    /// How many pictures, and of which seed.
    pub part: Part,
    /// Of what size.
    pub size: Pixels,
    /// In which format, one of the abilities'.
    pub ask: Encoding,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// Where unfinished pictures are shown, by providers that have any; one that nobody takes at once is lost.
    pub partials: Option<mpsc::Sender<Partial>>,
}

impl Call {
    /// Each picture is as if it had been asked for alone: the variation's seed counts on as the other one does.
    pub(crate) fn controls(&self) -> Controls {
        let controls = self.request.controls.clone();
        let counted = |variation: Variation| {
            let seed = variation.seed.wrapping_add(u64::from(self.part.first));
            Variation { seed, ..variation }
        };
        Controls { variation: controls.variation.map(counted), ..controls }
    }
}

/// A picture that is not finished.
#[derive(Clone, Debug)]
pub struct Partial {
    /// Which picture of the request, from 0.
    pub picture: u32,
    /// The file.
    pub bytes: Bytes,
    /// Its format, whatever the finished picture will be.
    pub format: Format,
    /// Its size, which may be smaller.
    pub size: Pixels,
}

/// What a call made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// As many as were asked for, in order.
    pub pictures: Vec<Made>,
    /// From sending to the first byte of the answer that carried the result.
    pub first_byte: Duration,
    /// What the provider says that it costs.
    pub bill: Bill,
}

/// A picture as a provider made it.
#[derive(Clone, Debug)]
pub struct Made {
    /// Where it is.
    pub content: Content,
    /// Told from its bytes.
    pub format: Format,
    /// Told from its bytes.
    pub size: Pixels,
    /// What it was drawn from, where that is known.
    pub seed: Option<u64>,
    /// The prompt that was drawn, where the provider wrote it anew.
    pub revised_prompt: Option<String>,
}

/// Where a picture is. What came in a form that a caller wants is not converted there and back.
#[derive(Clone)]
pub enum Content {
    /// Here.
    Bytes(Bytes),
    /// Here, as standard base64 with padding.
    Base64(String),
    /// In the store of ours.
    Stored {
        /// Its name there.
        name: zoetrope_files::Name,
        /// Its address, as the caller reaches it.
        url: String,
    },
}

/// Without megabytes.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Base64(text) => write!(f, "Base64({} characters)", text.len()),
            Self::Stored { name, .. } => {
                write!(f, "Stored({})", zoetrope_files::redacted(name.as_str()))
            }
        }
    }
}

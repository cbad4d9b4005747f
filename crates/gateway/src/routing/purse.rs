//! What a request may spend: kept of its key's budget before anybody is asked, so that many at once do not spend more than there is.

use zoetrope_api::Micros;
use zoetrope_api::images::{Code, Problem};
use zoetrope_jobs::{Held, Queue};

use crate::caller::Caller;
use crate::source::failed;

/// How long after its deadline a request's part of a budget is kept, should this server not live to settle it.
const GRACE_MS: i64 = 60_000;

/// The part of a key's budget that is kept for a request.
pub(crate) struct Purse<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) caller: &'a Caller,
    /// The request.
    pub(crate) id: &'a str,
    /// Milliseconds since 1970.
    pub(crate) deadline_ms: i64,
}

/// Whether a call can be paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paid {
    Yes,
    /// So much is there.
    Short(Micros),
}

impl Purse<'_> {
    /// Whether the key has a budget at all.
    pub(crate) fn is_limited(&self) -> bool {
        self.caller.limits.budget_micros.is_some()
    }

    /// Keeps `amount` for the request, in place of what was kept for it before.
    pub(crate) async fn keep(&self, amount: Micros) -> Result<Paid, Problem> {
        if !self.is_limited() {
            return Ok(Paid::Yes);
        }
        let until_ms = self.deadline_ms + GRACE_MS;
        let held = self.queue.hold(&self.caller.owner, self.id, amount.0, until_ms).await;
        Ok(match held.map_err(failed)? {
            Held::Yes | Held::Unlimited => Paid::Yes,
            Held::Short(left) => Paid::Short(Micros(left)),
        })
    }
}

/// What a caller is told whose budget does not cover `required`.
pub(crate) fn short(required: Micros, available: Micros) -> Problem {
    let text = format!("Insufficient balance: {required} required, {available} available");
    Problem::new(Code::InsufficientBalance, text)
}

/// What a caller with a budget is told where nobody knows what it would cost.
pub(crate) fn unpriced(model: &str) -> Problem {
    let text = format!(
        "This key has a budget, and what the model '{model}' costs is not known here; the operator can set its price."
    );
    Problem::new(Code::PermissionDenied, text)
}

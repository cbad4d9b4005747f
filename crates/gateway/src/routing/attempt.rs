//! One deployment is asked for some of the pictures, and everything about it is noted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout_at};
use zoetrope_api::Micros;
use zoetrope_api::images::{ImageRequest, Mode};

use super::candidates::Candidate;
use super::lane::Lane;
use super::notes::{Noted, Notes};
use super::registry::{Registry, State};
use crate::answer::Attempt;
use crate::catalogue::Deployment;
use crate::emulate::{self, Work};
use crate::failure::{Billed, Failure, FailureKind};
use crate::plan::{Part, Plan};
use crate::provider::{Abilities, Call, Outcome, Provider};

/// What became of each part.
pub(crate) type Parts = Vec<(Part, Result<Outcome, Failure>)>;

/// Before the same deployment is asked once more.
const PAUSE: Duration = Duration::from_millis(100);
/// How long after its deadline a provider is waited for, which tells more than that time ran out.
const GRACE: Duration = Duration::from_millis(200);

/// Asks the candidate for the pictures `missing`, and once more for those whose failure may pass and cost nothing.
pub(crate) async fn ask(
    candidate: &Candidate,
    work: &Work,
    missing: &BTreeSet<u32>,
    (registry, notes): (&Registry, &Notes),
) -> Parts {
    let plan = &candidate.plan;
    let observed = Observed {
        inner: &*candidate.provider,
        plan,
        request: &work.request,
        state: registry.deployment(&plan.deployment.key),
        lane: &candidate.lane,
        notes,
    };
    let parts = parts(plan, missing, candidate.count_max);
    let mut done = emulate::carry_out(&observed, plan, work, &parts).await;
    let may_pass = |failure: &Failure| failure.kind.verdict().again && failure.billed == Billed::No;
    let failed = done.iter().filter_map(|(part, result)| Some((part, result.as_ref().err()?)));
    let again: Vec<Part> =
        failed.filter(|(_, failure)| may_pass(failure)).map(|(part, _)| *part).collect();
    if again.is_empty() || Instant::now() + PAUSE >= Instant::from_std(work.deadline) {
        return done;
    }
    sleep(PAUSE).await;
    done.retain(|(part, _)| !again.contains(part));
    done.extend(emulate::carry_out(&observed, plan, work, &again).await);
    done
}

/// The calls that make the pictures `missing` as `plan` would have made them, their seeds included.
fn parts(plan: &Plan, missing: &BTreeSet<u32>, count_max: u32) -> Vec<Part> {
    let seed = |picture: u32| {
        let within = plan.parts.iter().find(|part| picture < part.first + part.count)?;
        Some(within.seed?.wrapping_add(u64::from(picture - within.first)))
    };
    let mut parts: Vec<Part> = Vec::new();
    for &picture in missing {
        match parts.last_mut() {
            Some(part) if part.first + part.count == picture && part.count < count_max => {
                part.count += 1;
            }
            _ => parts.push(Part { first: picture, count: 1, seed: seed(picture) }),
        }
    }
    parts
}

/// A provider whose every call is timed, noted, and kept within its limits.
struct Observed<'a> {
    inner: &'a dyn Provider,
    plan: &'a Plan,
    request: &'a ImageRequest,
    state: Arc<State>,
    lane: &'a Lane,
    notes: &'a Notes,
}

impl Provider for Observed<'_> {
    fn abilities(&self, deployment: &Deployment, mode: Mode) -> Abilities {
        self.inner.abilities(deployment, mode)
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let mut note = Note { observed: self, begun: Instant::now(), open: true };
            let _room = match self.lane.enter(call.deadline.into()).await {
                Ok(room) => room,
                Err(wait) => {
                    let text = "more is asked of this provider now than its limits here allow";
                    let failure = Failure::new(FailureKind::Throttled, text);
                    let failure = Failure { retry_after: wait, ..failure };
                    note.failed(&failure);
                    return Err(failure);
                }
            };
            note.begun = Instant::now();
            self.state.begin(note.begun);
            let late = Instant::from_std(call.deadline) + GRACE;
            let made = timeout_at(late, self.inner.make(call)).await;
            let made = made.unwrap_or_else(|_| {
                let text = "it did not answer in time";
                let failure = Failure::new(FailureKind::TimedOut, text);
                Err(Failure { billed: Billed::Maybe, ..failure })
            });
            let (took, now) = (note.begun.elapsed(), Instant::now());
            match &made {
                Ok(outcome) => {
                    self.state.succeeded(self.plan.fit.made, took, now);
                    note.made(outcome);
                }
                Err(failure) => {
                    self.state.failed(failure, self.plan.fit.made, took, now);
                    note.failed(failure);
                }
            }
            made
        })
    }
}

/// A call under way; one that is dropped was cancelled.
struct Note<'a> {
    observed: &'a Observed<'a>,
    begun: Instant,
    open: bool,
}

impl Note<'_> {
    fn made(&mut self, outcome: &Outcome) {
        let cost = self.observed.plan.settle(self.observed.request, outcome).unwrap_or_default();
        self.close(None, Some(outcome.first_byte), (cost, outcome.pictures.len() as u32));
    }

    fn failed(&mut self, failure: &Failure) {
        self.close(Some(failure.kind), failure.first_byte, (Micros::ZERO, 0));
    }

    fn close(
        &mut self,
        failure: Option<FailureKind>,
        first_byte: Option<Duration>,
        (cost, pictures): (Micros, u32),
    ) {
        self.open = false;
        let (deployment, duration) = (self.observed.plan.deployment.clone(), self.begun.elapsed());
        count(&deployment.key, failure, (duration, first_byte), cost);
        let attempt = Attempt { deployment, failure, duration, first_byte, cost };
        self.observed.notes.push(Noted { attempt, pictures, begun: self.begun });
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if self.open {
            self.observed.state.abandoned();
            self.close(Some(FailureKind::Cancelled), None, (Micros::ZERO, 0));
        }
    }
}

fn count(
    key: &str,
    failure: Option<FailureKind>,
    (duration, first_byte): (Duration, Option<Duration>),
    cost: Micros,
) {
    let outcome = failure.map_or("completed", FailureKind::name);
    let labels = [("deployment", key.to_string()), ("outcome", outcome.to_string())];
    metrics::counter!("zoetrope_gateway_calls_total", &labels).increment(1);
    let label = ("deployment", key.to_string());
    if let Some(first_byte) = first_byte {
        metrics::histogram!("zoetrope_gateway_first_byte_seconds", std::slice::from_ref(&label))
            .record(first_byte.as_secs_f64());
    }
    if failure.is_none() {
        metrics::histogram!("zoetrope_gateway_call_seconds", std::slice::from_ref(&label))
            .record(duration.as_secs_f64());
        metrics::counter!("zoetrope_gateway_cost_micros_total", &[label])
            .increment(cost.0.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use zoetrope_api::Format;
    use zoetrope_api::images::{Finish, Fit, Pixels};

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::plan::Encoding;

    #[test]
    fn what_is_missing_is_asked_for_with_the_seeds_it_had() {
        let catalogue = Catalogue::standard();
        let (_, deployment) = catalogue.deployments().next().unwrap();
        let size = Pixels::new(64, 64);
        let part = |first, count, seed| Part { first, count, seed: Some(seed) };
        let plan = Plan {
            deployment: deployment.clone(),
            fit: Fit { made: size, given: size, finish: Finish::None },
            parts: vec![part(0, 4, 70), part(4, 2, 74)],
            ask: Encoding { format: Format::Png, quality: None },
            encode: None,
            changes: Vec::new(),
            components: Vec::new(),
        };
        let check = |missing: &[u32], count_max: u32, expected: &[Part]| {
            let missing = missing.iter().copied().collect();
            assert_eq!(parts(&plan, &missing, count_max), expected);
        };
        check(&[0, 1, 2, 3, 4, 5], 4, &plan.parts);
        check(&[1, 2, 5], 4, &[part(1, 2, 71), part(5, 1, 75)]);
        check(&[3, 4], 1, &[part(3, 1, 73), part(4, 1, 74)]);
    }
}

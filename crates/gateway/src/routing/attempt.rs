//! One deployment is asked for some of the pictures, and everything about it is written down.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use zoetrope_api::Micros;
use zoetrope_api::images::Mode;

use super::candidates::Candidate;
use crate::answer::Attempt;
use crate::catalogue::Deployment;
use crate::emulate::{self, Work};
use crate::failure::{Billed, Failure, FailureKind};
use crate::plan::{Part, Plan};
use crate::price::{Bill, ComponentKind};
use crate::provider::{Abilities, Call, Outcome, Provider};

/// What became of each part.
pub(crate) type Parts = Vec<(Part, Result<Outcome, Failure>)>;

/// Asks the candidate for the pictures `missing`, and once more for those whose failure may pass and cost nothing.
pub(crate) async fn ask(
    candidate: &Candidate,
    work: &Work,
    missing: &BTreeSet<u32>,
    attempts: &Mutex<Vec<Attempt>>,
) -> Parts {
    let plan = &candidate.plan;
    let observed = Observed { inner: &*candidate.provider, plan, attempts };
    let parts = parts(plan, missing, candidate.count_max);
    let mut done = emulate::carry_out(&observed, plan, work, &parts).await;
    let may_pass = |failure: &Failure| failure.kind.verdict().again && failure.billed == Billed::No;
    let again: Vec<Part> = done
        .iter()
        .filter_map(|(part, result)| result.as_ref().err().filter(|f| may_pass(f)).map(|_| *part))
        .collect();
    if again.is_empty() || Instant::now() + PAUSE >= work.deadline {
        return done;
    }
    tokio::time::sleep(PAUSE).await;
    done.retain(|(part, _)| !again.contains(part));
    done.extend(emulate::carry_out(&observed, plan, work, &again).await);
    done
}

/// Before the same deployment is asked once more.
const PAUSE: Duration = Duration::from_millis(100);

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

/// A provider whose every call is timed and written down.
struct Observed<'a> {
    inner: &'a dyn Provider,
    plan: &'a Plan,
    attempts: &'a Mutex<Vec<Attempt>>,
}

impl Provider for Observed<'_> {
    fn abilities(&self, deployment: &Deployment, mode: Mode) -> Abilities {
        self.inner.abilities(deployment, mode)
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let mut note = Note { observed: self, begun: Instant::now(), open: true };
            let late = tokio::time::Instant::from_std(call.deadline);
            let result = tokio::time::timeout_at(late, self.inner.make(call)).await;
            let result = result.unwrap_or_else(|_| {
                let text = "it did not answer in time";
                let failure = Failure::new(FailureKind::TimedOut, text);
                Err(Failure { billed: Billed::Maybe, ..failure })
            });
            note.close(match &result {
                Ok(outcome) => {
                    let cost = cost(self.plan, call.part.count, outcome.bill);
                    (None, Some(outcome.first_byte), cost)
                }
                Err(failure) => (Some(failure.kind), failure.first_byte, Micros::ZERO),
            });
            result
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
    fn close(
        &mut self,
        (failure, first_byte, cost): (Option<FailureKind>, Option<Duration>, Micros),
    ) {
        self.open = false;
        let deployment = self.observed.plan.deployment.clone();
        let duration = self.begun.elapsed();
        let attempt = Attempt { deployment, failure, duration, first_byte, cost };
        self.observed.attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if self.open {
            self.close((Some(FailureKind::Cancelled), None, Micros::ZERO));
        }
    }
}

/// What a call for `count` of the plan's pictures costs: what the provider says, or its share of the estimate.
fn cost(plan: &Plan, count: u32, bill: Bill) -> Micros {
    let all: u32 = plan.parts.iter().map(|part| part.count).sum();
    let share =
        |micros: Micros| Micros(micros.0.saturating_mul(i64::from(count)) / i64::from(all.max(1)));
    let of = |kind: ComponentKind| -> Micros {
        let components = plan.components.iter().filter(|component| component.kind == kind);
        components.map(|component| component.total).sum()
    };
    match (bill, &plan.deployment.price) {
        (Bill::Amount(amount), _) => amount,
        (Bill::Units(units), Some(price)) => {
            price.amount.times_millionths(units) + share(of(ComponentKind::Input))
        }
        (Bill::Units(_) | Bill::Unsaid, _) => {
            share(of(ComponentKind::Input) + of(ComponentKind::Output))
        }
    }
}

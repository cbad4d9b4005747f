//! Pictures from one deployment after the other, until all are there or nobody is left. The next one is asked when one has failed or,
//! where that is wanted, when it takes long; what it makes first counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use zoetrope_api::Micros;
use zoetrope_api::images::{Change, Problem};

use super::attempt::{self, Parts};
use super::candidates::Candidate;
use super::notes::Notes;
use super::purse::{self, Paid, Purse};
use super::refusal::{self, Failed};
use super::registry::Registry;
use crate::catalogue::{Choice, Deployment, Routing};
use crate::emulate::Work;
use crate::failure::Failure;
use crate::provider::Made;

/// The pictures, and who made them.
pub(crate) struct Gathered {
    /// In order.
    pub(crate) pictures: Vec<Made>,
    /// Who made the first of them.
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) changes: Vec<Change>,
}

/// What it takes to ask.
pub(crate) struct Round<'a> {
    pub(crate) work: Work,
    pub(crate) routing: &'a Routing,
    pub(crate) choice: &'a Choice,
    pub(crate) registry: &'a Registry,
    pub(crate) notes: &'a Notes,
    pub(crate) purse: Purse<'a>,
}

/// How far a request is.
struct Progress<'a> {
    candidates: &'a [Candidate],
    /// The next to be asked.
    next: usize,
    /// Those who were asked.
    asked: usize,
    made: BTreeMap<u32, (Made, usize)>,
    missing: BTreeSet<u32>,
    failures: Vec<Failed>,
    /// The cheapest that the budget did not cover, and what was there.
    short: Option<(Micros, Micros)>,
    /// Whether asking somebody else may help.
    goes_on: bool,
}

type Running<'a> = FuturesUnordered<BoxFuture<'a, (usize, Parts)>>;

impl Round<'_> {
    /// Asks `candidates` in their order.
    pub(crate) async fn gather(&self, candidates: &[Candidate]) -> Result<Gathered, Problem> {
        let mut progress = Progress {
            candidates,
            next: 0,
            asked: 0,
            made: BTreeMap::new(),
            missing: (0..self.work.request.count).collect(),
            failures: Vec::new(),
            short: None,
            goes_on: true,
        };
        let mut running = Running::new();
        let mut reserved = Micros::ZERO;
        while !progress.missing.is_empty() {
            if running.is_empty() && !self.begin(&mut progress, &mut running, &mut reserved).await?
            {
                break;
            }
            let hedge = self.routing.hedge_after.filter(|_| self.may_hedge(&progress, &running));
            tokio::select! {
                Some((at, parts)) = running.next() => {
                    self.sort(&mut progress, at, parts);
                    reserved = self.notes.cost();
                }
                () = pause(hedge) => {
                    self.begin(&mut progress, &mut running, &mut reserved).await?;
                }
            }
        }
        drop(running); // nobody waits for the rest
        self.end(progress)
    }

    /// Asks the next candidate that can be paid for beside those that run; whether there was one.
    async fn begin<'a>(
        &'a self,
        progress: &mut Progress<'a>,
        running: &mut Running<'a>,
        reserved: &mut Micros,
    ) -> Result<bool, Problem> {
        while progress.goes_on && progress.asked < self.routing.deployments_max {
            let at = progress.next;
            let Some(candidate) = progress.candidates.get(at) else { return Ok(false) };
            if Instant::now() >= Instant::from_std(self.work.deadline) {
                return Ok(false);
            }
            progress.next += 1;
            let required = *reserved + candidate.total();
            match self.purse.keep(required).await? {
                Paid::Yes => *reserved = required,
                Paid::Short(available) => {
                    let least = progress.short.map_or(required, |(least, _)| least.min(required));
                    progress.short = Some((least, available));
                    continue;
                }
            }
            progress.asked += 1;
            let missing = progress.missing.clone();
            running.push(Box::pin(async move {
                let noted = (self.registry, self.notes);
                (at, attempt::ask(candidate, &self.work, &missing, noted).await)
            }));
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether somebody else may be asked beside the one that runs.
    fn may_hedge(&self, progress: &Progress<'_>, running: &Running<'_>) -> bool {
        running.len() == 1
            && *self.choice == Choice::Any
            && progress.goes_on
            && progress.asked < self.routing.deployments_max
            && progress.next < progress.candidates.len()
    }

    /// Puts what was made into its place, each picture once, and remembers what failed.
    fn sort(&self, progress: &mut Progress<'_>, at: usize, parts: Parts) {
        let plan = &progress.candidates[at].plan;
        let goes_on =
            |failure: &Failure| refusal::goes_on(failure, self.choice, self.routing, plan);
        for (part, result) in parts {
            match result {
                Ok(outcome) => {
                    for (picture, one) in (part.first..).zip(outcome.pictures) {
                        if progress.missing.remove(&picture) {
                            progress.made.insert(picture, (one, at));
                        }
                    }
                }
                Err(failure) => {
                    progress.goes_on &= goes_on(&failure);
                    let deployment = plan.deployment.clone();
                    progress.failures.push(Failed { deployment, failure });
                }
            }
        }
    }

    fn end(&self, progress: Progress<'_>) -> Result<Gathered, Problem> {
        let Some((_, first)) = progress.made.values().next() else {
            return Err(match progress.short {
                Some((required, available)) if progress.failures.is_empty() => {
                    purse::short(required, available)
                }
                _ => refusal::problem(&progress.failures, *self.choice != Choice::Any),
            });
        };
        let plan = &progress.candidates[*first].plan;
        Ok(Gathered {
            deployment: plan.deployment.clone(),
            changes: plan.changes.clone(),
            pictures: progress.made.into_values().map(|(made, _)| made).collect(),
        })
    }
}

/// So long, or for ever.
async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep_until(Instant::now() + duration).await,
        None => std::future::pending().await,
    }
}

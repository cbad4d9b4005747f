//! Pictures from one deployment after the other, until all are there or nobody is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zoetrope_api::Micros;
use zoetrope_api::images::{Change, Problem};

use super::attempt::{self, Parts};
use super::candidates::Candidate;
use super::refusal::{self, Failed};
use crate::answer::Attempt;
use crate::catalogue::{Choice, Deployment, Target};
use crate::emulate::Work;
use crate::failure::Failure;
use crate::gateway::Snapshot;
use crate::provider::Made;

/// The pictures, and how they came to be.
pub(crate) struct Gathered {
    /// In order.
    pub(crate) pictures: Vec<Made>,
    /// Who made the first of them.
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) changes: Vec<Change>,
    pub(crate) cost: Micros,
    /// How long providers were waited for.
    pub(crate) upstream: Duration,
}

/// Asks `candidates` in their order.
pub(crate) async fn gather(
    snapshot: &Snapshot,
    target: &Target,
    candidates: Vec<Candidate>,
    work: Work,
    attempts: &Mutex<Vec<Attempt>>,
) -> Result<Gathered, Problem> {
    let routing = &snapshot.catalogue.routing;
    let (mut made, mut failures) = (BTreeMap::new(), Vec::new());
    let mut missing: BTreeSet<u32> = (0..work.request.count).collect();
    let mut upstream = Duration::ZERO;
    for candidate in candidates.iter().take(routing.deployments_max) {
        let begun = Instant::now();
        if begun >= work.deadline {
            break;
        }
        let deadline = work.deadline.min(begun + candidate.plan.deployment.timeout);
        let parts =
            attempt::ask(candidate, &Work { deadline, ..work.clone() }, &missing, attempts).await;
        upstream += begun.elapsed();
        let failed = sort(parts, candidate, &mut made, &mut missing);
        let goes_on = failed
            .iter()
            .all(|failure| refusal::goes_on(failure, &target.choice, routing, &candidate.plan));
        let deployment = &candidate.plan.deployment;
        failures.extend(
            failed.into_iter().map(|failure| Failed { deployment: deployment.clone(), failure }),
        );
        if missing.is_empty() || !goes_on {
            break;
        }
    }
    let first =
        made.values().next().map(|(_, candidate): &(Made, &Candidate)| candidate.plan.clone());
    let Some(first) = first else {
        return Err(refusal::problem(&failures, target.choice != Choice::Any));
    };
    let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Gathered {
        pictures: made.into_values().map(|(made, _)| made).collect(),
        deployment: first.deployment,
        changes: first.changes,
        cost: attempts.iter().map(|attempt| attempt.cost).sum(),
        upstream,
    })
}

/// Puts what was made into its place, each picture once; what failed.
fn sort<'a>(
    parts: Parts,
    candidate: &'a Candidate,
    made: &mut BTreeMap<u32, (Made, &'a Candidate)>,
    missing: &mut BTreeSet<u32>,
) -> Vec<Failure> {
    let mut failed = Vec::new();
    for (part, result) in parts {
        match result {
            Ok(outcome) => {
                for (picture, one) in (part.first..).zip(outcome.pictures) {
                    if missing.remove(&picture) {
                        made.insert(picture, (one, candidate));
                    }
                }
            }
            Err(failure) => failed.push(failure),
        }
    }
    failed
}

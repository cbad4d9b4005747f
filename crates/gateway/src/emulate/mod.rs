//! What the gateway does itself so that every provider seems to do it: several calls for several pictures, other formats and
//! sizes, and addresses or base64 whatever a provider answers with.

mod convert;
mod deliver;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use zoetrope_api::images::ImageRequest;
use zoetrope_files::Store;

pub use deliver::deliver;

use crate::caller::Caller;
use crate::failure::{Billed, Failure, FailureKind};
use crate::plan::{Part, Plan};
use crate::price::Bill;
use crate::provider::{Call, Outcome, Partial, Provider};
use crate::source::Sources;

/// A request under way, whoever will make its pictures.
#[derive(Clone)]
pub struct Work {
    /// `req_…`.
    pub id: String,
    /// What was asked for.
    pub request: Arc<ImageRequest>,
    /// What an edit starts from.
    pub sources: Arc<Sources>,
    /// For whom.
    pub caller: Arc<Caller>,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// Where unfinished pictures are shown.
    pub partials: Option<mpsc::Sender<Partial>>,
    /// Where the local engine's pictures lie, should they have to become others.
    pub store: Store,
}

/// How long after its deadline a provider is waited for, since it tells more than that time ran out.
const GRACE: Duration = Duration::from_millis(250);

/// Makes the parts `only` of `plan` by `provider`, all at once, each in whole or not at all. Pictures are of the size and format
/// that the plan gives. The bill of an outcome is an amount, unless nobody says what it costs.
pub async fn carry_out(
    provider: &dyn Provider,
    plan: &Plan,
    work: &Work,
    only: &[Part],
) -> Vec<(Part, Result<Outcome, Failure>)> {
    let parts =
        only.iter().map(|part| async move { (*part, one(provider, plan, work, *part).await) });
    join_all(parts).await
}

async fn one(
    provider: &dyn Provider,
    plan: &Plan,
    work: &Work,
    part: Part,
) -> Result<Outcome, Failure> {
    let timeout = plan.deployment.timeout;
    let deadline = work.deadline.min(Instant::now() + timeout);
    let call = Call {
        id: work.id.clone(),
        deployment: plan.deployment.clone(),
        request: work.request.clone(),
        sources: work.sources.clone(),
        caller: work.caller.clone(),
        part,
        size: plan.fit.made,
        ask: plan.ask,
        deadline,
        partials: work.partials.clone(),
    };
    let made = tokio::time::timeout_at((deadline + GRACE).into(), provider.make(&call)).await;
    let mut outcome = made.unwrap_or_else(|_| {
        let text = format!("{} did not end in time", plan.deployment.provider);
        Err(Failure { billed: Billed::Maybe, ..Failure::new(FailureKind::TimedOut, text) })
    })?;
    if outcome.pictures.len() != part.count as usize {
        let text = format!(
            "{} made {} pictures of {}",
            plan.deployment.provider,
            outcome.pictures.len(),
            part.count
        );
        let failure = Failure::new(FailureKind::NoImage, text);
        return Err(Failure {
            billed: Billed::Yes,
            first_byte: Some(outcome.first_byte),
            ..failure
        });
    }
    if let Some(cost) = plan.settle(&work.request, &outcome) {
        outcome.bill = Bill::Amount(cost);
    }
    let first_byte = outcome.first_byte;
    let converted = outcome.pictures.into_iter().map(|made| convert::convert(made, plan, work));
    let pictures: Result<Vec<_>, String> = join_all(converted).await.into_iter().collect();
    match pictures {
        Ok(pictures) => Ok(Outcome { pictures, ..outcome }),
        Err(problem) => {
            let text = format!("the picture of {} {problem}", plan.deployment.provider);
            let failure = Failure::new(FailureKind::NoImage, text);
            Err(Failure { billed: Billed::Yes, first_byte: Some(first_byte), ..failure })
        }
    }
}

//! From failures of providers to what the caller is told, and whether anybody else is asked.

use std::sync::Arc;

use zoetrope_api::images::{Code, Parameter, Problem, Scope};

use crate::catalogue::{Choice, Deployment, Routing};
use crate::failure::{Billed, Failure, FailureKind};
use crate::plan::Plan;

/// A failure, and whose it was.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) failure: Failure,
}

/// Whether the next candidate is asked after `failure` of one that followed `plan`.
pub(crate) fn goes_on(failure: &Failure, choice: &Choice, routing: &Routing, plan: &Plan) -> bool {
    if !failure.kind.verdict().elsewhere {
        return false;
    }
    match failure.kind {
        FailureKind::Policy => *choice == Choice::Any && routing.policy_elsewhere,
        // What is wrong everywhere is not tried everywhere: a parameter of everybody's that reached this provider as it was sent.
        FailureKind::Rejected => failure.parameter.as_deref().is_none_or(|name| {
            let everybody_s =
                Parameter::named(name).is_some_and(|one| one.scope == Scope::Universal);
            !everybody_s || plan.changes.iter().any(|change| change.parameter == name)
        }),
        _ => true,
    }
}

/// What the caller is told where no picture came. `forced`: they asked for this provider and no other.
pub(crate) fn problem(failures: &[Failed], forced: bool) -> Problem {
    let Some(last) = failures.last() else {
        return Problem::new(Code::AllProvidersExhausted, "The time for this request is over.");
    };
    let Failed { deployment, failure } = last;
    let all = |kind: FailureKind| failures.iter().all(|one| one.failure.kind == kind);
    let wait = failures.iter().filter_map(|one| one.failure.retry_after).min();
    let wait_ms = wait.map(|wait| wait.as_millis() as u64);
    if let Some(refused) = failures.iter().find(|one| one.failure.kind == FailureKind::Policy) {
        let text = refused.failure.message.clone();
        return Problem::new(Code::ContentPolicyViolation, text).retry(false);
    }
    if all(FailureKind::Throttled) {
        let text = format!("{}: {}", deployment.key, failure.message);
        return Problem { retry_after_ms: wait_ms, ..Problem::new(Code::RateLimited, text) };
    }
    if all(FailureKind::Busy) {
        let text = format!("{}: {}", deployment.key, failure.message);
        return Problem { retry_after_ms: wait_ms, ..Problem::new(Code::Unavailable, text) };
    }
    if failure.kind == FailureKind::Rejected {
        let status = failure.status.filter(|status| (400..500).contains(status)).unwrap_or(400);
        let text = format!("{} refused the request: {}", deployment.key, failure.message);
        let problem = Problem::new(Code::UpstreamError, text).retry(false);
        return Problem { status: Some(status), param: failure.parameter.clone(), ..problem };
    }
    let paid = failures.iter().any(|one| one.failure.billed != Billed::No);
    let (code, text) = match (forced, failures.len()) {
        (true, _) => {
            (Code::UpstreamError, format!("{} failed: {}", deployment.key, failure.message))
        }
        (false, 1) => (
            Code::AllProvidersExhausted,
            format!("No provider is left; {} failed: {}", deployment.key, failure.message),
        ),
        (false, count) => (
            Code::AllProvidersExhausted,
            format!(
                "All {count} attempts failed; the last, {}: {}",
                deployment.key, failure.message
            ),
        ),
    };
    Problem::new(code, text).retry(!paid)
}

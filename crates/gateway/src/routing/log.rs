//! The entry of a request in the log, written whatever becomes of it, also where its sender goes away.

use zoetrope_api::Micros;
use zoetrope_api::images::{Code, ImageRequest, Problem};
use zoetrope_jobs::{Ledger, ModelCall, ModelRequest, ModelStatus};

use tokio::time::Instant;

use super::notes::{Noted, Notes};
use crate::answer::Answer;
use crate::caller::Caller;
use crate::failure::{FailureKind, Health};

/// Characters of names and messages that the log keeps.
const TEXT_MAX: usize = 500;

/// A request under way; one that is dropped was cancelled.
pub(crate) struct Entry<'a> {
    ledger: &'a Ledger,
    pub(crate) notes: Notes,
    begun: Instant,
    /// What is known from the beginning; taken when it is written.
    row: Option<ModelRequest>,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(
        ledger: &'a Ledger,
        id: &str,
        request: &ImageRequest,
        caller: &Caller,
        created_ms: i64,
    ) -> Self {
        let row = ModelRequest {
            id: id.into(),
            owner: caller.owner.clone(),
            model: cut(&request.model),
            mode: request.mode().name().into(),
            status: ModelStatus::Cancelled,
            created_ms,
            user: request.user.as_deref().map(cut),
            trace: caller.trace.clone(),
            held: caller.limits.budget_micros.is_some(),
            ..ModelRequest::default()
        };
        Self { ledger, notes: Notes::default(), begun: Instant::now(), row: Some(row) }
    }

    /// What the request's model really is.
    pub(crate) fn resolved(&mut self, model: &str) {
        if let Some(row) = &mut self.row {
            row.model = model.into();
        }
    }

    /// It was answered.
    pub(crate) fn completed(mut self, answer: &Answer) {
        if let Some(row) = &mut self.row {
            row.status = ModelStatus::Completed;
            row.provider = Some(answer.deployment.provider.clone());
            row.deployment = Some(answer.deployment.key.clone());
            row.upstream = Some(answer.deployment.upstream.clone());
            row.pictures = answer.pictures.len() as i64;
            row.files = answer.pictures.iter().filter_map(|one| one.file.clone()).collect();
        }
        self.write();
    }

    /// It was refused.
    pub(crate) fn refused(mut self, problem: &Problem) {
        let failed = self.notes.all().iter().any(|noted| noted.attempt.failure.is_some());
        if let Some(row) = &mut self.row {
            let fault = failed && problem.code != Code::ContentPolicyViolation;
            row.status = if fault { ModelStatus::UpstreamFailure } else { ModelStatus::Rejected };
            row.error_code = Some(problem.code.name().into());
            row.error = Some(cut(&problem.message));
        }
        self.write();
    }

    fn write(&mut self) {
        let Some(row) = self.row.take() else { return };
        let labels = [("model", row.model.clone()), ("status", row.status.name().to_string())];
        // A name that somebody made up is no label.
        if row.status != ModelStatus::Rejected {
            metrics::counter!("zoetrope_gateway_requests_total", &labels).increment(1);
        }
        let (duration, waited) = (self.begun.elapsed(), self.notes.waited());
        metrics::histogram!("zoetrope_gateway_overhead_seconds")
            .record(duration.saturating_sub(waited).as_secs_f64());
        let calls = self.notes.all();
        let cost: Micros = calls.iter().map(|noted| noted.attempt.cost).sum();
        self.ledger.record(ModelRequest {
            cost_micros: cost.0,
            duration_us: micros(duration),
            upstream_us: micros(waited),
            calls: calls.iter().map(call).collect(),
            ..row
        });
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.write();
    }
}

fn call(noted: &Noted) -> ModelCall {
    let Noted { attempt, pictures, .. } = noted;
    let fault = |kind: FailureKind| kind.verdict().health != Health::Unchanged;
    ModelCall {
        provider: attempt.deployment.provider.clone(),
        deployment: attempt.deployment.key.clone(),
        upstream: attempt.deployment.upstream.clone(),
        outcome: attempt.failure.map_or("completed", FailureKind::name).into(),
        fault: attempt.failure.is_some_and(fault),
        duration_us: micros(attempt.duration),
        first_byte_us: attempt.first_byte.map(micros),
        pictures: i64::from(*pictures),
        cost_micros: attempt.cost.0,
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

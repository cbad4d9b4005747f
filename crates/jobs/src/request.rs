//! A request as it lies in the queue.

use std::ops::Deref;

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{Error, Result};

/// Where a request stands: everything but its texts, which may be a hundred megabytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// A UUID of version 7 in lower case.
    pub id: String,
    /// Where it was submitted.
    pub endpoint: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// Where it stands.
    pub state: State,
    /// Normal requests run before low ones.
    pub priority: Priority,
    /// Whether input and output stay in the history.
    pub keep_io: bool,
    /// Attempts begun.
    pub attempts: i64,
    /// Attempts allowed.
    pub attempts_max: i64,
    /// Arrival, milliseconds since 1970.
    pub created_ms: i64,
    /// Begin of the last attempt.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub finished_ms: Option<i64>,
    /// Whether cancelling was asked for while it ran.
    pub cancel: bool,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Where its end is reported.
    pub webhook: Option<String>,
    /// Where its sender reaches this server, without a slash at the end.
    pub base: String,
    /// Dollars a billable unit when it was submitted.
    pub unit_price: Option<f64>,
    /// Whose trace it belongs to, as W3C's `traceparent`.
    pub trace: Option<String>,
}

/// A request with all its texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where it stands; read through the request itself.
    pub standing: Standing,
    /// JSON as it was sent.
    pub input: String,
    /// JSON of what is to be done; empty once it has ended.
    pub task: String,
    /// How it ended, with its answer.
    pub end: Option<End>,
}

impl Deref for Request {
    type Target = Standing;

    fn deref(&self) -> &Standing {
        &self.standing
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits.
    Queued,
    /// A worker has it.
    Running,
    /// Ended, once and for all.
    Done,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
    /// Because somebody asked for it.
    Cancelled,
}

/// Which of two waiting requests runs first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// In order of arrival.
    #[default]
    Normal,
    /// When no normal request waits.
    Low,
}

/// How a request ended, without its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The HTTP status of the answer.
    pub status_code: u16,
    /// For a failure: what happened, for people.
    pub error: Option<String>,
    /// For a failure of the request itself: its type.
    pub error_type: Option<String>,
    /// Milliseconds that the work took.
    pub inference_ms: Option<i64>,
    /// What is charged, in the endpoint's unit.
    pub billable_units: Option<f64>,
    /// Pictures that were found unsafe, where somebody looked.
    pub flagged: Option<i64>,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// The HTTP status of the answer.
    pub status_code: u16,
    /// JSON of the answer.
    pub response: String,
    /// For a failure: what happened, for people.
    pub error: Option<String>,
    /// For a failure of the request itself: its type.
    pub error_type: Option<String>,
    /// Milliseconds that the work took.
    pub inference_ms: Option<i64>,
    /// What is charged, in the endpoint's unit.
    pub billable_units: Option<f64>,
    /// Pictures that were found unsafe, where somebody looked.
    pub flagged: Option<i64>,
}

impl End {
    /// Counts this end; said once it is written.
    pub(crate) fn count(&self) {
        let kind = self.error_type.clone().unwrap_or_else(|| "none".into());
        metrics::counter!("zoetrope_ends_total", "outcome" => self.outcome.name(), "type" => kind)
            .increment(1);
    }

    /// A failure of the request, not of the model: `{detail, error_type}` with `status_code`.
    pub fn of_request(outcome: Outcome, status_code: u16, error_type: &str, detail: &str) -> Self {
        let response = serde_json::json!({"detail": detail, "error_type": error_type}).to_string();
        Self {
            outcome,
            status_code,
            response,
            error: Some(detail.into()),
            error_type: Some(error_type.into()),
            inference_ms: None,
            billable_units: None,
            flagged: None,
        }
    }
}

/// A line that a worker said about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// From 0, without gaps.
    pub number: i64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// One line.
    pub message: String,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Priority {
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Normal => 0,
            Self::Low => 1,
        }
    }
}

/// An id as it lies in the database; `None` for what cannot be one.
pub(crate) fn canonical(id: &str) -> Option<String> {
    let hyphenated = id.len() == 36;
    Uuid::try_parse(id).ok().filter(|_| hyphenated).map(|id| id.to_string())
}

/// `text` without the one character that PostgreSQL keeps in no text.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Request {
    pub(crate) fn of(row: &AnyRow) -> Result<Self> {
        let standing = Standing::of(row)?;
        let end = match &standing.ended {
            None => None,
            Some(ended) => Some(End {
                outcome: ended.outcome,
                status_code: ended.status_code,
                response: row.try_get::<Option<String>, _>("response")?.unwrap_or_default(),
                error: ended.error.clone(),
                error_type: ended.error_type.clone(),
                inference_ms: ended.inference_ms,
                billable_units: ended.billable_units,
                flagged: ended.flagged,
            }),
        };
        Ok(Self { standing, input: row.try_get("input")?, task: row.try_get("task")?, end })
    }
}

impl Standing {
    pub(crate) fn of(row: &AnyRow) -> Result<Self> {
        let id: String = row.try_get("id")?;
        let unknown = |column, value: String| Error::Unknown { id: id.clone(), column, value };
        let state = match row.try_get::<String, _>("state")? {
            name if name == "queued" => State::Queued,
            name if name == "running" => State::Running,
            name if name == "done" => State::Done,
            name => return Err(unknown("state", name)),
        };
        let outcome = match row.try_get::<Option<String>, _>("outcome")?.as_deref() {
            None => None,
            Some("completed") => Some(Outcome::Completed),
            Some("failed") => Some(Outcome::Failed),
            Some("cancelled") => Some(Outcome::Cancelled),
            Some(name) => return Err(unknown("outcome", name.into())),
        };
        let ended = match outcome {
            None => None,
            Some(outcome) => Some(Ended {
                outcome,
                status_code: row.try_get::<Option<i64>, _>("status_code")?.unwrap_or(500) as u16,
                error: row.try_get("error")?,
                error_type: row.try_get("error_type")?,
                inference_ms: row.try_get("inference_ms")?,
                billable_units: row.try_get("billable_units")?,
                flagged: row.try_get("flagged")?,
            }),
        };
        Ok(Self {
            endpoint: row.try_get("endpoint")?,
            owner: row.try_get("owner")?,
            state,
            priority: match row.try_get::<i64, _>("priority")? {
                0 => Priority::Normal,
                _ => Priority::Low,
            },
            keep_io: row.try_get::<i64, _>("keep_io")? == 1,
            attempts: row.try_get("attempts")?,
            attempts_max: row.try_get("attempts_max")?,
            created_ms: row.try_get("created_ms")?,
            started_ms: row.try_get("started_ms")?,
            finished_ms: row.try_get("finished_ms")?,
            cancel: row.try_get::<i64, _>("cancel")? == 1,
            ended,
            webhook: row.try_get("webhook")?,
            base: row.try_get("base")?,
            unit_price: row.try_get("unit_price")?,
            trace: row.try_get("trace")?,
            id,
        })
    }
}

//! Answers: JSON, and failures in fal's shapes.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use zoetrope_api::fal::Problem;

/// A failure of a request, rendered as fal does: `{detail, error_type?}`, with `message` beside it because HTTP/2 has no
/// reason phrases and the JavaScript client shows that field.
#[derive(Debug)]
pub struct Failure(Box<Inside>);

#[derive(Debug)]
struct Inside {
    status: StatusCode,
    body: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-fal-request-id");
pub(crate) const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fal-error-type");
pub(crate) const BILLABLE_UNITS: HeaderName = HeaderName::from_static("x-fal-billable-units");
pub(crate) const TIMEOUT_TYPE: HeaderName = HeaderName::from_static("x-fal-request-timeout-type");
const NEEDS_RETRY: HeaderName = HeaderName::from_static("x-fal-needs-retry");

impl Failure {
    /// `{detail}`.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let body = json!({"detail": detail, "message": detail});
        Self(Box::new(Inside { status, body, headers: Vec::new() }))
    }

    /// `{detail, error_type}` and the type in a header.
    pub(crate) fn typed(
        status: StatusCode,
        error_type: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let mut failure = Self::new(status, detail);
        failure.0.body["error_type"] = error_type.into();
        failure.with(ERROR_TYPE, error_type)
    }

    /// Fields that cannot be used: 422 with Pydantic's list.
    pub(crate) fn problems(problems: &[Problem]) -> Self {
        let mut body = zoetrope_api::fal::detail(problems);
        let name = |p: &Problem| {
            p.loc
                .iter()
                .skip(1)
                .map(|part| part.as_str().map_or(part.to_string(), String::from))
                .collect::<Vec<_>>()
                .join(".")
        };
        let lines: Vec<_> = problems.iter().map(|p| format!("{}: {}", name(p), p.msg)).collect();
        body["message"] = lines.join("; ").into();
        let failure = Self(Box::new(Inside {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body,
            headers: Vec::new(),
        }));
        failure.with(BILLABLE_UNITS, "0")
    }

    /// Too much at once; `seconds` later it may be different.
    pub(crate) fn later(
        status: StatusCode,
        error_type: &'static str,
        detail: impl Into<String>,
        seconds: u32,
    ) -> Self {
        Self::typed(status, error_type, detail)
            .with(NEEDS_RETRY, "1")
            .with(header::RETRY_AFTER, &seconds.to_string())
    }

    /// The same with a field beside `detail`.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.body[name] = value.into();
        self
    }

    /// The same with a header.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// HTTP's.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What is told where a body cannot be sent.
    pub(crate) fn body(&self) -> &Value {
        &self.0.body
    }

    /// The same in a sentence, for people.
    pub fn message(&self) -> &str {
        self.0.body["message"].as_str().unwrap_or("Internal Server Error")
    }

    /// Something of ours failed: the log says what, the caller only that.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        let error = zoetrope_files::redacted(&error.to_string());
        tracing::error!(error, "a request could not be answered");
        Self::typed(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal Server Error")
    }
}

impl From<zoetrope_jobs::Error> for Failure {
    fn from(error: zoetrope_jobs::Error) -> Self {
        match error {
            zoetrope_jobs::Error::Full { .. } => Self::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "runner_scheduling_failure",
                format!("The queue is full: {error}"),
                5,
            ),
            zoetrope_jobs::Error::OwnerFull { .. } => Self::later(
                StatusCode::TOO_MANY_REQUESTS,
                "concurrent_requests_limit",
                error.to_string(),
                5,
            ),
            zoetrope_jobs::Error::Closed => Self::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "runner_scheduling_failure",
                "The server is shutting down",
                2,
            ),
            zoetrope_jobs::Error::Cursor(_) => {
                Self::typed(StatusCode::BAD_REQUEST, "bad_request", error.to_string())
            }
            other => Self::internal(&other),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Inside { status, body, headers } = *self.0;
        let mut response = json_answer(status, &body);
        response.headers_mut().extend(headers);
        response
    }
}

/// `body` as JSON.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Response {
    text_answer(status, body.to_string())
}

/// `body`, which is JSON already.
pub(crate) fn text_answer(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

//! What can be wrong with a request for pictures, as OpenAI's clients and Lumenfall's understand it.

use serde_json::{Value, json};

/// An error that a caller is told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// For people: which parameter has which value, what the limit is, and what to do.
    pub message: String,
    /// The parameter that is wrong, as it was sent.
    pub param: Option<String>,
    /// Where it differs from the code's own: that of a provider's answer.
    pub status: Option<u16>,
    /// Whether sending the same again may help, where the code alone does not tell: OpenAI's clients otherwise repeat 408,
    /// 409, 429 and everything from 500 on, twice, whatever it costs.
    pub retry: Option<bool>,
    /// Milliseconds after which it may help.
    pub retry_after_ms: Option<u64>,
}

/// What is wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A parameter, a body or a picture that cannot be used.
    InvalidRequest,
    /// The prompt or the result was refused.
    ContentPolicyViolation,
    /// No key, or none that is known.
    AuthenticationFailed,
    /// The key may not do this.
    PermissionDenied,
    /// The key's budget does not cover the estimate.
    InsufficientBalance,
    /// No model of that name.
    ModelNotFound,
    /// A model that is switched off.
    ModelDisabled,
    /// Nothing else of that name.
    NotFound,
    /// Too many requests of this key, or of everybody.
    RateLimited,
    /// A provider refused in a way that no other would cure.
    UpstreamError,
    /// Everybody who could have made it failed.
    AllProvidersExhausted,
    /// Something of ours failed.
    InternalError,
    /// The server stops, or its queue is full.
    Unavailable,
}

impl Code {
    /// As it is sent.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// OpenAI's `type`.
    pub fn kind(self) -> &'static str {
        self.row().2
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().1
    }

    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => ("INVALID_REQUEST", 400, "invalid_request_error"),
            Self::ContentPolicyViolation => {
                ("CONTENT_POLICY_VIOLATION", 400, "invalid_request_error")
            }
            Self::AuthenticationFailed => ("AUTHENTICATION_FAILED", 401, "authentication_error"),
            Self::InsufficientBalance => ("INSUFFICIENT_BALANCE", 402, "insufficient_quota"),
            Self::PermissionDenied => ("PERMISSION_DENIED", 403, "permission_error"),
            Self::ModelNotFound => ("MODEL_NOT_FOUND", 404, "invalid_request_error"),
            Self::ModelDisabled => ("MODEL_DISABLED", 404, "invalid_request_error"),
            Self::NotFound => ("NOT_FOUND", 404, "invalid_request_error"),
            Self::RateLimited => ("RATE_LIMITED", 429, "rate_limit_error"),
            Self::UpstreamError => ("UPSTREAM_ERROR", 502, "server_error"),
            Self::AllProvidersExhausted => ("ALL_PROVIDERS_EXHAUSTED", 502, "server_error"),
            Self::InternalError => ("INTERNAL_ERROR", 500, "server_error"),
            Self::Unavailable => ("UNAVAILABLE", 503, "server_error"),
        }
    }
}

impl Problem {
    /// A problem of `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, param: None, status: None, retry: None, retry_after_ms: None }
    }

    /// A parameter that cannot be used.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        let problem = Self::new(Code::InvalidRequest, message);
        Self { param: Some(param.into()), ..problem }
    }

    /// The same, once sending it again is known to help or not.
    pub fn retry(self, retry: bool) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.code.status())
    }

    /// What `x-should-retry` says: what is wrong with a request stays wrong, and what was paid for is not paid twice.
    pub fn should_retry(&self) -> bool {
        let status = self.status();
        self.retry.unwrap_or(status == 429 || status >= 500)
    }

    /// `{"error": {message, type, param, code}}`.
    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.code.kind(),
            "param": self.param,
            "code": self.code.name(),
        }})
    }
}

impl From<crate::InvalidField> for Problem {
    fn from(error: crate::InvalidField) -> Self {
        Self::invalid(error.field, error.to_string())
    }
}

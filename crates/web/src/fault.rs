//! What went wrong, for whoever looks at a page: the guard shows it in the page's frame, or says it to a script.

use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use zoetrope_server::pages::Failure;

/// Why there is no page.
#[derive(Debug)]
pub(crate) struct Fault(Shown);

/// What the guard makes a page of.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Fault {
    /// `message` is for people: what is wrong, and what to do.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(Shown { status, message: message.into() })
    }

    /// Somebody has to sign in first.
    pub(crate) fn stranger() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Sign in with a key first.")
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::new(failure.status(), failure.message())
    }
}

impl From<zoetrope_jobs::Error> for Fault {
    fn from(error: zoetrope_jobs::Error) -> Self {
        Failure::from(error).into()
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut answer = (self.0.status, self.0.message.clone()).into_response();
        answer.extensions_mut().insert(self.0);
        answer
    }
}

/// Everything that is not there.
pub(crate) async fn nothing(uri: Uri) -> Fault {
    Fault::not_found(format!("Path {} not found", uri.path()))
}

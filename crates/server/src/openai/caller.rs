//! Who asks, as the gateway sees them: the one place that makes its [`Caller`].

use axum::http::{HeaderMap, StatusCode};
use tracing::Span;
use zoetrope_api::images::{Code, Problem};
use zoetrope_gateway::caller::Caller;

use crate::answer::Failure;
use crate::auth::{self, Purpose};
use crate::state::App;
use crate::surface::Origin;

/// For whom the pictures are, by the key in `headers`.
pub(crate) async fn caller(
    app: &App,
    headers: &HeaderMap,
    origin: &Origin,
) -> Result<Caller, Problem> {
    let asks = asks(app, headers).await?;
    Ok(Caller {
        owner: asks.owner,
        concurrency_max: asks.concurrency_max,
        base: origin.files.clone(),
        trace: zoetrope_trace::parent(&Span::current()),
        limits: asks.limits,
    })
}

/// What was refused before anybody knew in which dialect to say so.
pub(crate) fn problem(failure: Failure) -> Problem {
    let status = failure.status();
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::AuthenticationFailed,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_server_error() => Code::InternalError,
        _ => Code::InvalidRequest,
    };
    let message = failure.body()["message"].as_str().unwrap_or("The request was refused").into();
    let problem = Problem { status: Some(status.as_u16()), ..Problem::new(code, "") };
    match code {
        Code::AuthenticationFailed => Problem { message: KEY.into(), ..problem },
        _ => Problem { message, ..problem },
    }
}

/// Who asks about an account: keys alone, no tokens.
pub(super) async fn asks(app: &App, headers: &HeaderMap) -> Result<auth::Caller, Problem> {
    auth::caller(app, headers, None, Purpose::Account).await.map_err(problem)
}

/// What is told of a queue that failed.
pub(super) fn failed(error: zoetrope_jobs::Error) -> Problem {
    problem(error.into())
}

/// In the words of these clients, which call it an API key.
const KEY: &str = "The API key is missing, not known here, or revoked. Send Authorization: Bearer ID:SECRET; `zoetrope keys create` makes one";

//! Requests that carry an `Idempotency-Key`: whoever sends one again gets the first answer, and nothing is made or paid twice.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use sha2::{Digest, Sha256};
use zoetrope_api::images::{Code, ImageRequest, Input, Problem};
use zoetrope_jobs::{Claim, KeptAnswer};

use crate::answer::text_answer;
use crate::openai::caller::problem;
use crate::state::App;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Characters of a key, as others have it.
const KEY_MAX: usize = 255;
/// How long an answer is kept: its pictures' addresses live no longer.
const KEEP_MS: i64 = 3_600_000;
/// How long a request may run before another with its key begins anew: longer than any deadline.
const RUN_MS: i64 = 30 * 60_000;
/// Between two looks whether another has finished.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a second request waits for the first.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bytes of an answer that is kept; of a larger one only that it was given.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Headers of an answer that are kept.
const KEPT: [&str; 7] = [
    "x-request-id",
    "x-lumenfall-request-id",
    "x-lumenfall-provider",
    "x-lumenfall-model",
    "x-gateway-cost",
    "x-should-retry",
    "server-timing",
];

/// The key in `headers`, if there is one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    if text.is_empty() || text.len() > KEY_MAX {
        let text = format!("Idempotency-Key must have 1 to {KEY_MAX} plain characters.");
        return Err(Problem::new(Code::InvalidRequest, text));
    }
    Ok(Some(text.into()))
}

/// What tells one request from another, whatever the form that it was sent in.
pub(super) fn digest(request: &ImageRequest) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{request:?}"));
    let edit = request.edit.iter();
    for input in edit.flat_map(|edit| edit.images.iter().chain(&edit.mask)) {
        match input {
            Input::Bytes(bytes) => hash.update(Sha256::digest(bytes)),
            Input::Url(url) => hash.update(Sha256::digest(url)),
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The answer of `work`, which is done once for all requests with this key of `owner`, also where whoever asked first has gone.
pub(super) async fn once(
    app: &App,
    (owner, key): (String, String),
    digest: String,
    work: impl Future<Output = Response> + Send + 'static,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    loop {
        let until_ms = app.now_ms() + RUN_MS;
        let queue = &app.settings.queue;
        let claim = queue.claim_answer((&owner, &key), &digest, until_ms).await;
        match claim.map_err(|error| problem(error.into()))? {
            Claim::First => break,
            Claim::Answered(answer) => return Ok(replayed(answer)),
            Claim::Other => {
                let text = "This Idempotency-Key was used for another request; take a new one.";
                let problem = Problem::new(Code::InvalidRequest, text).retry(false);
                return Err(Problem { status: Some(422), ..problem });
            }
            Claim::Running if begun.elapsed() > PATIENCE => {
                let text = "A request with this Idempotency-Key is still worked on.";
                let problem = Problem::new(Code::Unavailable, text).retry(true);
                return Err(Problem { status: Some(409), retry_after_ms: Some(5000), ..problem });
            }
            Claim::Running => tokio::time::sleep(PAUSE).await,
        }
    }
    let state = app.clone();
    let done = tokio::spawn(async move {
        let guard = Forget { app: state.clone(), name: Some((owner.clone(), key.clone())) };
        let response = work.await;
        keep(&state, guard, response).await
    });
    done.await.map_err(|_| {
        Problem::new(Code::InternalError, "The request could not be answered; try again.")
    })
}

/// Keeps an answer that must not be made again, and forgets the others.
async fn keep(app: &App, mut guard: Forget, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let spent = parts.status.is_server_error()
        && parts.headers.get("x-should-retry").is_some_and(|value| value == "false");
    if !parts.status.is_success() && !spent {
        return Response::from_parts(parts, body);
    }
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let kept = bytes.len() <= KEPT_BYTES_MAX;
    let text = std::str::from_utf8(&bytes).ok().filter(|_| kept);
    let answer = match text {
        Some(text) => KeptAnswer {
            status: parts.status.as_u16(),
            headers: headers(&parts.headers),
            body: text.into(),
        },
        None => {
            let text = "This request was answered; the answer is too large to be given twice.";
            let problem = Problem { status: Some(409), ..Problem::new(Code::InvalidRequest, text) };
            let body = problem.retry(false).body().to_string();
            KeptAnswer { status: 409, headers: headers(&parts.headers), body }
        }
    };
    if let Some((owner, key)) = guard.name.take() {
        let until_ms = app.now_ms() + KEEP_MS;
        let kept = app.settings.queue.keep_answer((&owner, &key), &answer, until_ms).await;
        if let Err(error) = kept {
            tracing::error!(%error, "an answer could not be kept");
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn headers(headers: &HeaderMap) -> String {
    let kept = KEPT.iter().filter_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?)));
    let kept: Vec<_> = kept.collect();
    serde_json::to_string(&kept).unwrap_or_default()
}

fn replayed(answer: KeptAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let kept: Vec<(String, String)> = serde_json::from_str(&answer.headers).unwrap_or_default();
    let mut response = text_answer(status, answer.body);
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// A claim that nothing came of is free again.
struct Forget {
    app: App,
    name: Option<(String, String)>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let Some((owner, key)) = self.name.take() else { return };
        let app = self.app.clone();
        self.app.beside(async move {
            if let Err(error) = app.settings.queue.forget_answer((&owner, &key)).await {
                tracing::warn!(%error, "an idempotency key could not be freed");
            }
        });
    }
}

//! `fal.run`: an endpoint called and waited for; `/stream` and `/realtime` beside it.

use axum::extract::{FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Map, Value};
use zoetrope_api::fal::application;

use crate::answer::{BILLABLE_UNITS, ERROR_TYPE, Failure, REQUEST_ID, TIMEOUT_TYPE, text_answer};
use crate::auth::{Purpose, caller};
use crate::extract;
use crate::fal::direct::{self, Call};
use crate::fal::submit::{Sent, endpoint, submit};
use crate::fal::{realtime, stream, wait};
use crate::state::App;
use crate::surface::Origin;

pub(crate) fn router(app: &App) -> Router {
    Router::new().fallback(called).with_state(app.clone())
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    pub(crate) fal_jwt_token: Option<String>,
    pub(crate) max_buffering: Option<usize>,
}

async fn called(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Failure> {
    let path = request.uri().path().trim_end_matches('/').to_string();
    if path.contains("/requests/") {
        return Ok(super::queue::called(State(app), Extension(origin), request)
            .await
            .into_response());
    }
    let (mut parts, body) = request.into_parts();
    let asked: Asked = extract::query(&parts.uri)?;
    let (id, way) = match path.rsplit_once('/') {
        Some((id, way @ ("stream" | "realtime"))) => (id, way),
        _ => (path.as_str(), "run"),
    };
    let endpoint = endpoint(id)?;
    let purpose = Purpose::Application(application(endpoint.id));
    let caller = caller(&app, &parts.headers, asked.fal_jwt_token.as_deref(), purpose).await;
    if way == "realtime" {
        if endpoint.trains() {
            let detail = format!(
                "Path /realtime not found: {} trains for minutes or hours; submit to the queue",
                endpoint.id
            );
            return Err(Failure::new(StatusCode::NOT_FOUND, detail));
        }
        let upgrade = upgrade(&mut parts).await?;
        let (token, headers) = (asked.fal_jwt_token, parts.headers);
        let most = asked.max_buffering;
        let session = realtime::Session { app, endpoint, token, headers, base: origin.files };
        return Ok(realtime::open(upgrade, session, caller, most));
    }
    let caller = caller?;
    let (input, held) = match parts.method {
        Method::POST | Method::PUT => extract::input(&app, body).await?,
        Method::GET if way == "run" => (from_query(parts.uri.query().unwrap_or_default()), None),
        _ => {
            let failure =
                Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Send POST with a JSON body");
            return Err(failure.with(header::ALLOW, "POST"));
        }
    };
    let call = direct::admit(&app, &caller).await?;
    let streamed = way == "stream";
    let sent = Sent {
        endpoint,
        caller: &caller,
        headers: &parts.headers,
        base: &origin.files,
        input,
        webhook: None,
        previews: streamed,
        inline: false,
    };
    let id = submit(&app, sent).await?;
    drop(held);
    let guard = CancelOnDrop::new(app.clone(), id.clone()).holding(call);
    if streamed {
        return Ok(stream::answer(app, id, guard));
    }
    let request = wait::end(&app, &id).await?;
    guard.disarm();
    Ok(result(&request))
}

async fn upgrade(parts: &mut Parts) -> Result<WebSocketUpgrade, Failure> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    upgrade.map_err(|_| {
        let detail = "This is a websocket; connect with wss://";
        Failure::new(StatusCode::UPGRADE_REQUIRED, detail)
    })
}

/// JavaScript's `method: "get"`: the input as query parameters; numbers and flags arrive as text and are read as such.
fn from_query(query: &str) -> Value {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let known = |name: &str| name != "fal_jwt_token" && name != "max_buffering";
    Value::Object(
        pairs
            .filter(|(name, _)| known(name))
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect::<Map<_, _>>(),
    )
}

/// Cancels a request whose caller has gone.
pub(crate) struct CancelOnDrop {
    app: App,
    id: Option<String>,
    /// Counts among its owner's calls as long as it may run.
    call: Option<Call>,
}

impl CancelOnDrop {
    pub(crate) fn new(app: App, id: String) -> Self {
        Self { app, id: Some(id), call: None }
    }

    pub(crate) fn holding(mut self, call: Call) -> Self {
        self.call = Some(call);
        self
    }

    /// The request has ended.
    pub(crate) fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let queue = self.app.settings.queue.clone();
            self.app.beside(async move {
                if let Err(error) = queue.cancel(&id).await {
                    tracing::warn!(request = %id, %error, "an abandoned request could not be cancelled");
                }
            });
        }
    }
}

/// What the model answered, with its status: an error stays an error.
pub(crate) fn result(request: &zoetrope_jobs::Request) -> Response {
    let Some(end) = &request.end else {
        let failure = Failure::new(StatusCode::BAD_REQUEST, "Request is still in progress");
        return failure.with(REQUEST_ID, &request.id).into_response();
    };
    let status = StatusCode::from_u16(end.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = text_answer(status, end.response.clone());
    let mut add = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    };
    add(REQUEST_ID, &request.id);
    add(BILLABLE_UNITS, &units(end.billable_units.unwrap_or(0.0)));
    if let Some(kind) = &end.error_type {
        add(ERROR_TYPE, kind);
        if kind == "request_timeout" {
            add(TIMEOUT_TYPE, "user");
        }
    }
    answer
}

/// Whole numbers without a point, others with up to 8 decimals.
fn units(units: f64) -> String {
    let text = format!("{units:.8}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

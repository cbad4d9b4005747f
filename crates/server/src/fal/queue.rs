//! `queue.fal.run`: submit, status, status stream, result, cancel.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zoetrope_api::fal::application;
use zoetrope_jobs::{Cancelled, LogLine, Standing, State as Stand};

use crate::answer::{Failure, REQUEST_ID, json_answer};
use crate::auth::{Caller, Purpose, caller};
use crate::extract;
use crate::fal::run::result;
use crate::fal::submit::{Sent, endpoint, submit};
use crate::fal::wait;
use crate::state::App;
use crate::surface::Origin;

/// Lines of a status; more are in the history.
const LOGS_MAX: i64 = 1000;
/// How long `?wait=` waits at most.
const WAIT_SECONDS_MAX: f64 = 60.0;
/// How often a queued request's position is looked up for a stream.
const POSITION_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn router(app: &App) -> Router {
    Router::new().fallback(called).with_state(app.clone())
}

#[derive(Deserialize, Default)]
struct Asked {
    logs: Option<String>,
    fal_webhook: Option<String>,
    fal_max_queue_length: Option<i64>,
    fal_jwt_token: Option<String>,
    wait: Option<f64>,
}

impl Asked {
    /// `1` from JavaScript, `true` from Python.
    fn logs(&self) -> bool {
        self.logs
            .as_deref()
            .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes"))
    }
}

/// Everything on the queue's host: what it is depends on the path's end.
pub(crate) async fn called(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let asked: Asked = extract::query(&parts.uri)?;
    let path = parts.uri.path().trim_matches('/').to_string();
    let desk = Desk { app, origin, asked, headers: parts.headers };
    let Some((application, rest)) = path.split_once("/requests/") else {
        endpoint(&path)?;
        if !matches!(parts.method, Method::POST | Method::PUT) {
            let detail = "Send POST with a JSON body to submit a request";
            let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, detail);
            return Err(failure.with(header::ALLOW, "POST"));
        }
        return desk.submit(&path, body).await;
    };
    let caller = desk.caller(application).await?;
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    let request = desk.request(id, &caller).await?;
    match (&parts.method, what) {
        (&Method::GET, "" | "response") => desk.result(&request).await,
        (&Method::GET, "status") => desk.status(request).await,
        (&Method::GET, "status/stream") => Ok(desk.status_stream(request.id)),
        (&Method::PUT | &Method::POST, "cancel") => desk.cancel(&request.id).await,
        _ => Err(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} does not work on /{what}", parts.method),
        )),
    }
}

/// One call, with all that it came with.
struct Desk {
    app: App,
    origin: Origin,
    asked: Asked,
    headers: HeaderMap,
}

impl Desk {
    async fn caller(&self, id: &str) -> Result<Caller, Failure> {
        let purpose = Purpose::Application(application(id));
        caller(&self.app, &self.headers, self.asked.fal_jwt_token.as_deref(), purpose).await
    }

    async fn submit(self, path: &str, body: Body) -> Result<Response, Failure> {
        // Who it is comes first: a stranger's input is not read.
        let endpoint = endpoint(path)?;
        let caller = self.caller(endpoint.id).await?;
        let (input, held) = extract::input(&self.app, body).await?;
        let queue = &self.app.settings.queue;
        if let Some(most) = self.asked.fal_max_queue_length
            && queue.queued().await? >= most
        {
            let detail = format!("The queue is longer than fal_max_queue_length={most}");
            return Err(Failure::later(
                StatusCode::TOO_MANY_REQUESTS,
                "fal_max_queue_length",
                detail,
                5,
            ));
        }
        let webhook = self.asked.fal_webhook.as_deref().map(crate::webhook::written);
        if let Some(url) = &webhook {
            crate::webhook::check(&self.app, url).await?;
        }
        let sent = Sent {
            endpoint,
            caller: &caller,
            headers: &self.headers,
            base: &self.origin.files,
            input,
            webhook,
            previews: false,
            inline: false,
        };
        let id = submit(&self.app, sent).await?;
        drop(held);
        let request = queue.standing(&id).await?;
        let position = match &request {
            Some(request) if request.state == Stand::Queued => queue.position(request).await?,
            _ => 0,
        };
        let mut body = self.addresses(endpoint.id, &id);
        body["status"] = "IN_QUEUE".into();
        body["queue_position"] = position.into();
        body["gateway_request_id"] = id.as_str().into();
        Ok(with_id(json_answer(StatusCode::OK, &body), &id))
    }

    /// The request's id and the addresses that every status repeats.
    fn addresses(&self, endpoint: &str, id: &str) -> Value {
        let base = format!("{}/{}/requests/{id}", self.origin.queue, application(endpoint));
        json!({"request_id": id, "response_url": base, "status_url": format!("{base}/status"), "cancel_url": format!("{base}/cancel")})
    }

    /// The request, if this caller may see it; others' look like none.
    async fn request(&self, id: &str, caller: &Caller) -> Result<Standing, Failure> {
        let missing = || {
            let detail = format!("Request {id} not found");
            Failure::new(StatusCode::NOT_FOUND, detail).field("status", "NOT_FOUND")
        };
        let found = self.app.settings.queue.standing(id).await?;
        found.filter(|request| caller.sees(&request.owner)).ok_or_else(missing)
    }

    async fn result(&self, request: &Standing) -> Result<Response, Failure> {
        let found = self.app.settings.queue.request(&request.id).await?;
        let deleted = || Failure::new(StatusCode::NOT_FOUND, "The request was deleted");
        Ok(result(&found.ok_or_else(deleted)?))
    }

    /// `?wait=SECONDS` answers once the request has changed, so that nobody need poll often.
    async fn status(self, mut request: Standing) -> Result<Response, Failure> {
        let queue = &self.app.settings.queue;
        if let Some(seconds) = self.asked.wait.filter(|s| *s > 0.0)
            && request.state != Stand::Done
        {
            // Looked at again once it is watched: what changes in between is seen.
            let mut watcher = queue.watch(&request.id);
            let mut now = queue.standing(&request.id).await?;
            if now.as_ref() == Some(&request) {
                let patience = Duration::from_secs_f64(seconds.min(WAIT_SECONDS_MAX));
                tokio::select! {
                    () = watcher.changed(patience) => {}
                    () = self.app.stopping() => {}
                }
                now = queue.standing(&request.id).await?;
            }
            request = now.unwrap_or(request);
        }
        let body = self.status_body(&request, 0).await?.0;
        let code = if request.state == Stand::Done { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(with_id(json_answer(code, &body), &request.id))
    }

    /// fal's status object with the log lines from number `from`, and the number of the next.
    async fn status_body(&self, request: &Standing, from: i64) -> Result<(Value, i64), Failure> {
        let queue = &self.app.settings.queue;
        let mut body = self.addresses(&request.endpoint, &request.id);
        let mut next = from;
        if request.state == Stand::Queued {
            body["status"] = "IN_QUEUE".into();
            body["queue_position"] = queue.position(request).await?.into();
            return Ok((body, next));
        }
        body["logs"] = Value::Null;
        if self.asked.logs() {
            let lines = queue.logs(&request.id, from, LOGS_MAX).await?;
            next = lines.last().map_or(from, |line| line.number + 1);
            body["logs"] = lines.iter().map(log_line).collect();
        }
        body["status"] = "IN_PROGRESS".into();
        if let Some(end) = &request.ended {
            body["status"] = "COMPLETED".into();
            body["metrics"] = match end.inference_ms {
                Some(ms) => {
                    json!({"inference_time": ms as f64 / 1000.0, "billable_units": end.billable_units})
                }
                None => json!({}),
            };
            if let Some(error) = &end.error {
                body["error"] = error.as_str().into();
                body["error_type"] = end.error_type.clone().into();
            }
        }
        Ok((body, next))
    }

    /// The same objects as events, one for each change, with new lines only, until the end.
    fn status_stream(self, id: String) -> Response {
        let watcher = self.app.settings.queue.watch(&id);
        let start = Some((self, watcher, 0_i64, Value::Null));
        let name = id.clone();
        let events = stream::unfold(start, move |held| {
            let id = name.clone();
            async move {
                let (desk, mut watcher, from, last) = held?;
                loop {
                    let request = match wait::look(&desk.app.settings.queue, &id).await {
                        Ok(request) => request,
                        Err(failure) => return Some((event(failure.body()), None)),
                    };
                    let (body, next) = match desk.status_body(&request, from).await {
                        Ok(body) => body,
                        Err(failure) => return Some((event(failure.body()), None)),
                    };
                    let done = request.state == Stand::Done;
                    if done || next > from || differs(&body, &last) {
                        let held = (!done).then_some((desk, watcher, next, body.clone()));
                        return Some((event(&body), held));
                    }
                    if desk.app.is_stopping() {
                        return Some((Err(Stopping), None));
                    }
                    tokio::select! {
                        () = watcher.changed(POSITION_PATIENCE) => {}
                        () = desk.app.stopping() => {}
                    }
                }
            }
        });
        with_id(
            Sse::new(events)
                .keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
                .into_response(),
            &id,
        )
    }

    async fn cancel(self, id: &str) -> Result<Response, Failure> {
        let (code, status) = match self.app.settings.queue.cancel(id).await? {
            Cancelled::Removed | Cancelled::Requested => {
                (StatusCode::ACCEPTED, "CANCELLATION_REQUESTED")
            }
            Cancelled::AlreadyDone => (StatusCode::BAD_REQUEST, "ALREADY_COMPLETED"),
            Cancelled::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        };
        let mut body = json!({"status": status, "success": code == StatusCode::ACCEPTED});
        if code != StatusCode::ACCEPTED {
            body["detail"] = format!("Request {id}: {status}").into();
        }
        Ok(with_id(json_answer(code, &body), id))
    }
}

/// Whether a status says something new, its log lines aside.
fn differs(body: &Value, last: &Value) -> bool {
    ["status", "queue_position"].iter().any(|field| body[field] != last[field])
}

type Told = Result<Event, Stopping>;

/// Cuts a stream off: an orderly end would look like the request's to whoever listens, and have it fetch a result that is not there.
#[derive(Debug, thiserror::Error)]
#[error("the server stops; ask the next one")]
struct Stopping;

fn event(body: &Value) -> Told {
    Ok(Event::default().data(body.to_string()))
}

pub(crate) fn with_id(mut response: Response, id: &str) -> Response {
    if let Ok(value) = id.parse() {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn log_line(line: &LogLine) -> Value {
    json!({"message": line.message, "level": line.level, "source": "USER", "timestamp": timestamp(line.at_ms), "labels": {"level": line.level}})
}

/// ISO 8601 in UTC.
pub(crate) fn timestamp(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

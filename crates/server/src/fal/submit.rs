//! What was sent to an endpoint, whichever way, becomes a request in the queue.

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use tracing::Span;
use zoetrope_api::fal::{Endpoint, Problem, parse};
use zoetrope_api::task::{Delivery, Task};
use zoetrope_jobs::{New, Priority};

use crate::answer::Failure;
use crate::auth::Caller;
use crate::fal::lifecycle;
use crate::state::App;

/// The endpoint called `path`, or fal's answer for one that is not there.
pub(crate) fn endpoint(path: &str) -> Result<&'static Endpoint, Failure> {
    let id = path.trim_matches('/');
    Endpoint::find(id).ok_or_else(|| {
        let known: Vec<_> = zoetrope_api::fal::ENDPOINTS.iter().map(|e| e.id).collect();
        let detail =
            format!("Application \"{id}\" not found. This server has {}", known.join(", "));
        Failure::new(StatusCode::NOT_FOUND, detail)
    })
}

/// Values of a body: each takes many times its text's length in memory. An upload's list of parts has 20,000.
const VALUES_MAX: usize = 50_000;

/// About how many values there are in a JSON text: separators outside of strings.
fn values(bytes: &[u8]) -> usize {
    let (mut inside, mut escaped, mut count) = (false, false, 0);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b',' | b'[' | b'{' if !inside => count += 1,
            _ => {}
        }
    }
    count
}

/// A body as JSON; an empty one is an empty object, since JavaScript's `method: "get"` sends none.
pub(crate) fn json_of(bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    if values(bytes) > VALUES_MAX {
        let detail =
            format!("The body has more than {VALUES_MAX} values, far more than any endpoint reads");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let problem = Problem::new(
            &[json!(error.column())],
            "json_invalid",
            format!("JSON decode error: {error}"),
        );
        Failure::problems(&[problem])
    })
}

/// How a request came.
pub(crate) struct Sent<'a> {
    pub(crate) endpoint: &'static Endpoint,
    pub(crate) caller: &'a Caller,
    pub(crate) headers: &'a HeaderMap,
    /// Where files are reached.
    pub(crate) base: &'a str,
    pub(crate) input: Value,
    pub(crate) webhook: Option<String>,
    pub(crate) previews: bool,
    /// Results go into the answer, whatever the input says.
    pub(crate) inline: bool,
}

/// Checks `sent` and puts it into the queue; its id.
pub(crate) async fn submit(app: &App, sent: Sent<'_>) -> Result<String, Failure> {
    let mut task =
        parse(sent.endpoint, &sent.input).map_err(|problems| Failure::problems(&problems))?;
    let keep_seconds = lifecycle::seconds(sent.headers)?;
    match &mut task {
        Task::Generate(task) => {
            task.previews = sent.previews;
            task.keep_seconds = keep_seconds;
            if sent.inline {
                task.delivery = Delivery::Inline;
            }
        }
        Task::Train(task) => task.keep_seconds = keep_seconds,
    }
    let new = new(&sent, &task, app.price(sent.endpoint.id))?;
    let id = app.settings.queue.submit(new).await?;
    metrics::counter!("zoetrope_submissions_total", "endpoint" => sent.endpoint.id).increment(1);
    Ok(id)
}

fn new(sent: &Sent<'_>, task: &Task, unit_price: Option<f64>) -> Result<New, Failure> {
    let text = |name: &str| sent.headers.get(name).and_then(|value| value.to_str().ok());
    let yes = |name: &str| {
        text(name).is_some_and(|t| matches!(t.to_ascii_lowercase().as_str(), "1" | "true" | "yes"))
    };
    let priority = match text("x-fal-queue-priority") {
        Some(t) if t.eq_ignore_ascii_case("low") => Priority::Low,
        _ => Priority::Normal,
    };
    let stored =
        !text("x-fal-store-io").is_some_and(|t| t.trim() == "0" || t.eq_ignore_ascii_case("false"));
    let start_within_ms = match text("x-fal-request-timeout") {
        Some(t) => match t.trim().parse::<f64>() {
            Ok(seconds) if seconds > 0.1 && seconds < 1e9 => Some((seconds * 1000.0) as i64),
            _ => {
                let detail = format!(
                    "X-Fal-Request-Timeout is `{t}`; it must be a number of seconds above 0.1"
                );
                return Err(Failure::typed(StatusCode::BAD_REQUEST, "bad_request", detail));
            }
        },
        None => None,
    };
    // Pictures in the answer itself are not kept in the history.
    let inline = matches!(task, Task::Generate(task) if task.delivery == Delivery::Inline);
    Ok(New {
        endpoint: sent.endpoint.id.into(),
        owner: sent.caller.owner.clone(),
        priority,
        keep_io: stored && !inline,
        input: sent.input.to_string(),
        task: serde_json::to_string(task).expect("a task is plain data"),
        concurrency_max: sent.caller.concurrency_max,
        retry: !yes("x-fal-no-retry"),
        start_within_ms,
        webhook: sent.webhook.clone(),
        base: sent.base.into(),
        unit_price,
        trace: zoetrope_trace::parent(&Span::current()),
    })
}

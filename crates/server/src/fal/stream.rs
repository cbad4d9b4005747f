//! `/stream`: an event with a small picture after each step, then the result.

use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use zoetrope_jobs::{End, Preview, State as Stand, Watcher};

use crate::answer::Failure;
use crate::fal::queue::with_id;
use crate::fal::run::CancelOnDrop;
use crate::fal::wait::{self, PATIENCE};
use crate::state::App;

type Told = Result<Event, std::convert::Infallible>;

/// What a stream holds between two events.
struct Watched {
    app: App,
    id: String,
    watcher: Watcher,
    /// The last step that was shown.
    step: i64,
    /// Previews that were read and not sent yet.
    pending: Vec<Preview>,
    guard: Option<CancelOnDrop>,
}

/// The events of the request `id`; it is cancelled when nobody listens any more.
///
/// No event has an `id`: the Python client's parser ends at one.
pub(crate) fn answer(app: App, id: String, guard: CancelOnDrop) -> Response {
    let watcher = app.settings.queue.watch(&id);
    let name = id.clone();
    let start =
        Some(Watched { app, id, watcher, step: 0, pending: Vec::new(), guard: Some(guard) });
    let events = stream::unfold(start, |watched| async move { next(watched?).await });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
    with_id(Sse::new(events).keep_alive(keep_alive).into_response(), &name)
}

async fn next(mut watched: Watched) -> Option<(Told, Option<Watched>)> {
    loop {
        if !watched.pending.is_empty() {
            let preview = watched.pending.remove(0);
            watched.step = preview.step;
            return Some((event(&shown(&preview)), Some(watched)));
        }
        let (app, id) = (&watched.app, &watched.id);
        let request = match wait::look(&app.settings.queue, id).await {
            Ok(request) => request,
            Err(failure) => return Some((failed(failure.body()), None)),
        };
        if request.state == Stand::Done {
            if let Some(guard) = watched.guard.take() {
                guard.disarm();
            }
            let told = match wait::ended(&app.settings.queue, id).await {
                Ok(request) => last(&request.end?),
                Err(failure) => failed(failure.body()),
            };
            return Some((told, None));
        }
        if request.state == Stand::Queued && app.is_stopping() {
            return Some((failed(Failure::from(zoetrope_jobs::Error::Closed).body()), None));
        }
        watched.pending = app.settings.queue.previews(id, watched.step).await.unwrap_or_default();
        if watched.pending.is_empty() {
            watched.watcher.changed(PATIENCE).await;
        }
    }
}

/// The result, or an event named `error`.
fn last(end: &End) -> Told {
    let body: Value = serde_json::from_str(&end.response).unwrap_or(Value::Null);
    match end.status_code {
        200 => event(&body),
        status => failed(&json!({"error": body, "status": status, "detail": body["detail"]})),
    }
}

fn shown(preview: &Preview) -> Value {
    let Preview { step, of, picture } = preview;
    json!({
        "images": [{"url": picture, "content_type": "image/jpeg"}],
        "step": step,
        "of": of,
        "progress": *step as f64 / *of as f64,
    })
}

fn event(body: &Value) -> Told {
    Ok(Event::default().data(body.to_string()))
}

fn failed(body: &Value) -> Told {
    Ok(Event::default().event("error").data(body.to_string()))
}

//! `/requests/{id}/events`: what changes about a request, as events, until its end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use zoetrope_jobs::{State as Stand, Watcher};
use zoetrope_server::App;

use super::request::{LOGS_MAX, said, standing};
use crate::fault::Fault;
use crate::text::Language;
use crate::visitor::Visitor;

/// How often is looked should no news come, as of the place in the queue.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a stream holds between two events.
struct Watched {
    app: App,
    language: Language,
    id: String,
    watcher: Watcher,
    pending: VecDeque<Event>,
    said: String,
    /// The number of the next line of the log.
    line: i64,
    /// The last step that was shown, and of how many.
    step: Option<(i64, i64)>,
    ended: bool,
}

pub(super) async fn events(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Fault> {
    let id = standing(&app, &visitor, &id).await?.id;
    let watched = Watched {
        watcher: app.queue().watch(&id),
        app,
        language: visitor.look.language,
        id,
        pending: VecDeque::new(),
        said: String::new(),
        line: 0,
        step: None,
        ended: false,
    };
    let events = stream::unfold(watched, |mut watched| async move {
        let event = watched.next().await?;
        Some((Ok(event), watched))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))))
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

impl Watched {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "a request cannot be watched now; trying again");
            }
            if self.pending.is_empty() && !self.ended {
                tokio::select! {
                    () = self.watcher.changed(PATIENCE) => {}
                    () = self.app.stopping() => return None,
                }
            }
        }
    }

    /// Makes events of what has changed.
    async fn look(&mut self) -> zoetrope_jobs::Result<()> {
        let queue = self.app.queue().clone();
        let standing = queue.standing(&self.id).await?;
        for line in queue.logs(&self.id, self.line, LOGS_MAX).await? {
            self.line = line.number + 1;
            let data = json!({"message": line.message, "level": line.level});
            self.pending.push_back(event("log", &data));
        }
        let Some(standing) = standing.filter(|standing| standing.state != Stand::Done) else {
            self.pending.push_back(event("end", &Value::Null));
            self.ended = true;
            return Ok(());
        };
        let after = self.step.map_or(0, |(step, _)| step);
        for preview in queue.previews(&self.id, after).await? {
            self.step = Some((preview.step, preview.of));
            let data = json!({"picture": preview.picture, "step": preview.step, "of": preview.of});
            self.pending.push_back(event("preview", &data));
        }
        let said = said(&self.app, self.language, &standing, self.step).await;
        if said != self.said {
            self.pending.push_back(event("state", &json!({"text": said})));
            self.said = said;
        }
        Ok(())
    }
}

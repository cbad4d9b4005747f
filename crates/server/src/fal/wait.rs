//! Waiting for the end of a request, through moments in which the database does not answer.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};
use zoetrope_jobs::{Queue, Request, State as Stand};

use crate::answer::Failure;
use crate::state::App;

/// How often who waits looks for themselves, should no news come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How long a database may be away: longer than a change of its leader takes.
const AWAY: Duration = Duration::from_secs(30);

/// The request `id` once it has ended. A server that stops does not wait for what has not begun.
pub(crate) async fn end(app: &App, id: &str) -> Result<Request, Failure> {
    let queue = &app.settings.queue;
    let mut watcher = queue.watch(id);
    loop {
        let request = look(queue, id).await?;
        if request.state == Stand::Done {
            return Ok(request);
        }
        if request.state == Stand::Queued && app.is_stopping() {
            return Err(zoetrope_jobs::Error::Closed.into());
        }
        tokio::select! {
            () = watcher.changed(PATIENCE) => {}
            () = app.stopping(), if !app.is_stopping() => {}
        }
    }
}

/// The request `id` as it stands.
pub(crate) async fn look(queue: &Queue, id: &str) -> Result<Request, Failure> {
    let begun = Instant::now();
    loop {
        match queue.request(id).await {
            Ok(Some(request)) => return Ok(request),
            Ok(None) => {
                let detail = format!("Request {id} was deleted");
                return Err(Failure::new(StatusCode::NOT_FOUND, detail));
            }
            Err(error) if begun.elapsed() < AWAY => {
                tracing::warn!(request = id, %error, "the database does not answer; trying again");
                sleep(PATIENCE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

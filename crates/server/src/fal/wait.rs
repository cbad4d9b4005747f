//! Waiting for the end of a request, through moments in which the database does not answer.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};
use zoetrope_jobs::{Queue, Request, Standing, State as Stand};

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
            return ended(queue, id).await;
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

/// Where the request `id` stands.
pub(crate) async fn look(queue: &Queue, id: &str) -> Result<Standing, Failure> {
    patiently(id, || queue.standing(id)).await
}

/// The request `id`, which has ended, with its answer.
pub(crate) async fn ended(queue: &Queue, id: &str) -> Result<Request, Failure> {
    patiently(id, || queue.request(id)).await
}

async fn patiently<T, F>(id: &str, look: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = zoetrope_jobs::Result<Option<T>>>,
{
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(Some(found)) => return Ok(found),
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

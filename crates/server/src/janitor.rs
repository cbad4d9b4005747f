//! Keeping house: lost workers' requests go back, late ones end, old ones and their files go.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use zoetrope_files::{Name, Store};
use zoetrope_jobs::{Queue, Request};

use crate::files::UPLOAD_MS;
use crate::state::App;

/// Between two rounds; a start deadline is missed by at most this.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks for unfinished uploads.
const ABANDON_PAUSE: Duration = Duration::from_secs(3600);
/// Between two looks at old calls, kept answers and parts of budgets.
const CALLS_PAUSE: Duration = Duration::from_secs(60);
/// Files deleted in one round.
const FILES_AT_ONCE: i64 = 100;

/// Forgets a request that has ended, and deletes the files that it made; their names, with what went wrong. A file that
/// cannot be deleted now is found again, as one whose request is gone.
pub async fn forget(
    queue: &Queue,
    store: &Store,
    request: &Request,
) -> zoetrope_jobs::Result<Vec<(String, Option<String>)>> {
    let mut files = Vec::new();
    for name in queue.files_of(&request.id).await? {
        let problem = match Name::parse(&name) {
            Some(parsed) => store.delete(&parsed).await.err().map(|error| error.to_string()),
            None => None,
        };
        if problem.is_none() {
            queue.forget_file(&name).await?;
        }
        files.push((name, problem));
    }
    queue.delete(&request.id).await?;
    Ok(files)
}

/// Sweeps until `stop` holds true. Several nodes may do it at once. Requests are forgotten `keep_ms` after their end.
pub async fn keep_house(app: App, keep_ms: i64, mut stop: watch::Receiver<bool>) {
    let (mut abandoned, mut calls): (Option<Instant>, Option<Instant>) = (None, None);
    while !*stop.borrow() {
        if let Err(error) = round(&app, keep_ms).await {
            tracing::warn!(%error, "keeping house failed; trying again");
        }
        if abandoned.is_none_or(|at| at.elapsed() > ABANDON_PAUSE) {
            abandon(&app).await;
            abandoned = Some(Instant::now());
        }
        if calls.is_none_or(|at| at.elapsed() > CALLS_PAUSE) {
            if let Err(error) = app.settings.queue.sweep_calls(keep_ms).await {
                tracing::warn!(%error, "old calls could not be forgotten; trying again");
            }
            if let Err(error) = app.settings.queue.sample_load().await {
                tracing::warn!(%error, "how busy it is could not be written down; trying again");
            }
            calls = Some(Instant::now());
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Deletes the parts of uploads that nobody can finish any more.
async fn abandon(app: &App) {
    let before = SystemTime::now() - 2 * Duration::from_millis(UPLOAD_MS as u64);
    match app.settings.store.abandon_before(before).await {
        Ok(0) => {}
        Ok(parts) => tracing::info!(parts, "parts of unfinished uploads were deleted"),
        Err(error) => tracing::warn!(%error, "unfinished uploads could not be looked for"),
    }
}

async fn round(app: &App, keep_ms: i64) -> zoetrope_jobs::Result<()> {
    let queue = &app.settings.queue;
    let swept = queue.sweep(keep_ms).await?;
    if swept.lost > 0 {
        tracing::warn!(requests = swept.lost, "their worker has gone; they are tried again");
        metrics::counter!("zoetrope_lost_total").increment(swept.lost as u64);
    }
    for name in queue.files_to_delete(FILES_AT_ONCE).await? {
        let deleted = match Name::parse(&name) {
            Some(parsed) => app.settings.store.delete(&parsed).await,
            None => Ok(()),
        };
        match deleted {
            Ok(()) => queue.forget_file(&name).await?,
            Err(error) => {
                tracing::warn!(file = name.get(..8), %error, "an old file could not be deleted")
            }
        }
    }
    metrics::gauge!("zoetrope_queue_depth").set(queue.queued().await? as f64);
    metrics::gauge!("zoetrope_running").set(queue.running("").await? as f64);
    Ok(())
}

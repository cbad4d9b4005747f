//! How long the parts of a request's work take.

use std::time::{Duration, Instant};

/// What `work` comes to; how long it took is counted.
pub(crate) async fn timed<T>(stage: &'static str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let out = work.await;
    record(stage, begun.elapsed());
    out
}

/// Counts that `stage` took so long.
pub(crate) fn record(stage: &'static str, took: Duration) {
    metrics::histogram!("zoetrope_stage_seconds", "stage" => stage).record(took.as_secs_f64());
}

//! Health of deployments, told to and heard from the other servers of the database: what one has found to be down is left alone by all.

use std::time::Duration;

use tokio::time::Instant;
use zoetrope_jobs::{Health, Queue, Result};

use super::breaker::Shared;
use super::registry::Registry;

/// How far back what was told is looked at again: longer than a transaction takes, and than clocks differ.
const OVERLAP_MS: i64 = 10_000;

/// Tells what is new here, and hears what was told since `seen_ms`; until when it has heard everything.
pub(crate) async fn share(
    registry: &Registry,
    queue: &Queue,
    now_ms: i64,
    seen_ms: i64,
) -> Result<i64> {
    let now = Instant::now();
    for (deployment, state) in registry.deployments() {
        if let Some(shared) = state.news() {
            queue.tell_health(&row(deployment, shared, (now, now_ms))).await?;
            state.told(shared, now_ms);
        }
    }
    for health in queue.health(seen_ms - OVERLAP_MS).await? {
        let state = registry.deployment(&health.deployment);
        state.hear(shared(&health, (now, now_ms)), health.changed_ms);
    }
    Ok(now_ms)
}

fn row(deployment: String, shared: Shared, (now, now_ms): (Instant, i64)) -> Health {
    let ms = |at: Instant| now_ms + at.saturating_duration_since(now).as_millis() as i64;
    Health {
        deployment,
        open_until_ms: shared.open.map(|(until, _)| ms(until)),
        pause_ms: shared.open.map_or(0, |(_, pause)| pause.as_millis() as i64),
        cool_until_ms: shared.cool_until.map(ms),
        changed_ms: now_ms,
    }
}

fn shared(health: &Health, (now, now_ms): (Instant, i64)) -> Shared {
    let duration = |ms: i64| Duration::from_millis(ms.max(0) as u64);
    let at = |ms: i64| now + duration(ms - now_ms);
    Shared {
        open: health.open_until_ms.map(|until| (at(until), duration(health.pause_ms))),
        cool_until: health.cool_until_ms.map(at),
    }
}

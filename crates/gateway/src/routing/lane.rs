//! How much a provider is asked at once and in a minute: what is more would be answered with 429. The minutes are counted by all
//! servers of a database together, what is under way by each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use zoetrope_jobs::{Pace, Queue};

use crate::catalogue::ProviderEntry;

/// What a minute allows may come in bursts of this part of it.
const BURST_SHARE: u32 = 10;
/// Longer waits are for another provider.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A provider's limits, and how much of them is used.
pub(crate) struct Lane {
    at_once: Option<Arc<Semaphore>>,
    turns: Option<Turns>,
}

/// So many calls a minute.
struct Turns {
    queue: Queue,
    name: String,
    pace: Pace,
    /// There were none left, and there will be none before.
    none_before: Mutex<Option<Instant>>,
}

impl Turns {
    /// Takes one where one is free now; else how long it takes to be. A database that does not answer holds nobody up.
    async fn take(&self) -> Result<(), Duration> {
        let taken = self.queue.take_turn(&self.name, self.pace).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "calls could not be counted together with other servers'");
            None
        });
        let mut none_before = self.none_before.lock().unwrap_or_else(PoisonError::into_inner);
        *none_before = taken.map(|wait| Instant::now() + wait);
        taken.map_or(Ok(()), Err)
    }

    /// As far as is known without asking.
    fn is_free(&self, now: Instant) -> bool {
        let none_before = self.none_before.lock().unwrap_or_else(PoisonError::into_inner);
        none_before.is_none_or(|until| now >= until)
    }
}

impl Lane {
    pub(crate) fn of(entry: &ProviderEntry, queue: &Queue) -> Self {
        let count = |most: u32| Arc::new(Semaphore::new(most as usize));
        let turns = |most: u32| Turns {
            queue: queue.clone(),
            name: format!("provider:{}", entry.name),
            pace: Pace { per_minute: most, burst: most.div_ceil(BURST_SHARE) },
            none_before: Mutex::default(),
        };
        Self { at_once: entry.concurrency_max.map(count), turns: entry.calls_per_minute.map(turns) }
    }

    /// Whether a call would begin at once.
    pub(crate) fn is_free(&self, now: Instant) -> bool {
        self.at_once.as_ref().is_none_or(|gate| gate.available_permits() > 0)
            && self.turns.as_ref().is_none_or(|turns| turns.is_free(now))
    }

    /// Waits for room until `deadline` at most, and not for long; what the room takes is free again when the result is dropped.
    /// Else how long it would have taken, where that is known.
    pub(crate) async fn enter(
        &self,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, Option<Duration>> {
        let patience = deadline.min(Instant::now() + WAIT_MAX);
        let permit = match &self.at_once {
            None => None,
            Some(gate) => match timeout_at(patience, gate.clone().acquire_owned()).await {
                Ok(Ok(permit)) => Some(permit),
                Ok(Err(_)) | Err(_) => return Err(None),
            },
        };
        if let Some(turns) = &self.turns {
            while let Err(wait) = turns.take().await {
                if Instant::now() + wait > patience {
                    return Err(Some(wait));
                }
                sleep(wait).await;
            }
        }
        Ok(permit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::catalogue::Catalogue;

    fn entry() -> ProviderEntry {
        ProviderEntry::clone(&Catalogue::standard().providers["local"])
    }

    async fn queue(folder: &tempfile::TempDir, now: &Arc<AtomicI64>) -> Queue {
        let now = now.clone();
        let settings = zoetrope_jobs::Settings {
            url: format!("sqlite://{}/queue.db?mode=rwc", folder.path().display()),
            limits: zoetrope_jobs::Limits::default(),
            now_ms: Arc::new(move || now.load(Ordering::Relaxed)),
        };
        Queue::open(settings).await.unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    #[tokio::test]
    async fn whoever_does_not_get_in_soon_is_told() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Arc::default());
        let entry = ProviderEntry { concurrency_max: Some(1), ..entry() };
        let lane = Lane::of(&entry, &queue(&folder, &now).await);
        let first = lane.enter(soon()).await.unwrap();
        assert!(!lane.is_free(Instant::now()));
        assert!(lane.enter(soon()).await.is_err());
        drop(first);
        assert!(lane.enter(soon()).await.is_ok());
    }

    #[tokio::test]
    async fn two_servers_share_a_minute() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(1 << 40)));
        let entry = ProviderEntry { calls_per_minute: Some(20), ..entry() };
        let queue = queue(&folder, &now).await;
        let lanes = [Lane::of(&entry, &queue), Lane::of(&entry, &queue)];
        assert!(lanes[0].enter(soon()).await.is_ok() && lanes[1].enter(soon()).await.is_ok());
        let wait = lanes[0].enter(soon()).await.unwrap_err().unwrap();
        assert_eq!(wait, Duration::from_secs(3), "a burst of two was there");
        assert!(!lanes[0].is_free(Instant::now()) && lanes[1].is_free(Instant::now()));
        now.fetch_add(3000, Ordering::Relaxed);
        assert!(lanes[1].enter(soon()).await.is_ok());
        assert!(lanes[0].enter(soon()).await.is_err(), "the other server has taken it");
    }
}

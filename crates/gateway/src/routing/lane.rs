//! How much a provider is asked at once and in a minute: what is more would be answered with 429.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::catalogue::ProviderEntry;

/// What a minute allows may come in bursts of this part of it.
const BURST_SHARE: u32 = 10;
/// Longer waits are for another provider.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A provider's limits, and how much of them is used.
#[derive(Debug)]
pub(crate) struct Lane {
    at_once: Option<Arc<Semaphore>>,
    pace: Option<Pace>,
}

/// So many a minute, evenly but for bursts: each takes its part of the time to come.
#[derive(Debug)]
pub(crate) struct Pace {
    part: Duration,
    ahead_max: Duration,
    /// Until then all time is taken.
    taken: Mutex<Option<Instant>>,
}

impl Pace {
    /// `count` a minute (at least one), `burst` of them at once.
    pub(crate) fn new(count: u32, burst: u32) -> Self {
        let part = Duration::from_secs(60) / count.max(1);
        Self { part, ahead_max: part * burst.max(1), taken: Mutex::default() }
    }

    /// Takes a part where it is free now; else how long it takes to be.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let next = taken.map_or(now, |until| until.max(now)) + self.part;
        let ahead = next - now;
        if ahead > self.ahead_max {
            return Err(ahead - self.ahead_max);
        }
        *taken = Some(next);
        Ok(())
    }

    fn is_free(&self, now: Instant) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.map_or(now, |until| until.max(now)) + self.part - now <= self.ahead_max
    }
}

impl Lane {
    pub(crate) fn of(entry: &ProviderEntry) -> Self {
        let count = |most: u32| Arc::new(Semaphore::new(most as usize));
        Self {
            at_once: entry.concurrency_max.map(count),
            pace: entry.calls_per_minute.map(|most| Pace::new(most, most.div_ceil(BURST_SHARE))),
        }
    }

    /// Whether a call would begin at once.
    pub(crate) fn is_free(&self, now: Instant) -> bool {
        self.at_once.as_ref().is_none_or(|gate| gate.available_permits() > 0)
            && self.pace.as_ref().is_none_or(|pace| pace.is_free(now))
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
        if let Some(pace) = &self.pace {
            while let Err(wait) = pace.take(Instant::now()) {
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
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn a_burst_is_let_through_and_then_one_by_one() {
        let (pace, now) = (Pace::new(60, 3), Instant::now());
        for _ in 0..3 {
            assert_eq!(pace.take(now), Ok(()));
        }
        assert_eq!(pace.take(now), Err(Duration::from_secs(1)));
        assert!(!pace.is_free(now));
        let later = now + Duration::from_secs(1);
        assert_eq!(pace.take(later), Ok(()));
        assert_eq!(pace.take(later), Err(Duration::from_secs(1)));
    }

    fn entry(catalogue: &Catalogue) -> ProviderEntry {
        ProviderEntry::clone(&catalogue.providers["local"])
    }

    #[tokio::test]
    async fn whoever_does_not_get_in_soon_is_told() {
        let entry = ProviderEntry { concurrency_max: Some(1), ..entry(&Catalogue::standard()) };
        let lane = Lane::of(&entry);
        let soon = || Instant::now() + Duration::from_millis(10);
        let first = lane.enter(soon()).await.unwrap();
        assert!(!lane.is_free(Instant::now()));
        assert!(lane.enter(soon()).await.is_err());
        drop(first);
        assert!(lane.enter(soon()).await.is_ok());
    }
}

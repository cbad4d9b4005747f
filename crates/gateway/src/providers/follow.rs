//! Work that was submitted and takes a while: asked about again and again until it is done or nobody waits any more.

use std::time::{Duration, Instant};

use super::http::Http;
use crate::failure::{Billed, Failure, FailureKind};
use crate::provider::Call;

/// Looks that may fail in a row: what was submitted goes on meanwhile.
const LOST_MAX: u32 = 5;

impl Http {
    /// Looks by `look` at what was submitted at `begun` until there is something to see. A look that fails in passing is made
    /// again; what is given up may be paid for all the same.
    pub(super) async fn follow<T, F>(
        &self,
        call: &Call,
        begun: Instant,
        look: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let mut lost = 0;
        loop {
            let pause = pause(begun.elapsed());
            if Instant::now() + pause >= call.deadline {
                tokio::time::sleep_until(call.deadline.into()).await;
                let text = format!("{} did not end in time", self.name());
                let failure = Failure::new(FailureKind::TimedOut, text);
                return Err(Failure { billed: Billed::Maybe, ..failure });
            }
            tokio::time::sleep(pause).await;
            match look().await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => lost = 0,
                Err(failure) => {
                    lost += 1;
                    let passing = matches!(
                        failure.kind,
                        FailureKind::Unreachable | FailureKind::Broken | FailureKind::Throttled
                    );
                    if !passing || lost >= LOST_MAX {
                        return Err(Failure { billed: Billed::Maybe, ..failure });
                    }
                }
            }
        }
    }
}

/// How long to wait before asking again how far something is that was submitted `elapsed` ago: a tenth more than it takes.
fn pause(elapsed: Duration) -> Duration {
    (elapsed / 10).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

//! How many wait before a request. In a long line that is a hint, which this node looks up about once a second for all who ask.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Row;
use tokio::sync::Mutex;

use crate::queue::Queue;
use crate::request::Standing;
use crate::{Result, sql};

/// What this node knows of a long line.
#[derive(Default)]
pub(crate) struct Line {
    seen: Mutex<Option<Seen>>,
    /// Somebody looks; the others take what was seen before.
    looking: AtomicBool,
}

/// All that wait, as they stood a moment ago, in the order in which they are taken.
struct Seen {
    /// Priority and id.
    waiting: Vec<(i64, String)>,
    stale_ms: i64,
}

/// A shorter line is counted anew for everybody: that takes less than a tenth of a millisecond.
const LONG: usize = 1000;
/// How old what is said about a long line may be.
const FRESH_MS: i64 = 1000;
/// Where looking takes longer than expected, it still takes no more than this part of the time.
const SHARE: i64 = 20;
/// So long after its time an answer is still given while another is looked for; nobody waits for that.
const GRACE_MS: i64 = 2000;

impl Seen {
    fn position(&self, request: &Standing) -> i64 {
        let place = (request.priority.number(), request.id.as_str());
        self.waiting.partition_point(|(priority, id)| (*priority, id.as_str()) < place) as i64
    }
}

impl Queue {
    /// Requests that will be taken before `request`; 0 is next.
    pub async fn position(&self, request: &Standing) -> Result<i64> {
        let now = self.now_ms();
        let mut seen = self.line.seen.lock().await;
        match &*seen {
            Some(line) if now < line.stale_ms => return Ok(line.position(request)),
            Some(line) if now < line.stale_ms + GRACE_MS => {
                let position = line.position(request);
                drop(seen);
                self.look_beside();
                return Ok(position);
            }
            Some(_) => {}
            None => {
                drop(seen);
                let count =
                    sqlx::query(sql::POSITION).bind(request.priority.number()).bind(&request.id);
                let count: i64 = count.fetch_one(&self.pool).await?.try_get(0)?;
                if count < LONG as i64 {
                    return Ok(count);
                }
                seen = self.line.seen.lock().await;
            }
        }
        // Others may have looked while this one waited.
        if seen.as_ref().is_none_or(|line| now >= line.stale_ms) {
            *seen = Some(self.look_along().await?);
        }
        let position = seen.as_ref().map_or(0, |line| line.position(request));
        if seen.as_ref().is_some_and(|line| line.waiting.len() < LONG) {
            *seen = None;
        }
        Ok(position)
    }

    /// Looks along the line once, while others are answered.
    fn look_beside(&self) {
        if self.line.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let queue = self.clone();
        tokio::spawn(async move {
            match queue.look_along().await {
                Ok(found) => {
                    let found = Some(found).filter(|line| line.waiting.len() >= LONG);
                    *queue.line.seen.lock().await = found;
                }
                Err(error) => tracing::warn!(%error, "the waiting requests could not be counted"),
            }
            queue.line.looking.store(false, Ordering::Release);
        });
    }

    async fn look_along(&self) -> Result<Seen> {
        let begun = self.now_ms();
        let rows = sqlx::query(sql::LINE).fetch_all(&self.pool).await?;
        let place = |row: &sqlx::any::AnyRow| Ok((row.try_get(0)?, row.try_get(1)?));
        let waiting = rows.iter().map(place).collect::<Result<_>>()?;
        let now = self.now_ms();
        Ok(Seen { waiting, stale_ms: now + FRESH_MS.max(SHARE * (now - begun)) })
    }
}

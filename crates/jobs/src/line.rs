//! How many wait before a request. In a long line that is a hint, which this node looks up about once a second for all who ask.

use sqlx::Row;

use crate::queue::Queue;
use crate::request::Standing;
use crate::{Result, sql};

/// All that wait, as they stood a moment ago, in the order in which they are taken.
pub(crate) struct Line {
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

impl Line {
    fn position(&self, request: &Standing) -> i64 {
        let place = (request.priority.number(), request.id.as_str());
        self.waiting.partition_point(|(priority, id)| (*priority, id.as_str()) < place) as i64
    }
}

impl Queue {
    /// Requests that will be taken before `request`; 0 is next.
    pub async fn position(&self, request: &Standing) -> Result<i64> {
        let mut line = self.line.lock().await;
        if line.is_none() {
            drop(line);
            let count =
                sqlx::query(sql::POSITION).bind(request.priority.number()).bind(&request.id);
            let count: i64 = count.fetch_one(&self.pool).await?.try_get(0)?;
            if count < LONG as i64 {
                return Ok(count);
            }
            line = self.line.lock().await;
        }
        let fresh = line.as_ref().is_some_and(|line| self.now_ms() < line.stale_ms);
        if !fresh {
            *line = Some(self.look_along().await?);
        }
        let position = line.as_ref().map_or(0, |line| line.position(request));
        if line.as_ref().is_some_and(|line| line.waiting.len() < LONG) {
            *line = None;
        }
        Ok(position)
    }

    async fn look_along(&self) -> Result<Line> {
        let begun = self.now_ms();
        let rows = sqlx::query(sql::LINE).fetch_all(&self.pool).await?;
        let place = |row: &sqlx::any::AnyRow| Ok((row.try_get(0)?, row.try_get(1)?));
        let waiting = rows.iter().map(place).collect::<Result<_>>()?;
        let now = self.now_ms();
        Ok(Line { waiting, stale_ms: now + FRESH_MS.max(SHARE * (now - begun)) })
    }
}

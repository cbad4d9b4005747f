//! So many a minute, on all servers of a database together.

use std::time::Duration;

use sqlx::Row;

use crate::Result;
use crate::queue::Queue;
use crate::sql::shared as sql;

/// How often something may be done, evenly but for bursts: each time takes its part of the time to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Times in a minute, 1 or more.
    pub per_minute: u32,
    /// Times at once, 1 or more.
    pub burst: u32,
}

/// What nobody has used for so long is forgotten: it would be free anyway.
const KEEP_US: i64 = 3_600_000_000;

impl Queue {
    /// Takes a turn of what is called `name`; else how long until there is one.
    pub async fn take_turn(&self, name: &str, pace: Pace) -> Result<Option<Duration>> {
        let now_us = self.now_ms() * 1000;
        let part_us = 60_000_000 / i64::from(pace.per_minute.max(1));
        let ahead_us = part_us * i64::from(pace.burst.max(1));
        let query = sqlx::query(sql::TAKE_TURN).bind(name).bind(now_us).bind(part_us);
        if query.bind(ahead_us).execute(&self.hasty).await?.rows_affected() > 0 {
            return Ok(None);
        }
        let row = sqlx::query(sql::TAKEN).bind(name).fetch_optional(&self.pool).await?;
        let taken_us: i64 = row.map_or(Ok(now_us), |row| row.try_get(0))?;
        let wait_us = taken_us.max(now_us) + part_us - ahead_us - now_us;
        Ok(Some(Duration::from_micros(wait_us.max(1) as u64)))
    }

    pub(crate) async fn sweep_paces(&self) -> Result<()> {
        let old_us = self.now_ms() * 1000 - KEEP_US;
        sqlx::query(sql::SWEEP_PACES).bind(old_us).execute(&self.pool).await?;
        Ok(())
    }
}

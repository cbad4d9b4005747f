//! Which workers there are, and how busy they and the queue were minute by minute.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::Result;
use crate::queue::Queue;
use crate::sql::load as sql;

/// A process that takes requests, as it last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRow {
    /// New with each start.
    pub id: String,
    /// Its machine's name.
    pub host: String,
    /// When it began, milliseconds since 1970.
    pub since_ms: i64,
    /// When it last said something; set by the queue.
    pub seen_ms: i64,
    /// The request that it works on.
    pub request: Option<String>,
    /// Bytes of memory that its process has.
    pub memory_bytes: i64,
    /// Bytes of its machine's memory.
    pub memory_bytes_all: i64,
}

/// How busy it was in a step of time: the most of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// When the step begins, milliseconds since 1970.
    pub at_ms: i64,
    /// Requests that waited.
    pub queued: i64,
    /// Requests that ran.
    pub running: i64,
    /// Workers.
    pub workers: i64,
    /// Bytes of memory that they had together.
    pub memory_bytes: i64,
}

/// Who has said nothing for so long is gone: workers speak every ten seconds.
const SILENT_MS: i64 = 40_000;
/// How long what was said is kept.
const KEEP_MS: i64 = 31 * 86_400_000;
const MINUTE_MS: i64 = 60_000;

impl Queue {
    /// `worker` is there.
    pub async fn worker_seen(&self, worker: &WorkerRow) -> Result<()> {
        let query = sqlx::query(sql::WORKER_SEEN)
            .bind(&worker.id)
            .bind(&worker.host)
            .bind(worker.since_ms)
            .bind(self.now_ms())
            .bind(worker.request.clone())
            .bind(worker.memory_bytes)
            .bind(worker.memory_bytes_all);
        query.execute(&self.hasty).await?;
        Ok(())
    }

    /// The worker called `id` goes.
    pub async fn worker_gone(&self, id: &str) -> Result<()> {
        sqlx::query(sql::WORKER_GONE).bind(id).execute(&self.hasty).await?;
        Ok(())
    }

    /// The workers that are there now.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>> {
        let query = sqlx::query(sql::WORKERS).bind(self.now_ms() - SILENT_MS);
        let worker = |row: &AnyRow| {
            Ok(WorkerRow {
                id: row.try_get("id")?,
                host: row.try_get("host")?,
                since_ms: row.try_get("since_ms")?,
                seen_ms: row.try_get("seen_ms")?,
                request: row.try_get("request")?,
                memory_bytes: row.try_get("memory_bytes")?,
                memory_bytes_all: row.try_get("memory_bytes_all")?,
            })
        };
        query.fetch_all(&self.pool).await?.iter().map(worker).collect()
    }

    /// Writes down how busy it is now, once a minute, however many nodes say so, and forgets what is old.
    pub async fn sample_load(&self) -> Result<()> {
        let now = self.now_ms();
        let minute = now.div_euclid(MINUTE_MS) * MINUTE_MS;
        let query = sqlx::query(sql::SAMPLE_LOAD).bind(minute).bind(now - SILENT_MS);
        query.execute(&self.hasty).await?;
        for statement in [sql::SWEEP_LOADS, sql::SWEEP_WORKERS] {
            sqlx::query(statement).bind(now - KEEP_MS).execute(&self.hasty).await?;
        }
        Ok(())
    }

    /// How busy it was from `from_ms` to `until_ms`, in steps of `step_ms`, whole minutes.
    pub async fn loads(&self, from_ms: i64, until_ms: i64, step_ms: i64) -> Result<Vec<Load>> {
        let step = step_ms.max(MINUTE_MS) / MINUTE_MS * MINUTE_MS;
        let from = from_ms.div_euclid(step) * step;
        let query = sqlx::query(sql::LOADS).bind(from).bind(until_ms).bind(step);
        let load = |row: &AnyRow| {
            Ok(Load {
                at_ms: row.try_get("at_ms")?,
                queued: row.try_get("queued")?,
                running: row.try_get("running")?,
                workers: row.try_get("workers")?,
                memory_bytes: row.try_get("memory_bytes")?,
            })
        };
        query.fetch_all(&self.pool).await?.iter().map(load).collect()
    }
}

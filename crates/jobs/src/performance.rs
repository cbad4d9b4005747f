//! How quick and how busy everything was over time: calls to providers from their hourly sums, and the queue's own requests.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::calls::{Calls, TOTAL, sum};
use crate::history::Status;
use crate::queue::Queue;
use crate::sql::performance as sql;
use crate::{Error, Result};

/// What a deployment did in one step of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallsAt {
    /// When the step begins, milliseconds since 1970.
    pub at_ms: i64,
    /// What it did.
    pub calls: Calls,
}

/// A request of the queue that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Its id.
    pub id: String,
    /// Where it was submitted.
    pub endpoint: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// How it ended.
    pub status: Status,
    /// How long it waited for a worker, where one took it.
    pub waited_ms: Option<i64>,
    /// How long the work took.
    pub inference_ms: Option<i64>,
    /// When it ended, milliseconds since 1970.
    pub finished_ms: i64,
    /// What it cost, in millionths of a dollar, by the price of the day.
    pub cost_micros: i64,
}

/// An hour, the shortest step of sums.
const HOUR_MS: i64 = 3_600_000;
/// Requests of the queue that are looked at: the last ones.
const FINISHED_MAX: i64 = 10_000;

impl Queue {
    /// Sums of the calls from `from_ms` to `until_ms` in steps of `step_ms`, by deployment, with their times. A step is a number
    /// of whole hours and begins where that divides the time since 1970.
    pub async fn calls_over_time(
        &self,
        from_ms: i64,
        until_ms: i64,
        step_ms: i64,
    ) -> Result<Vec<CallsAt>> {
        let step = step_ms.max(HOUR_MS) / HOUR_MS * HOUR_MS;
        let from = from_ms.div_euclid(step) * step;
        let query = sqlx::query(sql::CALLS_OVER_TIME).bind(from).bind(until_ms).bind(step);
        let at = |row: &AnyRow| Ok(CallsAt { at_ms: row.try_get("at_ms")?, calls: sum(row)? });
        let mut sums =
            query.fetch_all(&self.pool).await?.iter().map(at).collect::<Result<Vec<_>>>()?;
        let query = sqlx::query(sql::TIMES_OVER_TIME).bind(from).bind(until_ms).bind(step);
        for row in query.fetch_all(&self.pool).await? {
            let (at_ms, deployment): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            let same =
                |sum: &&mut CallsAt| sum.at_ms == at_ms && sum.calls.deployment == deployment;
            let Some(sum) = sums.iter_mut().find(same) else { continue };
            let histogram = match row.try_get::<String, _>(2)?.as_str() {
                TOTAL => &mut sum.calls.total,
                _ => &mut sum.calls.first_byte,
            };
            histogram.add(row.try_get(3)?, row.try_get(4)?);
        }
        Ok(sums)
    }

    /// The queue's requests that ended from `from_ms` to `until_ms`, the last ones first, some ten thousand at most.
    pub async fn finished(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Finished>> {
        let mut all = Vec::new();
        for keep_io in [1_i64, 0] {
            let query = sqlx::query(sql::FINISHED).bind(keep_io).bind(from_ms).bind(until_ms);
            let rows = query.bind(FINISHED_MAX).fetch_all(&self.pool).await?;
            all.extend(rows.iter().map(finished).collect::<Result<Vec<_>>>()?);
        }
        all.sort_by_key(|request| std::cmp::Reverse(request.finished_ms));
        all.truncate(FINISHED_MAX as usize);
        Ok(all)
    }
}

fn finished(row: &AnyRow) -> Result<Finished> {
    let id: String = row.try_get("id")?;
    let outcome: Option<String> = row.try_get("outcome")?;
    let status_code: Option<i64> = row.try_get("status_code")?;
    let status = match (outcome.as_deref(), status_code) {
        (Some("completed"), _) => Status::Success,
        (Some("failed" | "cancelled"), Some(400..=499)) => Status::UserError,
        (Some("failed" | "cancelled"), _) => Status::Error,
        (other, _) => {
            let value = other.unwrap_or_default().into();
            return Err(Error::Unknown { id, column: "outcome", value });
        }
    };
    let started_ms: Option<i64> = row.try_get("started_ms")?;
    let created_ms: i64 = row.try_get("created_ms")?;
    let (units, price): (Option<f64>, Option<f64>) =
        (row.try_get("billable_units")?, row.try_get("unit_price")?);
    Ok(Finished {
        status,
        endpoint: row.try_get("endpoint")?,
        owner: row.try_get("owner")?,
        waited_ms: started_ms.map(|at| (at - created_ms).max(0)),
        inference_ms: row.try_get("inference_ms")?,
        finished_ms: row.try_get("finished_ms")?,
        cost_micros: (1e6 * units.unwrap_or(0.0) * price.unwrap_or(0.0)).round() as i64,
        id,
    })
}

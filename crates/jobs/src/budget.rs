//! What keys may spend: kept for a request while it runs, spent once it has ended.

use sqlx::Row;

use crate::Result;
use crate::keys::{KeyLimits, Period};
use crate::queue::Queue;
use crate::sql::calls as sql;

/// Whether a key's budget covers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It does, and the amount is kept.
    Yes,
    /// The key has no budget, or there is no such key.
    Unlimited,
    /// It does not; so much is left, in millionths of a dollar.
    Short(i64),
}

/// Where a key's budget stands, in millionths of a dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// What it may spend; `None` without a limit.
    pub budget: Option<i64>,
    /// What it has spent of it.
    pub spent: i64,
    /// What is kept for requests under way.
    pub held: i64,
    /// When all of the budget is there again, in milliseconds since 1970; `None` where it never is.
    pub renewed_ms: Option<i64>,
}

impl Balance {
    /// What is left; `None` without a limit.
    pub fn available(&self) -> Option<i64> {
        Some(self.budget?.saturating_sub(self.spent).saturating_sub(self.held).max(0))
    }
}

impl Queue {
    /// Keeps `micros` of the budget of `key` for the request `id` until `until_ms`, in place of what was kept for it before. Of many
    /// at once, on any node, no more are let through than the budget covers.
    pub async fn hold(&self, key: &str, id: &str, micros: i64, until_ms: i64) -> Result<Held> {
        let mut transaction = self.hasty.begin().await?;
        let row = sqlx::query(sql::LOCK_KEY).bind(key).fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(Held::Unlimited) };
        let Some(budget) = row.try_get::<Option<i64>, _>(0)? else { return Ok(Held::Unlimited) };
        let period = Period::of(row.try_get(2)?);
        let spent = match period.around(self.now_ms()) {
            None => row.try_get(1)?,
            Some((from_ms, _)) => {
                let query = sqlx::query(sql::SPENT_SINCE).bind(key).bind(from_ms);
                query.fetch_one(&mut *transaction).await?.try_get::<i64, _>(0)?
            }
        };
        let query = sqlx::query(sql::HELD).bind(key).bind(self.now_ms()).bind(id);
        let others: i64 = query.fetch_one(&mut *transaction).await?.try_get(0)?;
        let left = budget.saturating_sub(spent).saturating_sub(others);
        if micros > 0 && left < micros {
            return Ok(Held::Short(left.max(0)));
        }
        let query = sqlx::query(sql::HOLD).bind(id).bind(key).bind(micros).bind(until_ms);
        query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Held::Yes)
    }

    /// Where the budget of `key` stands.
    pub async fn balance(&self, key: &str) -> Result<Balance> {
        let Some(row) = self.key(key).await? else { return Ok(Balance::default()) };
        let query = sqlx::query(sql::HELD).bind(key).bind(self.now_ms()).bind("");
        let held = query.fetch_one(&self.pool).await?.try_get(0)?;
        let (spent, renewed_ms) = match row.limits.budget_period.around(self.now_ms()) {
            None => (row.spent_micros, None),
            Some((from_ms, next_ms)) => {
                let query = sqlx::query(sql::SPENT_SINCE).bind(key).bind(from_ms);
                (query.fetch_one(&self.pool).await?.try_get(0)?, Some(next_ms))
            }
        };
        Ok(Balance { budget: row.limits.budget_micros, spent, held, renewed_ms })
    }

    /// From now on these are the limits of a key in use; whether there is one.
    pub async fn limit_key(&self, id: &str, limits: &KeyLimits) -> Result<bool> {
        let query = sqlx::query(sql::LIMIT_KEY)
            .bind(limits.budget_micros)
            .bind(limits.requests_per_minute.map(i64::from))
            .bind(limits.models.join("\n"))
            .bind(limits.budget_period.monthly())
            .bind(&limits.on_flagged)
            .bind(id);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }
}

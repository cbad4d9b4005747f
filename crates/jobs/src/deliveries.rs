//! Webhooks that are due: made due in the transaction that ends a request, taken by one sender at a time.

use sqlx::{Any, Row, Transaction};

use crate::database::Dialect;
use crate::queue::Queue;
use crate::{Result, sql};

/// A webhook to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The request that has ended.
    pub request: String,
    /// Where to.
    pub url: String,
    /// Scheme, host and port of that.
    pub receiver: String,
    /// Which attempt this is, from 1.
    pub attempt: i64,
}

/// Receivers that [`Queue::take_due`] can pass over.
pub const RECEIVERS_BUSY_MAX: usize = 4;

/// How a webhook stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where to.
    pub url: String,
    /// Attempts begun.
    pub attempts: i64,
    /// When the next begins; none once it is delivered or given up.
    pub due_ms: Option<i64>,
    /// When it was taken.
    pub delivered_ms: Option<i64>,
    /// What the last attempt met.
    pub error: Option<String>,
}

impl Queue {
    /// Makes the webhook of `request` due, if it has one.
    pub(crate) async fn make_due(
        &self,
        transaction: &mut Transaction<'static, Any>,
        request: &str,
        now: i64,
    ) -> Result<()> {
        let query = sqlx::query(sql::INSERT_DELIVERY).bind(request).bind(now);
        query.execute(&mut **transaction).await?;
        Ok(())
    }

    /// A webhook that is due, if any, and goes to none of the receivers `busy` (of which the first few count); should its sender die, it is due again after `again_ms`.
    pub async fn take_due(&self, again_ms: i64, busy: &[String]) -> Result<Option<Due>> {
        let text = match self.dialect {
            Dialect::Sqlite => sql::DUE_SQLITE,
            Dialect::Postgres => sql::DUE_POSTGRES,
        };
        let now = self.now_ms();
        if sqlx::query(sql::ANY_DUE).bind(now).fetch_optional(&self.pool).await?.is_none() {
            return Ok(None);
        }
        let mut query = sqlx::query(text).bind(now + again_ms).bind(now);
        for place in 0..RECEIVERS_BUSY_MAX {
            query = query.bind(busy.get(place).map_or("-", String::as_str)); // no receiver has such a name
        }
        let Some(row) = query.fetch_optional(&self.pool).await? else { return Ok(None) };
        Ok(Some(Due {
            request: row.try_get(0)?,
            url: row.try_get(1)?,
            receiver: row.try_get(2)?,
            attempt: row.try_get(3)?,
        }))
    }

    /// The receiver took it.
    pub async fn delivered(&self, request: &str) -> Result<()> {
        let query = sqlx::query(sql::DELIVERED).bind(self.now_ms()).bind(request);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The receiver did not: due again after `again_ms`, or given up.
    pub async fn undelivered(
        &self,
        request: &str,
        error: &str,
        again_ms: Option<i64>,
    ) -> Result<()> {
        let due = again_ms.map(|pause| self.now_ms() + pause);
        let query = sqlx::query(sql::UNDELIVERED).bind(due).bind(error).bind(request);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// How the webhook of `request` stands.
    pub async fn delivery(&self, request: &str) -> Result<Option<Delivery>> {
        let query = sqlx::query(sql::DELIVERY).bind(request);
        let Some(row) = query.fetch_optional(&self.pool).await? else { return Ok(None) };
        Ok(Some(Delivery {
            url: row.try_get(0)?,
            attempts: row.try_get(1)?,
            due_ms: row.try_get(2)?,
            delivered_ms: row.try_get(3)?,
            error: row.try_get(4)?,
        }))
    }
}

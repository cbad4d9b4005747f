//! A worker's hold on a request: claimed, prolonged, and given up in exactly one way.

use sqlx::Row;
use uuid::Uuid;

use crate::database::Dialect;
use crate::queue::{Queue, cancelled};
use crate::request::{End, Outcome, Request};
use crate::{Error, Result, sql};

/// A request that this worker has. Dropped without an end, it is found lost and tried again.
pub struct Lease {
    pub(crate) queue: Queue,
    /// The request as it was claimed.
    pub request: Request,
    token: String,
}

/// What a worker hears when it prolongs its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// Go on.
    Held,
    /// Go on only to stop: somebody asked to cancel.
    CancelAsked,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// The end of the request.
    End(End),
    /// A failure that another attempt may not meet; the end if none is left.
    Again(End),
    /// Not begun or not to be counted: the worker goes.
    HandedBack,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Requests whose worker had gone.
    pub lost: usize,
    /// Requests that did not start in time.
    pub overdue: usize,
    /// Requests that were to be cancelled and had no worker.
    pub cancelled: usize,
    /// Requests that were forgotten.
    pub expired: usize,
}

/// How long the answer to a request that is not to be kept can be fetched.
const UNKEPT_MS: i64 = 3_600_000;

/// Requests that one sweep forgets.
const EXPIRED_AT_ONCE: i64 = 200;

impl Queue {
    /// The next request that may run, held by the caller; none if nothing may.
    pub async fn claim(&self) -> Result<Option<Lease>> {
        let text = match self.dialect {
            Dialect::Sqlite => sql::CLAIM_SQLITE,
            Dialect::Postgres => sql::CLAIM_POSTGRES,
        };
        let (token, now) = (Uuid::now_v7().to_string(), self.now_ms());
        let mut transaction = self.pool.begin().await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query(sql::CLAIM_ALONE).execute(&mut *transaction).await?;
        }
        let query =
            sqlx::query(text).bind(&token).bind(now + self.settings.limits.lease_ms).bind(now);
        let Some(row) = query.fetch_optional(&mut *transaction).await? else { return Ok(None) };
        transaction.commit().await?;
        let request = Request::of(&row)?;
        self.news.of(&request.id);
        Ok(Some(Lease { queue: self.clone(), request, token }))
    }

    /// Requeues what lost its worker, ends what did not start in time, and forgets what ended before `keep_ms`.
    pub async fn sweep(&self, keep_ms: i64) -> Result<Swept> {
        let now = self.now_ms();
        let mut swept = Swept::default();
        for row in sqlx::query(sql::LOST).bind(now).fetch_all(&self.pool).await? {
            let request = Request::of(&row)?;
            let Some(token) = request.lease.clone() else { continue };
            let lease = Lease { queue: self.clone(), request, token };
            let end = End::of_request(
                Outcome::Failed,
                503,
                "runner_disconnected",
                "The worker that ran the request has gone",
            );
            match lease.finish(Attempt::Again(end)).await {
                Ok(()) => swept.lost += 1,
                Err(Error::LeaseLost(_)) => {} // another sweep was faster
                Err(error) => return Err(error),
            }
        }
        let overdue = End::of_request(
            Outcome::Failed,
            504,
            "request_timeout",
            "The request did not start within the time that its sender gave it",
        );
        for row in sqlx::query(sql::OVERDUE).bind(now).fetch_all(&self.pool).await? {
            let id: String = row.try_get(0)?;
            swept.overdue += usize::from(self.end_queued(&id, &overdue).await?);
        }
        for row in sqlx::query(sql::TO_CANCEL).fetch_all(&self.pool).await? {
            let id: String = row.try_get(0)?;
            swept.cancelled += usize::from(self.end_queued(&id, &cancelled()).await?);
        }
        let expired = sqlx::query(sql::EXPIRED)
            .bind(now - keep_ms)
            .bind(now - keep_ms.min(UNKEPT_MS))
            .bind(EXPIRED_AT_ONCE);
        for row in expired.fetch_all(&self.pool).await? {
            let id: String = row.try_get(0)?;
            swept.expired += usize::from(self.delete(&id).await?);
        }
        Ok(swept)
    }
}

impl Lease {
    /// Prolongs the lease. A lost one is an error: stop working, somebody else does.
    pub async fn heartbeat(&self) -> Result<Heartbeat> {
        let until = self.queue.now_ms() + self.queue.settings.limits.lease_ms;
        let query =
            sqlx::query(sql::HEARTBEAT).bind(until).bind(&self.request.id).bind(&self.token);
        let row = query.fetch_optional(&self.queue.pool).await?.ok_or_else(|| self.lost())?;
        Ok(match row.try_get::<i64, _>(0)? {
            0 => Heartbeat::Held,
            _ => Heartbeat::CancelAsked,
        })
    }

    /// Says a line about the request.
    pub async fn log(&self, level: &str, message: &str) -> Result<()> {
        let query = sqlx::query(sql::INSERT_LOG)
            .bind(&self.request.id)
            .bind(self.queue.now_ms())
            .bind(level)
            .bind(message);
        query.execute(&self.queue.pool).await?;
        self.queue.news.of(&self.request.id);
        Ok(())
    }

    /// Gives the request up. Only the holder of the lease can; everybody else, and a second time, gets [`Error::LeaseLost`].
    pub async fn finish(&self, attempt: Attempt) -> Result<()> {
        match attempt {
            Attempt::End(end) => self.end(&end).await,
            Attempt::HandedBack => self.hand_back(0, 1).await,
            Attempt::Again(end) if self.request.attempts >= self.request.attempts_max => {
                match self.cancel_asked().await? {
                    true => self.end(&cancelled()).await,
                    false => self.end(&end).await,
                }
            }
            Attempt::Again(_) => self.hand_back(pause_ms(self.request.attempts), 0).await,
        }
    }

    /// Whether somebody asked to cancel; cheaper than a heartbeat.
    pub async fn cancel_asked(&self) -> Result<bool> {
        let query = sqlx::query(sql::CANCEL_ASKED).bind(&self.request.id).bind(&self.token);
        let row = query.fetch_optional(&self.queue.pool).await?;
        Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.is_some_and(|cancel| cancel != 0))
    }

    async fn end(&self, end: &End) -> Result<()> {
        let mut transaction = self.queue.pool.begin().await?;
        let now = self.queue.now_ms();
        let query = sqlx::query(sql::FINISH)
            .bind(end.outcome.name())
            .bind(now)
            .bind(i64::from(end.status_code))
            .bind(&end.response)
            .bind(end.error.clone())
            .bind(end.error_type.clone())
            .bind(end.inference_ms)
            .bind(end.billable_units)
            .bind(&self.request.id)
            .bind(&self.token);
        if query.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Err(self.lost());
        }
        self.queue.make_due(&mut transaction, &self.request.id, now).await?;
        sqlx::query(sql::DELETE_PREVIEWS).bind(&self.request.id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.queue.news.of(&self.request.id);
        Ok(())
    }

    /// Back into the queue; or to its end, if somebody asked to cancel.
    async fn hand_back(&self, pause_ms: i64, uncounted: i64) -> Result<()> {
        let query = sqlx::query(sql::HAND_BACK)
            .bind(self.queue.now_ms() + pause_ms)
            .bind(uncounted)
            .bind(&self.request.id)
            .bind(&self.token);
        if query.execute(&self.queue.pool).await?.rows_affected() == 0 {
            return self.end(&cancelled()).await;
        }
        self.queue.news.work();
        self.queue.news.of(&self.request.id);
        Ok(())
    }

    fn lost(&self) -> Error {
        Error::LeaseLost(self.request.id.clone())
    }
}

/// Before another attempt: 0.5 s, doubled with each, a minute at most.
fn pause_ms(attempts: i64) -> i64 {
    (500 << attempts.clamp(1, 8).saturating_sub(1)).min(60_000)
}

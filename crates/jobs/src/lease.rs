//! A worker's hold on a request: claimed, prolonged, and given up in exactly one way.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::database::{Dialect, decimal};
use crate::history::Files;
use crate::pictures::{self, NewPicture};
use crate::queue::{Queue, cancelled};
use crate::request::{End, Outcome, Request, Standing, storable};
use crate::{Error, Result, sql};

/// A request that this worker has. Dropped without an end, it is found lost and tried again.
pub struct Lease {
    pub(crate) hold: Hold,
    /// The request as it was claimed.
    pub request: Request,
}

/// What it takes to give a request up.
pub(crate) struct Hold {
    pub(crate) queue: Queue,
    id: String,
    owner: String,
    token: String,
    attempts: i64,
    attempts_max: i64,
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

/// Requests that one sweep takes from workers that have gone.
const LOST_AT_ONCE: usize = 100;

impl Queue {
    /// The next request that may run, held by the caller; none if nothing may.
    pub async fn claim(&self) -> Result<Option<Lease>> {
        let text = match self.dialect {
            Dialect::Sqlite => sql::CLAIM_SQLITE,
            Dialect::Postgres => sql::CLAIM_POSTGRES,
        };
        let (token, now) = (Uuid::now_v7().to_string(), self.now_ms());
        let mut transaction = self.hasty.begin().await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query(sql::CLAIM_ALONE).execute(&mut *transaction).await?;
        }
        let query =
            sqlx::query(text).bind(&token).bind(now + self.settings.limits.lease_ms).bind(now);
        let Some(row) = query.fetch_optional(&mut *transaction).await? else { return Ok(None) };
        transaction.commit().await?;
        let request = Request::of(&row)?;
        self.news.of(&request.id);
        let Standing { id, owner, attempts, attempts_max, .. } = request.standing.clone();
        let hold = Hold { queue: self.clone(), id, owner, token, attempts, attempts_max };
        Ok(Some(Lease { hold, request }))
    }

    /// Requeues what lost its worker, ends what did not start in time or was to be cancelled, and forgets what ended
    /// before `keep_ms`.
    pub async fn sweep(&self, keep_ms: i64) -> Result<Swept> {
        let now = self.now_ms();
        let mut swept = Swept { lost: self.sweep_lost().await?, ..Swept::default() };
        let overdue = End::of_request(
            Outcome::Failed,
            504,
            "request_timeout",
            "The request did not start within the time that its sender gave it",
        );
        for id in ids(sqlx::query(sql::OVERDUE).bind(now).fetch_all(&self.pool).await?)? {
            swept.overdue += usize::from(self.end_queued(&id, &overdue).await?);
        }
        for id in ids(sqlx::query(sql::TO_CANCEL).fetch_all(&self.pool).await?)? {
            swept.cancelled += usize::from(self.end_queued(&id, &cancelled()).await?);
        }
        for (keep_io, keep_ms) in [(1_i64, keep_ms), (0, keep_ms.min(UNKEPT_MS))] {
            let expired = sqlx::query(sql::EXPIRED).bind(keep_io).bind(now - keep_ms);
            let expired = expired.bind(EXPIRED_AT_ONCE).fetch_all(&self.pool).await?;
            for id in ids(expired)? {
                swept.expired += usize::from(self.forget(&id, Files::WithoutTime).await?);
            }
        }
        Ok(swept)
    }

    /// Gives up in the name of workers that have gone; of how many.
    async fn sweep_lost(&self) -> Result<usize> {
        let mut lost = 0;
        while lost < LOST_AT_ONCE
            && let Some(hold) = self.seize().await?
        {
            let end = End::of_request(
                Outcome::Failed,
                503,
                "runner_disconnected",
                "The worker that ran the request has gone",
            );
            match hold.give_up(Attempt::Again(end), &[]).await {
                Ok(()) => lost += 1,
                Err(Error::LeaseLost(_)) => {} // this node stood still for longer than a lease
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// A hold on a request whose lease has run out.
    async fn seize(&self) -> Result<Option<Hold>> {
        let text = match self.dialect {
            Dialect::Sqlite => sql::SEIZE_SQLITE,
            Dialect::Postgres => sql::SEIZE_POSTGRES,
        };
        let (token, now) = (Uuid::now_v7().to_string(), self.now_ms());
        let query =
            sqlx::query(text).bind(&token).bind(now + self.settings.limits.lease_ms).bind(now);
        let Some(row) = query.fetch_optional(&self.pool).await? else { return Ok(None) };
        let (id, attempts, attempts_max) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let owner = String::new(); // what nobody works on makes no pictures
        Ok(Some(Hold { queue: self.clone(), id, owner, token, attempts, attempts_max }))
    }
}

fn ids(rows: Vec<AnyRow>) -> Result<Vec<String>> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

impl Lease {
    /// Prolongs the lease. A lost one is an error: stop working, somebody else does.
    pub async fn heartbeat(&self) -> Result<Heartbeat> {
        let Hold { queue, id, token, .. } = &self.hold;
        let until = queue.now_ms() + queue.settings.limits.lease_ms;
        let query = sqlx::query(sql::HEARTBEAT).bind(until).bind(id).bind(token);
        let row = query.fetch_optional(&queue.hasty).await?.ok_or_else(|| self.hold.lost())?;
        Ok(match row.try_get::<i64, _>(0)? {
            0 => Heartbeat::Held,
            _ => Heartbeat::CancelAsked,
        })
    }

    /// Says a line about the request.
    pub async fn log(&self, level: &str, message: &str) -> Result<()> {
        let Hold { queue, id, .. } = &self.hold;
        let query = sqlx::query(sql::INSERT_LOG)
            .bind(id)
            .bind(queue.now_ms())
            .bind(level)
            .bind(storable(message));
        query.execute(&queue.hasty).await?;
        queue.news.of(id);
        Ok(())
    }

    /// Gives the request up. Only the holder of the lease can; everybody else, and a second time, gets [`Error::LeaseLost`].
    pub async fn finish(&self, attempt: Attempt) -> Result<()> {
        self.hold.give_up(attempt, &[]).await
    }

    /// The same, and should that end the request with a result, `pictures` are shown from then on.
    pub async fn finish_with(&self, attempt: Attempt, pictures: &[NewPicture]) -> Result<()> {
        self.hold.give_up(attempt, pictures).await
    }

    /// Whether somebody asked to cancel; cheaper than a heartbeat.
    pub async fn cancel_asked(&self) -> Result<bool> {
        self.hold.cancel_asked().await
    }
}

impl Hold {
    async fn give_up(&self, attempt: Attempt, pictures: &[NewPicture]) -> Result<()> {
        match attempt {
            Attempt::End(end) => self.end(&end, pictures).await,
            Attempt::HandedBack => self.hand_back(0, 1).await,
            Attempt::Again(end) if self.attempts >= self.attempts_max => {
                match self.cancel_asked().await? {
                    true => self.end(&cancelled(), &[]).await,
                    false => self.end(&end, &[]).await,
                }
            }
            Attempt::Again(_) => self.hand_back(pause_ms(self.attempts), 0).await,
        }
    }

    async fn cancel_asked(&self) -> Result<bool> {
        let query = sqlx::query(sql::CANCEL_ASKED).bind(&self.id).bind(&self.token);
        let row = query.fetch_optional(&self.queue.pool).await?;
        Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.is_some_and(|cancel| cancel != 0))
    }

    async fn end(&self, end: &End, pictures: &[NewPicture]) -> Result<()> {
        let mut transaction = self.queue.pool.begin().await?;
        let now = self.queue.now_ms();
        let query = sqlx::query(sql::FINISH)
            .bind(end.outcome.name())
            .bind(now)
            .bind(i64::from(end.status_code))
            .bind(&end.response)
            .bind(end.error.as_deref().map(storable))
            .bind(end.error_type.clone())
            .bind(end.inference_ms)
            .bind(decimal(end.billable_units))
            .bind(end.flagged)
            .bind(&self.id)
            .bind(&self.token);
        if query.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Err(self.lost());
        }
        self.queue.make_due(&mut transaction, &self.id, now).await?;
        if !pictures.is_empty() {
            let made_by = (self.id.as_str(), self.owner.as_str());
            pictures::insert(&mut transaction, made_by, pictures, now).await?;
        }
        sqlx::query(sql::DELETE_PREVIEWS).bind(&self.id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        end.count();
        self.queue.news.of(&self.id);
        Ok(())
    }

    /// Back into the queue; or to its end, if somebody asked to cancel.
    async fn hand_back(&self, pause_ms: i64, uncounted: i64) -> Result<()> {
        let query = sqlx::query(sql::HAND_BACK)
            .bind(self.queue.now_ms() + pause_ms)
            .bind(uncounted)
            .bind(&self.id)
            .bind(&self.token);
        if query.execute(&self.queue.pool).await?.rows_affected() == 0 {
            return self.end(&cancelled(), &[]).await;
        }
        self.queue.news.work();
        self.queue.news.of(&self.id);
        Ok(())
    }

    fn lost(&self) -> Error {
        Error::LeaseLost(self.id.clone())
    }
}

/// Before another attempt: 0.5 s, doubled with each, a minute at most.
fn pause_ms(attempts: i64) -> i64 {
    (500 << attempts.clamp(1, 8).saturating_sub(1)).min(60_000)
}

//! The queue's front: submitting, looking, cancelling.

use std::sync::Arc;

use sqlx::{AnyPool, Row};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::checkpoint::keep_short;
use crate::clock::Clock;
use crate::database::{Dialect, open};
use crate::line::Line;
use crate::news::{News, Watcher};
use crate::request::{End, LogLine, Outcome, Request, Standing, canonical, storable};
use crate::submit::{BATCH, New, Submission, Writer, write};
use crate::{Error, Result, sql};

/// How the queue is set up.
#[derive(Clone)]
pub struct Settings {
    /// `sqlite://FILE?mode=rwc` or `postgres://…`.
    pub url: String,
    /// What may pile up.
    pub limits: Limits,
    /// Milliseconds since 1970; on all nodes of one database the same, see [`crate::shared_clock`].
    pub now_ms: Clock,
}

/// What may pile up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that wait.
    pub queued_max: i64,
    /// Requests of one owner that wait.
    pub owner_queued_max: i64,
    /// Attempts of one request.
    pub attempts_max: i64,
    /// How long a worker may be silent.
    pub lease_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queued_max: 100_000, owner_queued_max: 100_000, attempts_max: 10, lease_ms: 30_000 }
    }
}

/// What became of the wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited and will never run.
    Removed,
    /// Its worker will hear of it.
    Requested,
    /// Too late.
    AlreadyDone,
    /// There is no such request.
    NotFound,
}

/// The queue. Cheap to clone; all clones are one queue.
#[derive(Clone)]
pub struct Queue {
    pub(crate) pool: AnyPool,
    /// Its commits do not wait for the disk: for claims, heartbeats, logs and previews, which mean nothing without the end
    /// that follows them.
    pub(crate) hasty: AnyPool,
    pub(crate) dialect: Dialect,
    pub(crate) settings: Settings,
    pub(crate) news: News,
    pub(crate) line: Arc<Line>,
    submissions: mpsc::Sender<Submission>,
}

impl Queue {
    /// Opens the queue, making its tables if they are not there.
    pub async fn open(settings: Settings) -> Result<Self> {
        let (pool, hasty, dialect) = open(&settings.url).await?;
        let (submissions, receiver) = mpsc::channel(4 * BATCH);
        let news = match dialect {
            Dialect::Sqlite => News::local(),
            Dialect::Postgres => News::shared(settings.url.clone(), pool.clone()),
        };
        let queue =
            Self { pool, hasty, dialect, settings, news, line: Arc::default(), submissions };
        if dialect == Dialect::Sqlite {
            tokio::spawn(keep_short(queue.hasty.clone()));
        }
        tokio::spawn(write(Writer::of(&queue), receiver));
        Ok(queue)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.settings.now_ms)()
    }

    /// Changes whenever there may be work to take, submitted on this node or another.
    pub fn work(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Hears of every change of the request `id` from now on.
    pub fn watch(&self, id: &str) -> Watcher {
        self.news.watch(&id.to_ascii_lowercase())
    }

    /// Accepts a request; its id is given away once it is on the disk.
    pub async fn submit(&self, new: New) -> Result<String> {
        let id = Uuid::now_v7().to_string();
        let (answer, answered) = oneshot::channel();
        let submission = Submission { id: id.clone(), new, answer };
        self.submissions.send(submission).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)??;
        Ok(id)
    }

    /// The request called `id`, in any case of letters.
    pub async fn request(&self, id: &str) -> Result<Option<Request>> {
        let Some(id) = canonical(id) else { return Ok(None) };
        let row = sqlx::query(sql::BY_ID).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(Request::of).transpose()
    }

    /// The same without its texts, for whoever looks often or at many.
    pub async fn standing(&self, id: &str) -> Result<Option<Standing>> {
        let Some(id) = canonical(id) else { return Ok(None) };
        let row = sqlx::query(sql::STANDING).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(Standing::of).transpose()
    }

    /// Requests that wait.
    pub async fn queued(&self) -> Result<i64> {
        Ok(sqlx::query(sql::COUNT_QUEUED).fetch_one(&self.pool).await?.try_get(0)?)
    }

    /// Requests of `owner` (empty: of all) that run.
    pub async fn running(&self, owner: &str) -> Result<i64> {
        Ok(sqlx::query(sql::COUNT_RUNNING).bind(owner).fetch_one(&self.pool).await?.try_get(0)?)
    }

    /// At most `most` lines about a request, from number `from`.
    pub async fn logs(&self, id: &str, from: i64, most: i64) -> Result<Vec<LogLine>> {
        let query = sqlx::query(sql::LOGS).bind(id).bind(from).bind(most);
        let rows = query.fetch_all(&self.pool).await?;
        let line = |row: &sqlx::any::AnyRow| {
            Ok(LogLine {
                number: row.try_get(0)?,
                at_ms: row.try_get(1)?,
                level: row.try_get(2)?,
                message: row.try_get(3)?,
            })
        };
        rows.iter().map(line).collect()
    }

    /// Ends a request that waits; asks the worker of one that runs.
    pub async fn cancel(&self, id: &str) -> Result<Cancelled> {
        let Some(id) = canonical(id) else { return Ok(Cancelled::NotFound) };
        let end = cancelled();
        if self.end_queued(&id, &end).await? {
            return Ok(Cancelled::Removed);
        }
        let asked = sqlx::query(sql::ASK_TO_CANCEL).bind(&id).fetch_optional(&self.pool).await?;
        let Some(row) = asked else {
            return Ok(match self.standing(&id).await? {
                Some(_) => Cancelled::AlreadyDone,
                None => Cancelled::NotFound,
            });
        };
        // It was handed back in between; now that it is marked, no worker takes it again.
        if row.try_get::<String, _>(0)? == "queued" {
            self.end_queued(&id, &end).await?;
            return Ok(Cancelled::Removed);
        }
        self.news.of(&id);
        Ok(Cancelled::Requested)
    }

    /// Ends `id` if it waits, and makes its webhook due; whether it did.
    pub(crate) async fn end_queued(&self, id: &str, end: &End) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let now = self.now_ms();
        let query = sqlx::query(sql::END_QUEUED)
            .bind(end.outcome.name())
            .bind(now)
            .bind(i64::from(end.status_code))
            .bind(&end.response)
            .bind(end.error.as_deref().map(storable))
            .bind(end.error_type.clone())
            .bind(id);
        if query.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        self.make_due(&mut transaction, id, now).await?;
        transaction.commit().await?;
        end.count();
        self.news.of(id);
        Ok(true)
    }

    /// Finishes what is being written and closes the connections.
    pub async fn close(&self) {
        self.hasty.close().await;
        self.pool.close().await; // the last to go: it brings everything to the disk
    }
}

/// fal's answer for what was cancelled.
pub(crate) fn cancelled() -> End {
    End::of_request(Outcome::Cancelled, 499, "client_cancelled", "Request was cancelled")
}

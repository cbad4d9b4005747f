//! Submissions become rows: as many as have come share one commit, and nobody fills the queue.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::{AnyPool, Row};
use tokio::sync::{mpsc, oneshot};

use crate::database::decimal;
use crate::news::News;
use crate::queue::{Limits, Queue, Settings};
use crate::request::Priority;
use crate::{Error, Result, sql};

/// A request to be submitted.
#[derive(Clone, Debug)]
pub struct New {
    /// Where it was sent.
    pub endpoint: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// Which requests it waits for.
    pub priority: Priority,
    /// Whether input and output stay in the history.
    pub keep_io: bool,
    /// JSON as it was sent.
    pub input: String,
    /// JSON of what is to be done.
    pub task: String,
    /// Requests of this owner that may run at once.
    pub concurrency_max: i64,
    /// Whether a failed attempt is followed by another.
    pub retry: bool,
    /// Milliseconds in which it must have started.
    pub start_within_ms: Option<i64>,
    /// Where its end is reported.
    pub webhook: Option<String>,
    /// Where its sender reaches this server, without a slash at the end.
    pub base: String,
    /// Dollars a billable unit, as of now.
    pub unit_price: Option<f64>,
    /// Whose trace it belongs to, as W3C's `traceparent`.
    pub trace: Option<String>,
}

pub(crate) struct Submission {
    pub(crate) id: String,
    pub(crate) new: New,
    pub(crate) answer: oneshot::Sender<Result<()>>,
}

/// Submissions that share one commit: a disk takes as long for one as for all of them.
pub(crate) const BATCH: usize = 256;

/// How long a count of what waits is believed: other nodes add to it, and workers take from it.
const COUNT_FRESH: Duration = Duration::from_millis(500);
/// So many times as long as counting took, it is believed in refusals too: who is refused again and again would otherwise have
/// the writer count a long queue for each, while everybody else waits.
const COUNT_SHARE: u32 = 10;

/// What the writing task needs; it holds no sender, so that it ends with the last queue.
pub(crate) struct Writer {
    pool: AnyPool,
    settings: Settings,
    news: News,
    waiting: Waiting,
}

/// What waited when it was counted, and what this node added since.
#[derive(Default)]
struct Waiting {
    counted: Option<Instant>,
    took: Duration,
    all: i64,
    by_owner: HashMap<String, i64>,
}

impl Waiting {
    /// Takes in `owner`'s next request, if there is room.
    fn add(&mut self, owner: &str, limits: &Limits) -> Result<()> {
        if self.all >= limits.queued_max {
            return Err(Error::Full { waiting: self.all, most: limits.queued_max });
        }
        let of_owner = self.by_owner.entry(owner.into()).or_default();
        if *of_owner >= limits.owner_queued_max {
            return Err(Error::OwnerFull { waiting: *of_owner, most: limits.owner_queued_max });
        }
        *of_owner += 1;
        self.all += 1;
        Ok(())
    }
}

/// Writes submissions, as many as have come in one transaction.
pub(crate) async fn write(mut writer: Writer, mut receiver: mpsc::Receiver<Submission>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let mut admitted = Vec::with_capacity(batch.len());
        for submission in batch.drain(..) {
            match writer.admit(&submission.new.owner).await {
                Ok(()) => admitted.push(submission),
                Err(error) => answer(submission, Err(error)),
            }
        }
        match writer.insert(&admitted).await {
            Ok(()) => admitted.drain(..).for_each(|submission| answer(submission, Ok(()))),
            // One of them may be at fault: each for itself.
            Err(_) if admitted.len() > 1 => {
                for submission in admitted.drain(..) {
                    let result = writer.insert(std::slice::from_ref(&submission)).await;
                    answer(submission, result);
                }
            }
            Err(error) => {
                if let Some(submission) = admitted.pop() {
                    answer(submission, Err(error));
                }
            }
        }
    }
}

fn answer(submission: Submission, result: Result<()>) {
    let _ = submission.answer.send(result); // whoever asked may have gone
}

impl Writer {
    pub(crate) fn of(queue: &Queue) -> Self {
        Self {
            pool: queue.pool.clone(),
            settings: queue.settings.clone(),
            news: queue.news.clone(),
            waiting: Waiting::default(),
        }
    }

    /// Whether there is room for one more of `owner`. Nobody is refused by an old count.
    async fn admit(&mut self, owner: &str) -> Result<()> {
        if let Some(age) = self.waiting.counted.map(|at| at.elapsed())
            && age < COUNT_FRESH
        {
            let added = self.waiting.add(owner, &self.settings.limits);
            if added.is_ok() || age < COUNT_SHARE * self.waiting.took {
                return added;
            }
        }
        self.waiting = self.count().await?;
        self.waiting.add(owner, &self.settings.limits)
    }

    async fn count(&self) -> Result<Waiting> {
        let begun = Instant::now();
        let mut waiting = Waiting::default();
        for row in sqlx::query(sql::QUEUED_BY_OWNER).fetch_all(&self.pool).await? {
            let count: i64 = row.try_get(1)?;
            waiting.all += count;
            waiting.by_owner.insert(row.try_get(0)?, count);
        }
        Ok(Waiting { counted: Some(Instant::now()), took: begun.elapsed(), ..waiting })
    }

    async fn insert(&self, batch: &[Submission]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let attempts_max = self.settings.limits.attempts_max;
        let now = (self.settings.now_ms)();
        let mut transaction = self.pool.begin().await?;
        for Submission { id, new, .. } in batch {
            sqlx::query(sql::INSERT)
                .bind(id)
                .bind(&new.endpoint)
                .bind(&new.owner)
                .bind(new.priority.number())
                .bind(i64::from(new.keep_io))
                .bind(&new.input)
                .bind(&new.task)
                .bind(new.concurrency_max)
                .bind(if new.retry { attempts_max } else { 1 })
                .bind(now)
                .bind(new.start_within_ms.map(|within| now + within))
                .bind(new.webhook.clone())
                .bind(new.webhook.as_deref().map(receiver))
                .bind(&new.base)
                .bind(decimal(new.unit_price))
                .bind(new.trace.clone())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        self.news.work();
        Ok(())
    }
}

/// Scheme, host and port of an address: who is waited for when it is sent to.
fn receiver(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    url[..end].to_ascii_lowercase()
}

//! Requests for models are written down beside the answers, many in one transaction: nobody waits for it.

use std::time::Duration;

use sqlx::AnyPool;
use tokio::sync::{mpsc, oneshot};

use crate::Result;
use crate::calls::{ModelRequest, Sums};
use crate::queue::Queue;
use crate::sql::calls as sql;

/// Where requests are written down. Cheap to clone; with the last clone goes the task that writes.
#[derive(Clone)]
pub struct Ledger(mpsc::Sender<Entry>);

enum Entry {
    Request(Box<ModelRequest>),
    /// Answered once everything before is written, or was tried.
    Flush(oneshot::Sender<()>),
}

/// Requests that may wait to be written: minutes of a busy server, should the database hang.
const WAITING_MAX: usize = 100_000;
/// Requests of one transaction.
const BATCH: usize = 1000;
/// How long others are waited for: the sums of many take as many rows as those of one.
const PAUSE: Duration = Duration::from_millis(100);
/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often it is tried.
const TRIES: u32 = 5;

impl Queue {
    /// A ledger of this database. Its commits do not wait for the disk.
    pub fn ledger(&self) -> Ledger {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write(self.hasty.clone(), receiver));
        Ledger(sender)
    }
}

impl Ledger {
    /// Writes `request` down soon. Never waits: whoever is dropped at this moment can still tell.
    pub fn record(&self, request: ModelRequest) {
        if self.0.try_send(Entry::Request(Box::new(request))).is_err() {
            metrics::counter!("zoetrope_gateway_unrecorded_total").increment(1);
            tracing::error!("a request could not be written down: the database is too slow");
        }
    }

    /// Waits until everything that was recorded before is in the database.
    pub async fn flush(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(Entry::Flush(answer)).await.is_ok() {
            let _ = answered.await; // the task has gone: there is nothing to wait for
        }
    }
}

async fn write(pool: AnyPool, mut receiver: mpsc::Receiver<Entry>) {
    let mut entries = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut entries, BATCH).await > 0 {
        let in_a_hurry = entries.iter().any(|entry| matches!(entry, Entry::Flush(_)));
        if entries.len() < BATCH && !in_a_hurry {
            tokio::time::sleep(PAUSE).await;
            while entries.len() < BATCH
                && let Ok(entry) = receiver.try_recv()
            {
                entries.push(entry);
            }
        }
        let (mut requests, mut waiting) = (Vec::new(), Vec::new());
        for entry in entries.drain(..) {
            match entry {
                Entry::Request(request) => requests.push(*request),
                Entry::Flush(answer) => waiting.push(answer),
            }
        }
        write_batch(&pool, &requests).await;
        for answer in waiting {
            let _ = answer.send(()); // whoever asked may have gone
        }
    }
}

async fn write_batch(pool: &AnyPool, requests: &[ModelRequest]) {
    for tried in 1..=TRIES {
        match try_write(pool, requests).await {
            Ok(()) => return,
            Err(error) if tried < TRIES => {
                tracing::warn!(%error, "requests could not be written down; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                let count = requests.len();
                metrics::counter!("zoetrope_gateway_unrecorded_total").increment(count as u64);
                tracing::error!(%error, count, "requests could not be written down");
            }
        }
    }
}

async fn try_write(pool: &AnyPool, requests: &[ModelRequest]) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let mut sums = Sums::default();
    let mut transaction = pool.begin().await?;
    ModelRequest::insert_all(requests, &mut transaction).await?;
    requests.iter().for_each(|request| sums.add(request));
    sums.write(&mut transaction).await?;
    for request in requests.iter().filter(|request| request.held) {
        sqlx::query(sql::RELEASE).bind(&request.id).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

//! Who is told of what: watchers of one request, workers that wait for work, and, on PostgreSQL, the other nodes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::postgres::PgListener;
use tokio::sync::{mpsc, watch};

use crate::{Result, sql};

/// Tells this process, and through it the others.
#[derive(Clone)]
pub(crate) struct News {
    local: Arc<Local>,
    others: Option<mpsc::UnboundedSender<String>>,
}

#[derive(Default)]
struct Local {
    work: watch::Sender<u64>,
    watched: Mutex<HashMap<String, watch::Sender<u64>>>,
}

/// Hears of every change of one request, until it is dropped.
pub struct Watcher {
    id: String,
    changes: watch::Receiver<u64>,
    local: Arc<Local>,
}

/// The word for work that may be taken; everything else on the channel is a request's id.
const WORK: &str = "work";
const CHANNEL: &str = "zoetrope";
/// PostgreSQL takes messages of less than 8,000 bytes.
const IDS_MAX: usize = 200;

impl News {
    /// News of this process alone.
    pub(crate) fn local() -> Self {
        Self { local: Arc::default(), others: None }
    }

    /// News of all processes on the PostgreSQL at `url`.
    pub(crate) fn shared(url: String, pool: AnyPool) -> Self {
        let (others, said) = mpsc::unbounded_channel();
        let local = Arc::<Local>::default();
        tokio::spawn(listen(url, local.clone()));
        tokio::spawn(tell(pool, said));
        Self { local, others: Some(others) }
    }

    /// There is work to be taken.
    pub(crate) fn work(&self) {
        self.say(WORK);
    }

    /// The request `id` has changed.
    pub(crate) fn of(&self, id: &str) {
        self.say(id);
    }

    fn say(&self, word: &str) {
        self.local.hear(word);
        if let Some(others) = &self.others {
            let _ = others.send(word.into()); // ends with the process
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.local.work.subscribe()
    }

    pub(crate) fn watch(&self, id: &str) -> Watcher {
        let mut watched = self.local.lock();
        let sender = watched.entry(id.into()).or_default();
        Watcher { id: id.into(), changes: sender.subscribe(), local: self.local.clone() }
    }
}

impl Local {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Sender<u64>>> {
        self.watched.lock().expect("nothing panics while it is held")
    }

    fn hear(&self, word: &str) {
        if word == WORK {
            self.work.send_modify(|count| *count += 1);
        } else if let Some(sender) = self.lock().get(word) {
            sender.send_modify(|count| *count += 1);
        }
    }

    /// Something may have been missed: everybody looks for themselves.
    fn wake_all(&self) {
        self.work.send_modify(|count| *count += 1);
        self.lock().values().for_each(|sender| sender.send_modify(|count| *count += 1));
    }
}

impl Watcher {
    /// Returns once the request has changed since the last call, or after `patience`: messages may be lost, rows are not.
    pub async fn changed(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.changes.changed()).await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watched = self.local.lock();
        // This one's own receiver still counts.
        if watched.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.id);
        }
    }
}

/// Hears the other nodes, as long as the process lives.
async fn listen(url: String, local: Arc<Local>) {
    loop {
        if let Err(error) = hear(&url, &local).await {
            tracing::warn!(%error, "listening to the database was interrupted; trying again");
        }
        local.wake_all();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn hear(url: &str, local: &Local) -> Result<()> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    while let Some(message) = listener.try_recv().await? {
        message.payload().split(',').for_each(|word| local.hear(word));
    }
    Ok(())
}

/// Tells the other nodes, many changes in one message where they come fast.
async fn tell(pool: AnyPool, mut said: mpsc::UnboundedReceiver<String>) {
    let mut words = Vec::new();
    while said.recv_many(&mut words, IDS_MAX).await > 0 {
        let message: BTreeSet<String> = words.drain(..).collect();
        let message = Vec::from_iter(message).join(",");
        let told = sqlx::query(sql::NOTIFY).bind(CHANNEL).bind(message).execute(&pool).await;
        if let Err(error) = told {
            tracing::warn!(%error, "the other nodes could not be told of a change");
        }
    }
}

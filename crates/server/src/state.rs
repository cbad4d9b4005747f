//! What every handler is given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use zoetrope_api::fal::Endpoint;
use zoetrope_arena::Arena;
use zoetrope_files::{Store, fetch::Fetcher};
use zoetrope_gateway::Gateway;
use zoetrope_jobs::{Key, Queue};

use crate::extract::HELD_MIB_MAX;
use crate::fal::direct::Calls;
use crate::token::Signer;

/// How the server is set up.
pub struct Settings {
    /// Where requests go.
    pub queue: Queue,
    /// Where files lie.
    pub store: Store,
    /// The door to addresses that users chose; webhooks go through it.
    pub fetcher: Fetcher,
    /// Who makes pictures for those who ask for a model and not for one of fal's endpoints.
    pub gateway: Gateway,
    /// Where this server is reached when a request does not tell, as `http://127.0.0.1:7860`.
    pub address: String,
    /// Where files are reached, if that is configured.
    pub public_url: Option<String>,
    /// Whether every request needs a key. Without, only loopback names are answered for.
    pub keys_required: bool,
    /// Bytes of one uploaded file.
    pub upload_bytes_max: u64,
    /// Requests of a caller without a key that may run at once.
    pub concurrency_max: i64,
    /// Dollars a unit by endpoint, where they are not fal's.
    pub prices: HashMap<String, f64>,
    /// Width and height that the models here draw best at, where that is none of fal's sizes: what forms for people begin with.
    pub draws_at: Option<(u32, u32)>,
    /// Milliseconds since 1970.
    pub now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Milliseconds that uploads live where nobody said otherwise.
    pub keep_ms: i64,
    /// Holds true once the server is to stop.
    pub stop: watch::Receiver<bool>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
}

/// The server's state. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What [`App`] stands for.
pub struct Inner {
    pub(crate) settings: Settings,
    pub(crate) signer: Signer,
    /// Mebibytes of inputs that may still come into memory.
    pub(crate) bodies: Arc<Semaphore>,
    /// What must end before the process does.
    last: Mutex<JoinSet<()>>,
    pub(crate) keys: Mutex<HashMap<String, (Option<Key>, Instant)>>,
    /// Direct calls under way.
    pub(crate) calls: Calls,
    /// Where models stand by people's votes.
    pub(crate) arena: Arena,
}

impl App {
    /// Prepares what all nodes share.
    pub async fn open(settings: Settings) -> zoetrope_jobs::Result<Self> {
        let signer = Signer::of(&settings.queue).await?;
        let (queue, store) = (settings.queue.clone(), settings.store.clone());
        let arena = Arena::new(queue, store, settings.gateway.clone(), settings.now_ms.clone());
        Ok(Self(Arc::new(Inner {
            settings,
            signer,
            bodies: Arc::new(Semaphore::new(HELD_MIB_MAX)),
            last: Mutex::default(),
            keys: Mutex::default(),
            calls: Calls::default(),
            arena,
        })))
    }

    /// Dollars a unit of the endpoint `id`.
    pub fn price(&self, id: &str) -> Option<f64> {
        let configured = self.settings.prices.get(id).copied();
        configured.or_else(|| Some(Endpoint::find(id)?.price))
    }

    /// Whether the server is to stop.
    pub fn is_stopping(&self) -> bool {
        *self.settings.stop.borrow()
    }

    /// Ends once the server is to stop.
    pub async fn stopping(&self) {
        if self.settings.stop.clone().wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await; // whoever could say so has gone
        }
    }

    /// Does `work` beside everything else; [`App::settle`] waits for it.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut last = self.last.lock().expect("nothing panics while it is held");
        while last.try_join_next().is_some() {}
        last.spawn(work);
    }

    /// Waits for what must not be cut off, as cancelling what nobody waits for any more.
    pub async fn settle(&self) {
        let last = std::mem::take(&mut *self.last.lock().expect("nothing panics while it is held"));
        last.join_all().await;
    }

    /// Where this server is known to be.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        let public = self.settings.public_url.as_deref();
        std::iter::once(self.settings.address.as_str()).chain(public).collect()
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        (self.settings.now_ms)()
    }
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

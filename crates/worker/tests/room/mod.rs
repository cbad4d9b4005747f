//! A queue, a store and a worker in one folder; no network and no port.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test uses a part

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zoetrope_api::fal::{Endpoint, parse};
use zoetrope_checkpoint::{Layout, VisionModel};
use zoetrope_engine::pipeline::{Keep, Options};
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_files::{Name, Store};
use zoetrope_jobs::{FileRow, Limits, New, Priority, Queue, Request, State};
use zoetrope_worker::{
    Depth, Engine, Expansion, Models, Residency, Safety, Served, Settings, Worker,
};

/// Where a sender reached the server: nothing listens there, so that whatever were fetched from it would fail.
pub const BASE: &str = "http://127.0.0.1:9";
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Room {
    pub queue: Queue,
    pub store: Store,
    pub folder: TempDir,
    pub depth: Option<VisionModel>,
    pub safety: Safety,
}

pub struct Running {
    pub stop: watch::Sender<bool>,
    pub worker: JoinHandle<()>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.worker.await.unwrap();
    }
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Room {
    pub async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        for name in ["loras", "trainings"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let settings = zoetrope_jobs::Settings {
            url: format!("sqlite://{}?mode=rwc", folder.path().join("queue.sqlite").display()),
            limits: Limits::default(),
            now_ms: Arc::new(now_ms),
        };
        let queue = Queue::open(settings).await.unwrap();
        let store = Store::open(folder.path().join("files").to_str().unwrap(), &[]).unwrap();
        Self { queue, store, folder, depth: None, safety: Safety::Harmless }
    }

    /// A worker with the embedded model, trained at the smallest size that there is, to be quick.
    pub fn work(&self) -> Running {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
        let layout = Layout::locate(&demo, None, None).unwrap();
        let served = Served { layout, resolution: 64 };
        self.work_with(Models { turbo: served.clone(), base: served, edit: None })
    }

    /// A worker with these models.
    pub fn work_with(&self, models: Models) -> Running {
        let device = candle_core::Device::Cpu;
        let depth = self.depth.clone().map(|files| Depth::new(files, &device));
        let options = Options { storage: None, device, keep: Keep::All, packed: None };
        let worker = Worker::new(Settings {
            queue: self.queue.clone(),
            store: self.store.clone(),
            fetcher: Fetcher::new(Rules::default()).unwrap(),
            engine: Engine::networks(Residency::new(models, options, u64::MAX)),
            cache: self.folder.path().join("loras"),
            trainings: self.folder.path().join("trainings"),
            lora_folder: None,
            hub: BASE.into(),
            safety: self.safety.clone(),
            depth,
            expansion: Expansion::default(),
            base_expansion: Expansion::default(),
            chance: Arc::new(|| 1),
            now_ms: Arc::new(now_ms),
            lease: Duration::from_secs(30),
            drain: Duration::ZERO,
        });
        let stop = watch::Sender::new(false);
        Running { worker: tokio::spawn(worker.run(stop.subscribe())), stop }
    }

    /// Stores a file as an upload would be; its address.
    pub async fn upload(&self, file_name: &str, bytes: Vec<u8>) -> String {
        let name = Name::new(file_name);
        let row = FileRow {
            name: name.as_str().into(),
            owner: "local".into(),
            request: None,
            size: bytes.len() as i64,
            created_ms: now_ms(),
            expires_ms: None,
        };
        self.queue.insert_file(&row).await.unwrap();
        self.store.put(&name, bytes.into()).await.unwrap();
        format!("{BASE}/files/{}", name.as_str())
    }

    pub async fn submit(&self, endpoint: &str, input: &Value) -> String {
        let task = parse(Endpoint::find(endpoint).unwrap(), input).unwrap();
        let new = New {
            endpoint: endpoint.into(),
            owner: "local".into(),
            priority: Priority::Normal,
            keep_io: true,
            input: input.to_string(),
            task: serde_json::to_string(&task).unwrap(),
            concurrency_max: 10,
            retry: true,
            start_within_ms: None,
            webhook: None,
            base: BASE.into(),
            unit_price: None,
            trace: None,
        };
        self.queue.submit(new).await.unwrap()
    }

    pub async fn ended(&self, id: &str) -> Request {
        self.until(id, async || {
            self.queue.standing(id).await.unwrap().unwrap().state == State::Done
        })
        .await;
        self.queue.request(id).await.unwrap().unwrap()
    }

    pub async fn until(&self, id: &str, holds: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.lines(id).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn lines(&self, id: &str) -> Vec<String> {
        let lines = self.queue.logs(id, 0, 1000).await.unwrap();
        lines.into_iter().map(|line| line.message).collect()
    }

    pub async fn said(&self, id: &str, beginning: &str) -> bool {
        self.lines(id).await.iter().any(|line| line.starts_with(beginning))
    }
}

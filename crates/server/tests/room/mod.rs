//! A server without a port: its router, its queue and its clock in a test's hands.

#![allow(dead_code, clippy::unwrap_used)] // each test uses what it needs

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::StreamExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt;
use zoetrope_files::Store;
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_gateway::catalogue::Catalogue;
use zoetrope_gateway::{Gateway, House};
use zoetrope_jobs::{Attempt, End, Lease, Limits, Outcome, Queue, Scope};
use zoetrope_server::{App, Settings, app, keys};

pub(crate) const TURBO: &str = "fal-ai/z-image/turbo";

/// What differs from a server on loopback as it comes.
pub(crate) struct Setup {
    pub(crate) keys_required: bool,
    pub(crate) queued_max: i64,
    pub(crate) owner_queued_max: i64,
    pub(crate) concurrency_max: i64,
    pub(crate) upload_bytes_max: u64,
    pub(crate) public_url: Option<String>,
    pub(crate) private: bool,
    pub(crate) catalogue: Catalogue,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            keys_required: false,
            queued_max: 1000,
            owner_queued_max: 1000,
            concurrency_max: 10,
            upload_bytes_max: 1 << 20,
            public_url: None,
            private: true,
            catalogue: Catalogue::standard(),
        }
    }
}

pub(crate) struct Room {
    pub(crate) router: Router,
    pub(crate) app: App,
    pub(crate) queue: Queue,
    pub(crate) store: Store,
    pub(crate) gateway: Gateway,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) folder: TempDir,
    pub(crate) stop: watch::Sender<bool>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// Whether the connection was cut off before the body ended.
    pub(crate) cut_off: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON of each event of a stream.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Room {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let clock = now.clone();
        let now_ms: Arc<dyn Fn() -> i64 + Send + Sync> =
            Arc::new(move || clock.load(Ordering::Relaxed));
        let file = folder.path().join("queue.sqlite");
        let settings = zoetrope_jobs::Settings {
            url: format!("sqlite://{}?mode=rwc", file.display()),
            limits: Limits {
                queued_max: setup.queued_max,
                owner_queued_max: setup.owner_queued_max,
                ..Limits::default()
            },
            now_ms: now_ms.clone(),
        };
        let queue = Queue::open(settings).await.unwrap();
        let store = Store::open(folder.path().join("files").to_str().unwrap(), &[]).unwrap();
        let fetcher = Fetcher::new(Rules { private: setup.private, ..Rules::default() }).unwrap();
        let stop = watch::Sender::new(false);
        let chance = AtomicU64::new(1);
        let house = House {
            queue: queue.clone(),
            store: store.clone(),
            fetcher: fetcher.clone(),
            now_ms: now_ms.clone(),
            chance: Arc::new(move || chance.fetch_add(1, Ordering::Relaxed)),
            keep_ms: 3_600_000,
            roots: Vec::new(),
        };
        let gateway = Gateway::new(house, setup.catalogue).unwrap();
        let app_state = App::open(Settings {
            queue: queue.clone(),
            store: store.clone(),
            fetcher,
            gateway: gateway.clone(),
            address: "http://127.0.0.1:7860".into(),
            public_url: setup.public_url,
            keys_required: setup.keys_required,
            upload_bytes_max: setup.upload_bytes_max,
            concurrency_max: setup.concurrency_max,
            prices: HashMap::from([("fal-ai/z-image/base".to_string(), 0.5)]),
            draws_at: None,
            now_ms,
            keep_ms: 30 * 86_400_000,
            stop: stop.subscribe(),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        })
        .await
        .unwrap();
        let router = app(app_state.clone());
        Self { router, app: app_state, queue, store, gateway, now, folder, stop }
    }

    pub(crate) fn later(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sends `body` with headers as `name: value`.
    pub(crate) async fn send(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:7860");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await;
        let (parts, body) = response.unwrap().into_parts();
        let (mut bytes, mut cut_off, mut body) = (Vec::new(), false, body.into_data_stream());
        while let Some(part) = body.next().await {
            match part {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(_) => cut_off = true,
            }
            assert!(bytes.len() <= 64 << 20, "an endless answer");
        }
        Answer { status: parts.status, headers: parts.headers, bytes, cut_off }
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, uri: &str, body: Value) -> Answer {
        self.send("POST", uri, &[], body.to_string()).await
    }

    /// Submits a prompt; the request's id.
    pub(crate) async fn submit(&self) -> String {
        let answer = self.post(&format!("/queue/{TURBO}"), json!({"prompt": "a house"})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["request_id"].as_str().unwrap().into()
    }

    /// What a worker does first.
    pub(crate) async fn claim(&self) -> Lease {
        self.queue.claim().await.unwrap().expect("something waits")
    }

    /// What a worker does at once.
    pub(crate) async fn work(&self) {
        self.claim().await.finish(Attempt::End(completed())).await.unwrap();
    }

    /// A key and the header that carries it.
    pub(crate) async fn key(&self, scope: Scope, concurrency_max: i64) -> (String, String) {
        let (key, text) = keys::make("test", scope, concurrency_max, 0);
        self.queue.insert_key(&key).await.unwrap();
        (key.id, format!("Key {text}"))
    }
}

pub(crate) fn completed() -> End {
    End {
        outcome: Outcome::Completed,
        status_code: 200,
        response: json!({"images": [], "seed": 1, "prompt": "a house"}).to_string(),
        error: None,
        error_type: None,
        inference_ms: Some(1500),
        billable_units: Some(0.786432),
        flagged: None,
    }
}

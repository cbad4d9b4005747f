//! Whole requests to the server, with its database and its files: uploads in parts, queries, headers, every body. Whatever comes,
//! the answer is none that says the server failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tower::ServiceExt;
use zoetrope_files::Store;
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_gateway::catalogue::Catalogue;
use zoetrope_gateway::{Gateway, House};
use zoetrope_jobs::{Limits, Queue};
use zoetrope_server::{App, Settings, app};

/// Streams and waiting calls have no end here, as nobody draws: only how they begin is looked at.
const PATIENCE: Duration = Duration::from_millis(50);

/// A server without a worker.
struct Site {
    runtime: Runtime,
    router: Router,
    /// What stands for `REQUEST` and `UPLOAD` in a path, which no fuzzer would guess.
    names: [(&'static str, String); 2],
    _folder: tempfile::TempDir,
    /// Dropped, it would tell the server to stop.
    _running: watch::Sender<bool>,
}

thread_local! {
    static SITE: Site = Site::open();
}

/// `data` as `METHOD PATH`, lines of headers, an empty line, a body.
pub fn request(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[][..]),
    };
    let Ok(head) = std::str::from_utf8(head) else { return };
    SITE.with(|site| {
        if let Some(request) = site.read(head, body) {
            let shown = format!("{} {}", request.method(), request.uri());
            let status = site.send(request);
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{shown}");
        }
    });
}

impl Site {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let running = watch::Sender::new(false);
        let router = runtime.block_on(router(&folder, running.subscribe()));
        let mut site = Self {
            runtime,
            router,
            names: [("REQUEST", String::new()), ("UPLOAD", String::new())],
            _folder: folder,
            _running: running,
        };
        let asked = |uri: &str, body: &'static str| {
            Request::post(uri)
                .header("host", "127.0.0.1:7860")
                .body(Body::from(body))
                .expect("it is plain")
        };
        let submitted = site.json(asked("/queue/fal-ai/z-image/turbo", r#"{"prompt":"a"}"#));
        let begun = site.json(asked(
            "/storage/upload/initiate",
            r#"{"file_name":"a.png","content_type":"image/png"}"#,
        ));
        let text =
            |value: &serde_json::Value| value.as_str().expect("the server names it").to_string();
        let upload = text(&begun["upload_url"]);
        site.names[0].1 = text(&submitted["request_id"]);
        site.names[1].1 = upload.rsplit('/').next().unwrap_or_default().into();
        site
    }

    fn json(&self, request: Request<Body>) -> serde_json::Value {
        self.runtime.block_on(async {
            let answer =
                self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
            let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20)
                .await
                .expect("the answer is whole");
            serde_json::from_slice(&bytes).expect("the answer is JSON")
        })
    }

    fn read(&self, head: &str, body: &[u8]) -> Option<Request<Body>> {
        let mut lines = head.lines();
        let (method, path) = lines.next()?.split_once(' ')?;
        let path = self
            .names
            .iter()
            .fold(path.to_string(), |path, (name, value)| path.replace(name, value));
        let mut request = Request::builder().method(method.parse::<Method>().ok()?).uri(path);
        let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", "127.0.0.1:7860");
        }
        let request =
            headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.body(Body::from(body.to_vec())).ok()
    }

    fn send(&self, request: Request<Body>) -> StatusCode {
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request)).await;
            answer.map_or(StatusCode::ACCEPTED, |answer| {
                answer.unwrap_or_else(|never| match never {}).status()
            })
        })
    }
}

async fn router(folder: &tempfile::TempDir, stop: watch::Receiver<bool>) -> Router {
    let _ = rustls::crypto::ring::default_provider().install_default(); // a second thread is too late
    let now_ms: Arc<dyn Fn() -> i64 + Send + Sync> = Arc::new(|| 1_800_000_000_000);
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("queue.sqlite").display());
    let limits = Limits { queued_max: 100, ..Limits::default() };
    let queue = Queue::open(zoetrope_jobs::Settings { url, limits, now_ms: now_ms.clone() })
        .await
        .expect("a database");
    let store =
        Store::open(&folder.path().join("files").display().to_string(), &[]).expect("a folder");
    let fetcher = Fetcher::new(Rules::default()).expect("certificates");
    let house = House {
        queue: queue.clone(),
        store: store.clone(),
        fetcher: fetcher.clone(),
        now_ms: now_ms.clone(),
        chance: Arc::new(|| 7),
        keep_ms: 3_600_000,
        roots: Vec::new(),
    };
    let gateway = Gateway::new(house, Catalogue::standard()).expect("nobody else serves");
    let settings = Settings {
        queue,
        store,
        fetcher,
        gateway,
        address: "http://127.0.0.1:7860".into(),
        public_url: None,
        keys_required: false,
        upload_bytes_max: 1 << 20,
        concurrency_max: 1000,
        prices: HashMap::new(),
        draws_at: None,
        now_ms,
        keep_ms: 86_400_000,
        stop,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
    };
    app(App::open(settings).await.expect("the database answers"))
}

//! A gateway's house without a server, and what a test asks of its providers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use zoetrope_api::Micros;
use zoetrope_api::images::{ImageRequest, Mode, Route, parse_json};
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_files::{Format, Picture, Store, encode};
use zoetrope_gateway::House;
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::catalogue::{Deployment, Protocol, ProviderEntry, Secret};
use zoetrope_gateway::emulate::{Work, carry_out};
use zoetrope_gateway::failure::Failure;
use zoetrope_gateway::plan::{Plan, Unsuited, work_out};
use zoetrope_gateway::price::{Price, Unit};
use zoetrope_gateway::provider::{Outcome, Provider};
use zoetrope_gateway::providers;
use zoetrope_gateway::source::Sources;

/// Our key at all providers: no message may hold it.
pub(crate) const KEY: &str = "id:hush-hush";
/// What is drawn: no message may hold that either.
pub(crate) const PROMPT: &str = "a lighthouse in a storm";

pub(crate) struct Room {
    pub(crate) house: House,
    _folder: TempDir,
}

/// What a provider's entry and a deployment at it differ by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) protocol: Protocol,
    pub(crate) upstream: &'static str,
}

pub(crate) const FAL: At = At { protocol: Protocol::Fal, upstream: "fal-ai/z-image/turbo" };
pub(crate) const FAL_EDIT: At =
    At { protocol: Protocol::Fal, upstream: "fal-ai/z-image/turbo/image-to-image" };
pub(crate) const ALIBABA: At = At { protocol: Protocol::Alibaba, upstream: "z-image-turbo" };
pub(crate) const REPLICATE: At =
    At { protocol: Protocol::Replicate, upstream: "prunaai/z-image-turbo" };
pub(crate) const OPENAI: At = At { protocol: Protocol::OpenAi, upstream: "gpt-image-1" };
pub(crate) const LIKE_OPENAI: At = At { protocol: Protocol::OpenAi, upstream: "z-image" };
pub(crate) const ZOETROPE: At = At { protocol: Protocol::Zoetrope, upstream: "z-image-turbo" };

/// One of each protocol over HTTP.
pub(crate) const ALL: [At; 5] = [FAL, ALIBABA, REPLICATE, LIKE_OPENAI, ZOETROPE];

impl Room {
    pub(crate) async fn new() -> Self {
        Self::with(Rules::default()).await
    }

    pub(crate) async fn with(rules: Rules) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default(); // another test was first
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue.sqlite");
        let queue = zoetrope_jobs::Queue::open(zoetrope_jobs::Settings {
            url: format!("sqlite://{}?mode=rwc", file.display()),
            limits: zoetrope_jobs::Limits::default(),
            now_ms: Arc::new(|| 1_800_000_000_000),
        });
        let dice = AtomicU64::new(0);
        let house = House {
            queue: queue.await.unwrap(),
            store: Store::open(folder.path().join("files").to_str().unwrap(), &[]).unwrap(),
            fetcher: Fetcher::new(rules).unwrap(),
            now_ms: Arc::new(|| 1_800_000_000_000),
            chance: Arc::new(move || dice.fetch_add(1, Ordering::Relaxed)),
            keep_ms: 3_600_000,
            roots: Vec::new(),
        };
        Self { house, _folder: folder }
    }

    /// A provider at `url`, whose pictures may lie on this machine.
    pub(crate) fn provider(&self, at: At, url: &str) -> Arc<dyn Provider> {
        providers::open(&entry(at, url, true), &self.house).unwrap()
    }

    pub(crate) async fn work(&self, request: ImageRequest, timeout: Duration) -> Work {
        let sources = Sources::fetch(&request, &self.house).await.unwrap();
        Work {
            id: "req_1".into(),
            request: Arc::new(request),
            sources: Arc::new(sources),
            caller: Arc::new(caller()),
            deadline: Instant::now() + timeout,
            partials: None,
            store: self.house.store.clone(),
        }
    }

    /// Makes all parts of what `provider` would be asked.
    pub(crate) async fn make(
        &self,
        provider: &dyn Provider,
        at: At,
        request: ImageRequest,
        timeout: Duration,
    ) -> Vec<Result<Outcome, Failure>> {
        let work = self.work(request, timeout).await;
        let plan = plan(provider, at, &work.request, &work.sources).unwrap();
        let parts = plan.parts.clone();
        let done = carry_out(provider, &plan, &work, &parts).await;
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Makes the only part.
    pub(crate) async fn one(&self, at: At, url: &str, body: Value) -> Result<Outcome, Failure> {
        let provider = self.provider(at, url);
        let mut all = self.make(&*provider, at, request(body), Duration::from_secs(5)).await;
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

pub(crate) fn entry(at: At, url: &str, private: bool) -> Arc<ProviderEntry> {
    Arc::new(ProviderEntry {
        name: "theirs".into(),
        title: "Theirs".into(),
        protocol: at.protocol,
        url: Some(url.into()),
        upload_url: (at.protocol == Protocol::Fal).then(|| url.into()),
        key: Some(Secret(KEY.into())),
        calls_per_minute: None,
        concurrency_max: None,
        private,
    })
}

pub(crate) fn deployment(at: At) -> Arc<Deployment> {
    Arc::new(Deployment {
        key: "theirs/z-image-turbo".into(),
        provider: "theirs".into(),
        upstream: at.upstream.into(),
        modes: Mode::ALL.into(),
        price: Some(Price { unit: Unit::Megapixel, amount: Micros(5_000), surcharges: Vec::new() }),
        price_source: None,
        priority: 0,
        weight: 1.0,
        timeout: Duration::from_secs(60),
    })
}

pub(crate) fn plan(
    provider: &dyn Provider,
    at: At,
    request: &ImageRequest,
    sources: &Sources,
) -> Result<Plan, Unsuited> {
    let deployment = deployment(at);
    let abilities = provider.abilities(&deployment, request.mode());
    work_out(request, sources, &deployment, &abilities)
}

pub(crate) fn caller() -> Caller {
    Caller {
        owner: "key1".into(),
        concurrency_max: 10,
        base: "https://ours.example".into(),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        limits: zoetrope_jobs::KeyLimits::default(),
    }
}

/// What `body` asks for, beside a model and a prompt: an edit where it has an image.
pub(crate) fn request(body: Value) -> ImageRequest {
    let mut all = json!({"model": "z-image-turbo", "prompt": PROMPT});
    all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let route = if all.get("image").is_some() { Route::Edits } else { Route::Generations };
    parse_json(all.as_object().unwrap(), route).unwrap()
}

/// A picture of many colours, so that its file is no matter of a few bytes.
pub(crate) fn picture(width: u32, height: u32) -> Picture {
    let pixel = |at: u32| {
        let (x, y) = (at % width, at / width);
        [(x * 7 + y) as u8, (y * 5) as u8, (x ^ y) as u8]
    };
    Picture { width, height, rgb: (0..width * height).flat_map(pixel).collect() }
}

pub(crate) fn file(format: Format, width: u32, height: u32) -> Vec<u8> {
    encode(&picture(width, height), format, None).unwrap()
}

pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    file(Format::Png, width, height)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(bytes))
}

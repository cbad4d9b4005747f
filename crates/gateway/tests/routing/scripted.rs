//! Providers that do what a test tells them, and a gateway to them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use serde_json::Map;
use tempfile::TempDir;
use zoetrope_api::Format;
use zoetrope_api::images::{Form, Handling, ImageRequest, Mode, Pixels, Reply, SizeRule, SizeWish};
use zoetrope_files::Store;
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_gateway::answer::{Answer, Refusal};
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::catalogue::{Catalogue, ConfigError, Deployment, ProviderEntry};
use zoetrope_gateway::failure::{Failure, FailureKind};
use zoetrope_gateway::price::Bill;
use zoetrope_gateway::provider::{Abilities, Call, Content, Made, Outcome, Provider};
use zoetrope_gateway::{Gateway, House};
use zoetrope_jobs::{KeyLimits, Limits, Queue};

/// What a provider does with a call.
pub(crate) enum Step {
    /// It makes the pictures after so long.
    Make(Duration),
    /// It fails.
    Fail(Failure),
}

pub(crate) fn fail(kind: FailureKind) -> Step {
    Step::Fail(Failure::new(kind, "as the script says"))
}

/// More than a test lasts.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// A provider; where its script ends, it makes everything at once.
#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) script: Mutex<VecDeque<Step>>,
    /// First pictures and counts of the calls.
    pub(crate) asked: Mutex<Vec<(u32, u32)>>,
    pub(crate) waiting: AtomicU64,
}

impl Scripted {
    pub(crate) fn then(&self, steps: impl IntoIterator<Item = Step>) {
        self.script.lock().unwrap().extend(steps);
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

const FORMATS: &[Format] = &[Format::Png];
const HANDLING: &[(&str, Handling)] = &[("prompt", Handling::Native), ("seed", Handling::Native)];

impl Provider for Scripted {
    fn abilities(&self, _: &Deployment, _: Mode) -> Abilities {
        Abilities {
            sizes: SizeRule {
                multiple: 16,
                side_min: 64,
                side_max: 2048,
                pixels_min: 4096,
                pixels_max: 1 << 22,
                only: &[],
            },
            count_max: 2,
            formats: FORMATS,
            inputs_max: 1,
            prompt_chars_max: 1000,
            partials: false,
            handling: HANDLING,
            passes_unknown: false,
            bounds: &[],
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push((call.part.first, call.part.count));
            let step = self.script.lock().unwrap().pop_front();
            match step.unwrap_or(Step::Make(Duration::ZERO)) {
                Step::Make(delay) => tokio::time::sleep(delay).await,
                Step::Fail(failure) => return Err(failure),
            }
            let made = |at: u32| Made {
                content: Content::Base64(format!(
                    "{}/{}",
                    call.deployment.key,
                    call.part.first + at
                )),
                format: Format::Png,
                size: call.size,
                seed: call.part.seed.map(|seed| seed + u64::from(at)),
                revised_prompt: None,
            };
            let pictures = (0..call.part.count).map(made).collect();
            Ok(Outcome { pictures, first_byte: Duration::from_millis(1), bill: Bill::Unsaid })
        })
    }

    fn waiting(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { Some(self.waiting.load(Ordering::Relaxed)) })
    }
}

/// A gateway, and what it stands on.
pub(crate) struct Room {
    pub(crate) gateway: Gateway,
    pub(crate) queue: Queue,
    house: House,
    providers: Providers,
    _folder: TempDir,
}

type Providers = Arc<Mutex<HashMap<String, Arc<Scripted>>>>;

/// A gateway whose providers do what a test tells them.
fn gateway(house: &House, configuration: &str, providers: &Providers) -> Gateway {
    let kept = providers.clone();
    let open =
        move |entry: &Arc<ProviderEntry>, _: &House| -> Result<Arc<dyn Provider>, ConfigError> {
            Ok(kept.lock().unwrap().entry(entry.name.clone()).or_default().clone())
        };
    Gateway::with_providers(house.clone(), catalogue(configuration), Box::new(open)).unwrap()
}

/// Three providers of one model, the first the dearest, asked in this order.
pub(crate) const THREE: &str = r#"
    [providers]
    a = { protocol = "openai" }
    b = { protocol = "openai" }
    c = { protocol = "openai" }
    [models.m]
    strategy = "ordered"
    deployments = [
        { provider = "a", price = { unit = "image", dollars = 0.03 } },
        { provider = "b", price = { unit = "image", dollars = 0.02 } },
        { provider = "c", price = { unit = "image", dollars = 0.01 } },
    ]
"#;

pub(crate) fn catalogue(text: &str) -> Catalogue {
    Catalogue::read(&text.parse().unwrap(), &|_| None).unwrap()
}

impl Room {
    pub(crate) async fn new(configuration: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let now_ms: zoetrope_jobs::Clock =
            Arc::new(|| SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as i64);
        let url = format!("sqlite://{}/queue.db?mode=rwc", folder.path().display());
        let limits = Limits::default();
        let settings = zoetrope_jobs::Settings { url, limits, now_ms: now_ms.clone() };
        let queue = Queue::open(settings).await.unwrap();
        let chance = AtomicU64::new(1);
        let house = House {
            queue: queue.clone(),
            store: Store::open(folder.path().join("files").to_str().unwrap(), &[]).unwrap(),
            fetcher: Fetcher::new(Rules::default()).unwrap(),
            now_ms,
            chance: Arc::new(move || chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)),
            keep_ms: 3_600_000,
            roots: Vec::new(),
        };
        let providers = Providers::default();
        let gateway = gateway(&house, configuration, &providers);
        Self { gateway, queue, house, providers, _folder: folder }
    }

    /// Another server on the same database, with the same providers.
    pub(crate) fn beside(&self, configuration: &str) -> Gateway {
        gateway(&self.house, configuration, &self.providers)
    }

    pub(crate) fn provider(&self, name: &str) -> Arc<Scripted> {
        self.providers.lock().unwrap()[name].clone()
    }

    pub(crate) async fn make(&self, request: ImageRequest) -> Result<Answer, Refusal> {
        self.gateway.make(request, caller(), None).await
    }

    /// Who makes the next picture.
    pub(crate) async fn maker(&self) -> String {
        self.make(request("m", 1)).await.unwrap().deployment.provider.clone()
    }
}

pub(crate) fn caller() -> Caller {
    Caller {
        owner: "k1".into(),
        concurrency_max: 10,
        base: "http://127.0.0.1:7860".into(),
        trace: None,
        limits: KeyLimits::default(),
    }
}

pub(crate) fn request(model: &str, count: u32) -> ImageRequest {
    ImageRequest {
        model: model.into(),
        prompt: "a fox".into(),
        negative_prompt: None,
        edit: None,
        size: SizeWish::Exactly(Pixels::new(1024, 1024)),
        count,
        seed: Some(70),
        steps: None,
        guidance_scale: None,
        acceleration: None,
        go_fast: None,
        prompt_expansion: None,
        safety_checker: None,
        controls: Default::default(),
        format: None,
        quality: None,
        user: None,
        extras: Map::new(),
        given: vec!["model".into(), "prompt".into(), "n".into(), "size".into(), "seed".into()],
        reply: Reply { form: Form::Base64, partials: None, strict: false },
    }
}

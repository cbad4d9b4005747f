//! The gateway: a request goes in, pictures come out, whoever made them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use uuid::Uuid;
use zoetrope_api::images::{Code, ImageRequest, Mode, Problem};
use zoetrope_files::Store;
use zoetrope_files::fetch::Fetcher;
use zoetrope_jobs::{Clock, Ledger, Pace, Queue, Whose};

use crate::answer::{Answer, Estimate, Refusal};
use crate::caller::Caller;
use crate::catalogue::{Catalogue, ConfigError, Deployment, ProviderEntry, Target};
use crate::emulate::{self, Work};
use crate::provider::{Abilities, Partial, Provider};
use crate::routing::{self, Candidate, Entry, Gathered, Lane, Purse, Registry, Round};
use crate::source::{Sources, failed};

/// The calls that are learned from: those of four weeks.
const LEARN_MS: i64 = 28 * 86_400_000;

/// What the gateway stands on. Cheap to clone.
#[derive(Clone)]
pub struct House {
    /// Where the local engine's work goes, and where calls are written down.
    pub queue: Queue,
    /// Where pictures lie that are given as addresses.
    pub store: Store,
    /// The door to addresses that users and providers chose.
    pub fetcher: Fetcher,
    /// Milliseconds since 1970.
    pub now_ms: Clock,
    /// Random numbers, each of 64 bits.
    pub chance: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Milliseconds that pictures at our addresses live.
    pub keep_ms: i64,
    /// Certificates (DER) of providers that are trusted besides the system's.
    pub roots: Vec<Vec<u8>>,
}

/// Makes a provider of an entry of the configuration.
pub type Open =
    dyn Fn(&Arc<ProviderEntry>, &House) -> Result<Arc<dyn Provider>, ConfigError> + Send + Sync;

/// Routes requests to providers. Cheap to clone; all clones are one gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    house: House,
    open: Box<Open>,
    /// What requests that begin now are given; those under way keep theirs.
    snapshot: RwLock<Arc<Snapshot>>,
    registry: Registry,
    ledger: Ledger,
    /// Until when it was heard what other servers know of deployments' health.
    heard_ms: AtomicI64,
}

/// The configuration and the providers that were opened by it.
pub(crate) struct Snapshot {
    pub(crate) catalogue: Arc<Catalogue>,
    /// With what each takes at once and in a minute.
    providers: BTreeMap<String, (Arc<dyn Provider>, Arc<Lane>)>,
}

impl Snapshot {
    fn open(catalogue: Catalogue, house: &House, open: &Open) -> Result<Self, ConfigError> {
        let (mut providers, mut mistakes) = (BTreeMap::new(), Vec::new());
        for (name, entry) in &catalogue.providers {
            match open(entry, house) {
                Ok(provider) => {
                    let lane = Arc::new(Lane::of(entry, &house.queue));
                    providers.insert(name.clone(), (provider, lane));
                }
                Err(error) => mistakes.extend(error.mistakes),
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self { catalogue: Arc::new(catalogue), providers }),
            false => Err(ConfigError { mistakes }),
        }
    }

    /// Who is behind `deployment`, and how much they take; every one of a checked catalogue has somebody.
    pub(crate) fn provider(
        &self,
        deployment: &Deployment,
    ) -> Option<&(Arc<dyn Provider>, Arc<Lane>)> {
        self.providers.get(&deployment.provider)
    }
}

impl Gateway {
    /// A gateway to the providers of `catalogue`. Needs a runtime: calls are written down beside the answers.
    pub fn new(house: House, catalogue: Catalogue) -> Result<Self, ConfigError> {
        Self::with_providers(house, catalogue, Box::new(crate::providers::open))
    }

    /// The same with providers that `open` makes, as those of a test.
    pub fn with_providers(
        house: House,
        catalogue: Catalogue,
        open: Box<Open>,
    ) -> Result<Self, ConfigError> {
        let snapshot = RwLock::new(Arc::new(Snapshot::open(catalogue, &house, &open)?));
        let (ledger, registry) = (house.queue.ledger(), Registry::default());
        let heard_ms = AtomicI64::new(0);
        Ok(Self(Arc::new(Inner { house, open, snapshot, registry, ledger, heard_ms })))
    }

    /// From now on requests follow `catalogue`; those under way end as they began. Nothing changes where it has mistakes.
    pub fn replace(&self, catalogue: Catalogue) -> Result<(), ConfigError> {
        let new = Arc::new(Snapshot::open(catalogue, &self.0.house, &self.0.open)?);
        let old = self.snapshot();
        *self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        // What somebody has changed may work now.
        for (_, deployment) in old.catalogue.deployments() {
            let kept = new.catalogue.deployments().any(|(_, other)| other == deployment);
            let entry = |of: &Snapshot| of.catalogue.providers.get(&deployment.provider).cloned();
            if !kept || entry(&old) != entry(&new) {
                self.0.registry.forget(&deployment.key);
            }
        }
        Ok(())
    }

    /// What is in force.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.snapshot().catalogue.clone()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What `deployment` can do in `mode`, for documents; `None` where its provider is in force no more.
    pub fn abilities(&self, deployment: &Deployment, mode: Mode) -> Option<Abilities> {
        let snapshot = self.snapshot();
        let (provider, _) = snapshot.provider(deployment)?;
        Some(provider.abilities(deployment, mode))
    }

    /// Whether `deployment` is asked like the others, and not only where everybody else has failed.
    pub fn is_healthy(&self, deployment: &Deployment) -> bool {
        self.0.registry.deployment(&deployment.key).is_healthy()
    }

    /// Waits until every request that has ended is written down.
    pub async fn settle(&self) {
        self.0.ledger.flush().await;
    }

    /// Learns from the calls of the last weeks, of all nodes, what to expect of deployments that this one has not asked, and tells
    /// the metrics how each does. For a moment now and then, as every minute.
    pub async fn learn(&self) -> zoetrope_jobs::Result<()> {
        let now = (self.0.house.now_ms)();
        let known = self.0.house.queue.calls(now - LEARN_MS, now, Whose::All).await?;
        for (_, deployment) in self.catalogue().deployments() {
            let state = self.0.registry.deployment(&deployment.key);
            let calls = known.iter().find(|calls| calls.deployment == deployment.key);
            let median = calls.and_then(|calls| calls.total.quantile_us(0.5));
            state.learn(median.map(|us| Duration::from_secs_f64(us / 1e6)));
            let label = ("deployment", deployment.key.clone());
            metrics::gauge!("zoetrope_gateway_healthy", &[label])
                .set(f64::from(u8::from(state.is_healthy())));
        }
        Ok(())
    }

    /// Tells the other servers of the database what this one has found out about deployments' health, and hears what they have.
    /// For every second or so.
    pub async fn share(&self) -> zoetrope_jobs::Result<()> {
        let Inner { house, registry, heard_ms, .. } = &*self.0;
        let heard = heard_ms.load(Ordering::Relaxed);
        let until = routing::share(registry, &house.queue, (house.now_ms)(), heard).await?;
        heard_ms.store(until, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the pictures. Dropping the future cancels what is under way. Unfinished pictures go to `partials`, where the
    /// provider shows any.
    pub async fn make(
        &self,
        request: ImageRequest,
        caller: Caller,
        partials: Option<mpsc::Sender<Partial>>,
    ) -> Result<Answer, Refusal> {
        self.make_as(fresh_id(), request, caller, partials).await
    }

    /// The same under an `id` that was told already, from [`fresh_id`].
    pub async fn make_as(
        &self,
        id: String,
        request: ImageRequest,
        caller: Caller,
        partials: Option<mpsc::Sender<Partial>>,
    ) -> Result<Answer, Refusal> {
        let created_ms = (self.0.house.now_ms)();
        let mut entry = Entry::new(&self.0.ledger, &id, &request, &caller, created_ms);
        match self.run(&mut entry, &id, request, caller, partials).await {
            Ok(answer) => {
                entry.completed(&answer);
                Ok(answer)
            }
            Err(problem) => {
                let attempts = entry.notes.attempts();
                entry.refused(&problem);
                Err(Refusal { id: Some(id), problem, attempts })
            }
        }
    }

    async fn run(
        &self,
        entry: &mut Entry<'_>,
        id: &str,
        request: ImageRequest,
        caller: Caller,
        partials: Option<mpsc::Sender<Partial>>,
    ) -> Result<Answer, Problem> {
        let (house, snapshot) = (&self.0.house, self.snapshot());
        let routing = &snapshot.catalogue.routing;
        let target = snapshot.catalogue.resolve(&request.model)?;
        entry.resolved(&target.model.id);
        routing::allowed(&caller, &target)?;
        self.admit(&caller).await?;
        let sources = Arc::new(Sources::fetch(&request, house).await?);
        let candidates = self.candidates(&snapshot, &target, (&request, &caller), &sources).await?;
        let (request, caller) = (Arc::new(request), Arc::new(caller));
        let round = Round {
            work: Work {
                id: id.into(),
                request: request.clone(),
                sources,
                caller: caller.clone(),
                deadline: std::time::Instant::now() + routing.deadline,
                partials,
                store: house.store.clone(),
            },
            routing,
            choice: &target.choice,
            registry: &self.0.registry,
            notes: &entry.notes,
            purse: Purse {
                queue: &house.queue,
                caller: &caller,
                id,
                deadline_ms: (house.now_ms)().saturating_add(routing.deadline.as_millis() as i64),
            },
        };
        let Gathered { pictures, deployment, changes } = round.gather(&candidates).await?;
        let form = request.reply.form;
        let delivered =
            pictures.into_iter().map(|made| emulate::deliver(made, form, &caller, house));
        Ok(Answer {
            id: id.into(),
            pictures: try_join_all(delivered).await?,
            model: target.model,
            deployment,
            requested: request.count,
            attempts: entry.notes.attempts(),
            changes,
            cost: entry.notes.cost(),
            upstream: entry.notes.waited(),
        })
    }

    /// Everybody who could make it and may be paid, in the order in which they are asked; not empty.
    async fn candidates(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        (request, caller): (&ImageRequest, &Caller),
        sources: &Arc<Sources>,
    ) -> Result<Vec<Candidate>, Problem> {
        let mut candidates = routing::candidates(snapshot, target, request, sources)?;
        for candidate in &mut candidates {
            candidate.measure(request, &self.0.registry);
        }
        if caller.limits.budget_micros.is_some() {
            candidates.retain(|candidate| candidate.plan.total().is_some());
            if candidates.is_empty() {
                return Err(routing::unpriced(&target.model.id));
            }
        }
        let known = (snapshot, &self.0.registry);
        Ok(routing::rank(candidates, &target.model, known, &*self.0.house.chance).await)
    }

    /// Counts the request, if its key may make so many.
    async fn admit(&self, caller: &Caller) -> Result<(), Problem> {
        let Some(per_minute) = caller.limits.requests_per_minute else { return Ok(()) };
        let (name, pace) =
            (format!("key:{}", caller.owner), Pace { per_minute, burst: per_minute });
        let wait = self.0.house.queue.take_turn(&name, pace).await.map_err(failed)?;
        let Some(wait) = wait else { return Ok(()) };
        let text = format!("This key may make {per_minute} requests a minute.");
        let wait_ms = wait.as_millis() as u64 + 1;
        Err(Problem { retry_after_ms: Some(wait_ms), ..Problem::new(Code::RateLimited, text) })
    }

    /// What the request would cost, and who would be asked; nobody is.
    pub async fn estimate(
        &self,
        request: &ImageRequest,
        caller: &Caller,
    ) -> Result<Estimate, Refusal> {
        let refused = |problem| Refusal { id: None, problem, attempts: Vec::new() };
        let snapshot = self.snapshot();
        let target = snapshot.catalogue.resolve(&request.model).map_err(refused)?;
        routing::allowed(caller, &target).map_err(refused)?;
        let sources = Arc::new(Sources::fetch(request, &self.0.house).await.map_err(refused)?);
        let candidates = self.candidates(&snapshot, &target, (request, caller), &sources).await;
        let mut candidates = candidates.map_err(refused)?.into_iter();
        let Some(Candidate { plan, .. }) = candidates.next() else {
            return Err(refused(Problem::new(Code::Unavailable, "Nobody serves this model now.")));
        };
        let priced = |other: Candidate| Some((other.plan.deployment.clone(), other.plan.total()?));
        Ok(Estimate {
            model: target.model,
            total: plan.total().unwrap_or_default(),
            alternatives: candidates.filter_map(priced).collect(),
            size: plan.fit.given,
            format: plan.encode.map_or(plan.ask.format, |encode| encode.format),
            deployment: plan.deployment,
            components: plan.components,
            changes: plan.changes,
        })
    }
}

/// What a request is called: `req_` and a UUID of version 7.
pub fn fresh_id() -> String {
    format!("req_{}", Uuid::now_v7().simple())
}

/// Without what the house holds.
impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("catalogue", &self.catalogue()).finish_non_exhaustive()
    }
}

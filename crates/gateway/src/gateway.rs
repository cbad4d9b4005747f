//! The gateway: a request goes in, pictures come out, whoever made them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use uuid::Uuid;
use zoetrope_api::Micros;
use zoetrope_api::images::{Code, ImageRequest, Mode, Problem};
use zoetrope_files::Store;
use zoetrope_files::fetch::Fetcher;
use zoetrope_jobs::{Clock, Queue};

use crate::answer::{Answer, Estimate, Refusal};
use crate::caller::Caller;
use crate::catalogue::{Catalogue, ConfigError, Deployment, ProviderEntry};
use crate::emulate::{self, Work};
use crate::provider::{Abilities, Partial, Provider};
use crate::routing::{self, Candidate, Gathered};
use crate::source::Sources;

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
}

/// The configuration and the providers that were opened by it.
pub(crate) struct Snapshot {
    pub(crate) catalogue: Arc<Catalogue>,
    providers: BTreeMap<String, Arc<dyn Provider>>,
}

impl Snapshot {
    fn open(catalogue: Catalogue, house: &House, open: &Open) -> Result<Self, ConfigError> {
        let (mut providers, mut mistakes) = (BTreeMap::new(), Vec::new());
        for (name, entry) in &catalogue.providers {
            match open(entry, house) {
                Ok(provider) => drop(providers.insert(name.clone(), provider)),
                Err(error) => mistakes.extend(error.mistakes),
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self { catalogue: Arc::new(catalogue), providers }),
            false => Err(ConfigError { mistakes }),
        }
    }

    /// Who is behind `deployment`; every one of a checked catalogue has somebody.
    pub(crate) fn provider(&self, deployment: &Deployment) -> Option<&Arc<dyn Provider>> {
        self.providers.get(&deployment.provider)
    }
}

impl Gateway {
    /// A gateway to the providers of `catalogue`.
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
        Ok(Self(Arc::new(Inner { house, open, snapshot })))
    }

    /// From now on requests follow `catalogue`; those under way end as they began. Nothing changes where it has mistakes.
    pub fn replace(&self, catalogue: Catalogue) -> Result<(), ConfigError> {
        let snapshot = Arc::new(Snapshot::open(catalogue, &self.0.house, &self.0.open)?);
        *self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
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
        Some(snapshot.provider(deployment)?.abilities(deployment, mode))
    }

    /// Whether `deployment` is asked like the others, and not only where everybody else has failed.
    pub fn is_healthy(&self, _deployment: &Deployment) -> bool {
        true
    }

    /// Makes the pictures. Dropping the future cancels what is under way. Unfinished pictures go to `partials`, where the
    /// provider shows any.
    pub async fn make(
        &self,
        request: ImageRequest,
        caller: Caller,
        partials: Option<mpsc::Sender<Partial>>,
    ) -> Result<Answer, Refusal> {
        let id = format!("req_{}", Uuid::now_v7().simple());
        let attempts = Mutex::default();
        let made = self.run(&id, request, caller, partials, &attempts).await;
        made.map_err(|problem| {
            let attempts = attempts.into_inner().unwrap_or_else(PoisonError::into_inner);
            Refusal { id: Some(id), problem, attempts }
        })
    }

    async fn run(
        &self,
        id: &str,
        request: ImageRequest,
        caller: Caller,
        partials: Option<mpsc::Sender<Partial>>,
        attempts: &Mutex<Vec<crate::answer::Attempt>>,
    ) -> Result<Answer, Problem> {
        let begun = Instant::now();
        let (house, snapshot) = (&self.0.house, self.snapshot());
        let target = snapshot.catalogue.resolve(&request.model)?;
        routing::allowed(&caller, &target)?;
        let sources = Arc::new(Sources::fetch(&request, house).await?);
        let candidates = routing::candidates(&snapshot, &target, &request, &sources)?;
        let (request, caller) = (Arc::new(request), Arc::new(caller));
        let work = Work {
            id: id.into(),
            request: request.clone(),
            sources,
            caller: caller.clone(),
            deadline: begun + snapshot.catalogue.routing.deadline,
            partials,
            store: house.store.clone(),
        };
        let gathered = routing::gather(&snapshot, &target, candidates, work, attempts).await?;
        let Gathered { pictures, deployment, changes, cost, upstream } = gathered;
        let form = request.reply.form;
        let delivered =
            pictures.into_iter().map(|made| emulate::deliver(made, form, &caller, house));
        Ok(Answer {
            id: id.into(),
            model: target.model,
            deployment,
            pictures: try_join_all(delivered).await?,
            requested: request.count,
            attempts: std::mem::take(&mut *attempts.lock().unwrap_or_else(PoisonError::into_inner)),
            changes,
            cost,
            upstream,
        })
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
        let sources = Sources::fetch(request, &self.0.house).await.map_err(refused)?;
        let sources = Arc::new(sources);
        let candidates =
            routing::candidates(&snapshot, &target, request, &sources).map_err(refused)?;
        let mut candidates = candidates.into_iter();
        let Some(Candidate { plan, .. }) = candidates.next() else {
            return Err(refused(Problem::new(Code::Unavailable, "Nobody serves this model now.")));
        };
        let total = |components: &[crate::price::Component]| -> Micros {
            components.iter().map(|component| component.total).sum()
        };
        let others = candidates.filter(|other| !other.plan.components.is_empty());
        Ok(Estimate {
            model: target.model,
            total: total(&plan.components),
            alternatives: others
                .map(|other| (other.plan.deployment.clone(), total(&other.plan.components)))
                .collect(),
            size: plan.fit.given,
            format: plan.encode.map_or(plan.ask.format, |encode| encode.format),
            deployment: plan.deployment,
            components: plan.components,
            changes: plan.changes,
        })
    }
}

/// Without what the house holds.
impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("catalogue", &self.catalogue()).finish_non_exhaustive()
    }
}

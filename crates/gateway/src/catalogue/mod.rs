//! Which models there are, who serves them, and how one is chosen: a snapshot of the configuration, replaced as a whole when
//! that is read again.

mod about;
mod config;
mod error;
mod resolve;
mod section;
mod standard;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zoetrope_api::images::{About, Example, Mode, Pixels};

use crate::price::Price;

pub use error::{ConfigError, Mistake};
pub(crate) use resolve::matches;
pub use standard::LOCAL;

/// What the configuration says. Every reference in it was checked: deployments name providers that are there, aliases models.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// By name, which is the prefix that forces one.
    pub providers: BTreeMap<String, Arc<ProviderEntry>>,
    /// In the order of the configuration, which is that of lists.
    pub models: Vec<Arc<Model>>,
    /// Names of models that are none, in the order in which they are tried: exact ones first, then patterns.
    pub aliases: Vec<Alias>,
    /// How far the router goes.
    pub routing: Routing,
}

/// How far the router goes before it gives up, whatever the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// From the arrival of a request to its answer.
    pub deadline: Duration,
    /// Deployments that are tried for one request.
    pub deployments_max: usize,
    /// Whether somebody else is asked where a provider refused what was to be drawn; their thresholds differ.
    pub policy_elsewhere: bool,
    /// How long the first call may take before the next deployment is asked beside it; the first to answer counts. Both may
    /// have to be paid for.
    pub hedge_after: Option<Duration>,
    /// One of so many requests goes to the deployment that was asked least, so that all are measured; 0 for none.
    pub explore_one_in: u64,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(600),
            deployments_max: 3,
            policy_elsewhere: true,
            hedge_after: None,
            explore_one_in: 50,
        }
    }
}

/// A model, whoever serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// A slug in lower case, as `z-image-turbo`.
    pub id: String,
    /// As people write it.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Who made it, as `alibaba`.
    pub owned_by: String,
    /// As `z-image`.
    pub family: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Whether it may be asked for.
    pub status: Status,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What people say about it.
    pub about: About,
    /// Prompts that show what it does.
    pub examples: Vec<Example>,
    /// The largest picture.
    pub size_max: Pixels,
    /// Who serves it, in the order of the configuration.
    pub deployments: Vec<Arc<Deployment>>,
    /// How one of them is chosen.
    pub strategy: Strategy,
}

/// Whether a model may be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It may.
    #[default]
    Active,
    /// It is switched off.
    Disabled,
}

/// A model at a provider. One that draws and edits under two ids there is two of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// `provider/slug`, by which it is forced; one of its kind.
    pub key: String,
    /// The name of the provider's entry.
    pub provider: String,
    /// What the provider calls the model, as `fal-ai/z-image/turbo`.
    pub upstream: String,
    /// What it does.
    pub modes: Vec<Mode>,
    /// What it costs; where that is not known, keys with a budget may not use it.
    pub price: Option<Price>,
    /// The page that says so.
    pub price_source: Option<String>,
    /// Deployments of a lower number are tried first.
    pub priority: u32,
    /// Its share among those of its priority, where the strategy is weighted.
    pub weight: f64,
    /// How long one call may take.
    pub timeout: Duration,
}

/// A provider and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderEntry {
    /// As `fal`.
    pub name: String,
    /// As people write it: `fal.ai`.
    pub title: String,
    /// Which protocol it speaks.
    pub protocol: Protocol,
    /// Where it is, without a slash at the end; the local engine is nowhere.
    pub url: Option<String>,
    /// Where files that are too large for a request are uploaded, by a protocol that has such a place.
    pub upload_url: Option<String>,
    /// What it knows us by.
    pub key: Option<Secret>,
    /// Calls a minute that it takes; we keep below.
    pub calls_per_minute: Option<u32>,
    /// Calls at once.
    pub concurrency_max: Option<u32>,
    /// Whether its pictures may lie at addresses of this machine and its network.
    pub private: bool,
}

/// Which protocol a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Our own queue.
    Local,
    /// fal's queue.
    Fal,
    /// Alibaba Model Studio's, also called DashScope.
    Alibaba,
    /// Replicate's predictions.
    Replicate,
    /// OpenAI's Images API, whoever serves it.
    OpenAi,
    /// Ours, on another machine.
    Zoetrope,
}

/// A name that stands for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// A name, or a pattern in which `*` stands for any text.
    pub pattern: String,
    /// The id of a model, or the key of a deployment.
    pub target: String,
    /// Whether it is told in lists.
    pub listed: bool,
}

/// How a deployment is chosen among those that can.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Strategy {
    /// Our own engine while its queue is no longer than this, then the others as [`Strategy::Balanced`].
    LocalFirst {
        /// Requests that may wait.
        waiting_max: u64,
    },
    /// By chance, weighted by price, latency and success.
    #[default]
    Balanced,
    /// The lowest estimate.
    Cheapest,
    /// The lowest expected latency.
    Fastest,
    /// By chance, weighted as configured.
    Weighted,
    /// In the order of the configuration.
    Ordered,
    /// One after the other.
    RoundRobin,
}

/// What a name in a request means.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The model.
    pub model: Arc<Model>,
    /// Which of its deployments may serve it.
    pub choice: Choice,
}

/// Which deployments of a model may serve a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// Any.
    Any,
    /// Those of this provider; nobody else is tried.
    Provider(String),
    /// This one, by its key; nobody else is tried, and another mode is an error.
    Deployment(Arc<Deployment>),
}

/// A key that is in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

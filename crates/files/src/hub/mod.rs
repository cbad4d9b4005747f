//! Models from the Hugging Face hub, in the cache that its own clients use: `blobs/`, `snapshots/`, `refs/`.
//!
//! [`find`] looks, [`plan`] asks the hub and says what a download will cost, [`pull`] downloads. A download is resumed where
//! it broke off, in this process or a later one; every file is verified before it gets its name; the locks are those of
//! Python's `huggingface_hub`, so that both may work on one cache at the same time.

mod cache;
mod client;
mod error;
mod id;
mod known;
mod plan;
mod pull;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use cache::{Entry, Extent, find, find_part, list, remove};
pub use error::{Error, Result};
pub use id::{MAIN, Repo};
pub use known::{
    DEPTH_NETWORKS, KNOWN, Repackaging, SAFETY_CHECKERS, VisionRepository, is_vision,
    repackaging_of, vision_repository,
};
pub use plan::{File, Part, Plan, gigabytes, plan, plan_part};
pub use pull::{Event, pull};

/// Where the hub is and where its files go. The binary reads it from the environment, once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the hub without a slash at its end; [`Settings::ENDPOINT`] unless `HF_ENDPOINT` says otherwise.
    pub endpoint: String,
    /// The folder with `models--owner--name` in it, usually `~/.cache/huggingface/hub`.
    pub cache_dir: PathBuf,
    /// Sent to the endpoint, and to no host that it redirects to.
    pub token: Option<Token>,
    /// Address of an HTTP proxy.
    pub proxy: Option<String>,
    /// Whether the network may not be used (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// How many files are downloaded at once.
    pub connections: usize,
    /// How long to wait, how often to try again.
    pub patience: Patience,
}

impl Settings {
    /// The hub itself.
    pub const ENDPOINT: &str = "https://huggingface.co";

    /// The public hub without a token, and this cache.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: Self::ENDPOINT.into(),
            cache_dir: cache_dir.into(),
            token: None,
            proxy: None,
            offline: false,
            // One connection rarely fills a line to the hub's storage; more than a few are throttled.
            connections: 4,
            patience: Patience::default(),
        }
    }
}

/// A secret that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How long to wait, how often to try again.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Attempts that bring nothing new before giving up; one that brought a megabyte starts the count again.
    pub attempts: u32,
    /// Before the second attempt; doubled for each further one, unless the hub names a time (`Retry-After`).
    pub first_wait: Duration,
    /// The longest wait between two attempts, whoever asks for it.
    pub wait_max: Duration,
    /// To connect, and to get the beginning of an answer.
    pub answer: Duration,
    /// Silence within a file's bytes after which the connection counts as broken.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6, // 1 + 2 + 4 + 8 + 16 s: a router's restart is survived
            first_wait: Duration::from_secs(1),
            wait_max: Duration::from_secs(300), // the hub's rate limits count in windows of five minutes
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(30),
        }
    }
}

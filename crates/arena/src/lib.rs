//! Which of several models or settings draws better.
//!
//! A [`Challenge`](zoetrope_jobs::Challenge) is a set of prompts that every [`Contender`] draws from the same seeds; [`drawing`]
//! has their pictures made, by the queue or the gateway as anybody's are. People look at two of them without names ([`pairs`]) and
//! say which is better. [`rating`] makes numbers of the votes, and [`boards`] finds whose they are.
//!
//! Votes are kept as they were cast; every rating is computed from them, so that it can be computed again by anybody.

pub mod boards;
pub mod contender;
pub mod drawing;
mod error;
pub mod export;
pub mod pairs;
pub mod rating;
mod setup;

use std::sync::Arc;

use zoetrope_files::Store;
use zoetrope_gateway::Gateway;
use zoetrope_jobs::{Clock, Queue};

pub use contender::Contender;
pub use error::{Error, Result, Wrong};
pub use setup::Draft;

/// The arena of one database. Cheap to clone.
#[derive(Clone)]
pub struct Arena {
    queue: Queue,
    store: Store,
    gateway: Gateway,
    now_ms: Clock,
    boards: Arc<boards::Kept>,
}

impl Arena {
    /// The arena whose votes `queue` has and whose pictures lie in `store`.
    pub fn new(queue: Queue, store: Store, gateway: Gateway, now_ms: Clock) -> Self {
        Self { queue, store, gateway, now_ms, boards: Arc::default() }
    }

    fn now_ms(&self) -> i64 {
        (self.now_ms)()
    }
}

/// 64 bits that nobody can guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    u64::from_le_bytes(bytes)
}

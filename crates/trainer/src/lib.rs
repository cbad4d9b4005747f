//! Low-rank adapters from a handful of pictures (LoRA, Hu et al., 2021): data, loss, optimisers, checkpoints, report.
//!
//! Knows pictures, captions and tensors, and nothing of requests or flags. The walk from a folder of pictures to a file is
//! [`train`]; what an update does is `learner::Learner::update`.

mod chance;
pub mod data;
mod ema;
mod error;
mod inputs;
mod job;
mod learner;
mod lesson;
pub mod optimizer;
mod pairs;
mod rate;
mod report;
mod run;
pub mod settings;
mod state;
mod timesteps;
mod written;

pub use error::{Error, Result};
pub use job::{Beside, Event, Job, Listener, Samples, Trained, Update};
pub use run::train;
pub use state::Array;

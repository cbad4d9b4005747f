//! Low-rank adapters from a handful of pictures (LoRA, Hu et al., 2021): data, loss, optimisers, checkpoints, report.
//!
//! Knows pictures, captions and tensors, and nothing of requests or flags. The walk from a folder of pictures to a file is
//! [`run::Run`]; what an update does is `run::Run::next`.

mod error;
pub mod settings;

pub use error::{Error, Result};

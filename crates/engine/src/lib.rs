//! A request to pixels: the networks of Z-Image, its sampler, noise, prompts and adapters.
//!
//! Knows tensors and nothing of files' formats, addresses or endpoints. The walk from a prompt to a picture is
//! [`pipeline::Pipeline::generate`].

pub mod config;
pub mod depth;
mod emphasis;
mod error;
pub mod expand;
pub mod guides;
pub mod layers;
pub mod lora;
mod memory;
pub mod networks;
pub mod noise;
mod parts;
pub mod pipeline;
pub mod pixels;
pub mod preview;
pub mod processor;
pub mod prompt;
pub mod safety;
pub mod sampler;
pub mod schedule;
pub mod speed;
mod start;
pub mod training;
mod watch;

pub use error::{Error, Result};
pub use watch::{Interrupt, Unwatched, Watch};
pub use zoetrope_kernels::{Recycling, cuda_devices, device_memory, device_name, open_cuda};

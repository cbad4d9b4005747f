//! Files of weights: safetensors, shards, GGUF and adapters, each dialect reduced to canonical names.
//!
//! A network asks [`Weights`] for a tensor by its published name and shape, and does not know in which of the forms
//! that people have it arrived. It hands out [`zoetrope_kernels::Matrix`], because that is what the kernels consume.

mod adapter;
mod blob;
mod convert;
mod dialects;
mod error;
mod file;
mod layout;
mod packed;
mod storage;
mod vision;
mod weights;

pub use adapter::{Adapter, Delta, Naming};
pub use blob::Blob;
pub use error::{Error, Result};
pub use layout::{Family, Layout};
pub use packed::{PackedEntry, PackedFolder};
pub use storage::Storage;
pub use vision::VisionModel;
pub use weights::{Progress, Role, Table, Weights};

/// Bytes as digits of base 16.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The three networks of Z-Image, as their papers draw them: no device, dtype, file or flag.

pub mod reuse;
pub mod text_encoder;
mod tiny;
pub mod transformer;
pub mod vae;

pub use text_encoder::TextEncoder;
pub use tiny::TinyDecoder;
pub use transformer::Transformer;
pub use vae::Vae;

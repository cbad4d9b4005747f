//! The three networks of Z-Image, as their papers draw them: no device, dtype, file or flag.

pub mod reuse;
pub mod text_encoder;
pub mod transformer;
pub mod vae;

pub use text_encoder::TextEncoder;
pub use transformer::Transformer;
pub use vae::Vae;

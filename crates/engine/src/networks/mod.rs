//! The networks of Z-Image, as their papers draw them: no device, dtype, file or flag.

pub mod reuse;
pub mod text_encoder;
pub mod transformer;
pub mod vae;
pub mod vision;

pub use text_encoder::TextEncoder;
pub use transformer::{ControlNet, Transformer};
pub use vae::Vae;
pub use vision::VisionTower;

//! The networks of Z-Image, and those that look at its pictures, as their papers draw them: no device, dtype, file or flag.

mod depth;
mod dino;
pub mod image_classifier;
pub mod reuse;
pub mod safety_checker;
pub mod siglip;
pub mod text_encoder;
mod tiny;
pub mod transformer;
pub mod vae;
pub mod vision;

pub use depth::{DepthNetwork, Resized, Shape as DepthShape};
pub use dino::Dino;
pub use image_classifier::ImageClassifier;
pub use safety_checker::SafetyChecker;
pub use siglip::VisionTower;
pub use text_encoder::TextEncoder;
pub use tiny::TinyDecoder;
pub use transformer::{ControlNet, Transformer};
pub use vae::Vae;

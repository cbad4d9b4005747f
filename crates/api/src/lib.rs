//! What all rooms speak: values that cannot be wrong, and errors that name a field.
//!
//! Pure: no tensor, file, socket or clock. A value of these types has been checked; code behind the border does not
//! check again.

mod acceleration;
mod control;
mod controls;
pub mod fal;
mod format;
pub mod images;
mod micros;
mod on_flagged;
mod size;
pub mod task;
mod values;

pub use acceleration::Acceleration;
pub use control::ControlSpan;
pub use controls::{Controls, Sampler, Sigmas, Tiling, TilingMode, Variation};
pub use format::Format;
pub use micros::Micros;
pub use on_flagged::OnFlagged;
pub use size::{ImageSize, NAMED_SIZES};
pub use values::{Count, Guidance, Seed, Steps, Strength};

/// A field whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct InvalidField {
    /// The field's name in the field's own terms, as `num_inference_steps`; borders rename it into their dialect.
    pub field: &'static str,
    /// What is wrong with which value, what the limit is, and what to do.
    pub problem: String,
}

impl InvalidField {
    /// An error about `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

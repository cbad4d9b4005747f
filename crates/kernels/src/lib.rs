//! Named operations, each with a plain twin in tensor-library calls.
//!
//! Networks call these and nothing lower. On a device, or for a form of weights, that has no kernel of its own the
//! plain twin runs; it is also the oracle of the tests and the path of gradients.

mod attention;
mod group_norm;
mod linear;
mod norm;
mod rope;
mod swiglu;

pub use attention::{Mask, attention};
pub use group_norm::group_norm;
pub use linear::{FP8_E4M3FN, Matrix, fp8_e4m3fn_from_f32, linear};
pub use norm::{layer_norm, rms_norm};
pub use rope::{rotate_halves, rotate_pairs};
pub use swiglu::swiglu;

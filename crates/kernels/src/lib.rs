//! Named operations, each with a plain twin in tensor-library calls.
//!
//! Networks call these and nothing lower. On a device, or for a form of weights, that has no kernel of its own the
//! plain twin runs; it is also the oracle of the tests. Where gradients are wanted, kernels compute them too.

mod attention;
mod conv;
#[cfg(any(feature = "cuda", test))]
mod cuda;
mod device;
mod gelu;
mod gradient;
mod group_norm;
mod linear;
mod math;
mod memory;
mod norm;
pub mod peak;
mod product;
mod recycle;
mod rope;
mod rows;
mod simd;
mod swiglu;
#[cfg(test)]
mod testing;
mod values;

pub use attention::{Mask, attention};
pub use conv::{Before, Conv, Filter, Wrap, conv2d};
pub use device::{cuda_devices, device_memory, device_name, multiplies_fp8, open_cuda};
pub use gelu::{Gelu, gelu};
pub use group_norm::{Affine, GroupNorm, Statistics, group_norm};
pub use linear::{
    FP8_E4M3FN, Input, Layer, Matrix, PACKING, Precision, Region, Stored, fp8_e4m3fn_from_f32,
    linear, linears,
};
pub use norm::{RmsNorm, add_gated, layer_norm, rms_norm};
pub use recycle::{RECYCLED_BYTES_MAX, Recycling, give_back_memory};
pub use rope::{Pairs, norm_and_rotate};
pub use simd::Level;
pub use swiglu::swiglu;

//! Kernels for NVIDIA's GPUs.
//!
//! `source/` has them in CUDA C++. With the feature `cuda`, nvcc compiles them for every generation of GPUs while this crate is built (`build.rs`),
//! and the result stands in the program; `gpu` launches them, `product` asks cuBLASLt for linear layers, and `operations` is what the named
//! operations call. A launch is a [`call::Call`], which knows no device: tests run the same calls on an emulator (`source/emulator.hpp`), so
//! that every kernel is compared with its plain twin where there is no GPU.

// Without GPUs only tests use these, and not all of them.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) mod call;
#[cfg(all(test, target_os = "linux"))]
mod emulated;
#[cfg(feature = "cuda")]
pub(crate) mod gpu;
#[cfg(feature = "cuda")]
mod operations;
#[cfg(feature = "cuda")]
mod product;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod wanted;

#[cfg(feature = "cuda")]
pub(crate) use operations::{
    Moved, Taps, add_gated, attention, channel_sums, conv2d, group_norm, linears, norm_and_rotate,
    rms_norm, swiglu, to_fp8_rows,
};

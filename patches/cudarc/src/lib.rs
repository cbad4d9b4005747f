//! [cudarc](https://docs.rs/cudarc) with one difference: NVIDIA's libraries are opened when they are first used.
//!
//! candle asks for `dynamic-linking`, and a program linked to libraries does not start where they are missing. Here that
//! word means `dynamic-loading`, so that one program serves machines with and without CUDA. `scripts/build_cuda` puts it in place.

pub use real::*;

//! SwiGLU's elementwise half: `silu(gate) · up` (Shazeer, 2020).

use candle_core::{Result, Tensor};

/// `gate`, `up`: the same shape, which the result has too.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    candle_nn::ops::silu(gate)? * up
}

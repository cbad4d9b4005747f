//! SwiGLU's elementwise half: `silu(gate) · up` (Shazeer, 2020).

use candle_core::{Result, Tensor};

use crate::gradient::{Path, join};
use crate::math::{sigmoid, silu};
use crate::rows::{Source, collect};
use crate::simd::{Level, Simd};
use crate::values::Values;

/// `gate`, `up`: the same shape, which the result has too.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        candle_core::bail!("swiglu: {:?} and {:?} differ", gate.dims(), up.dims());
    }
    let kernel = |gate: &Tensor, up: &Tensor| {
        with_gated(gate, up, |source| collect(Level::best(), source, gate.shape()))
    };
    match Path::of(&[Some(gate), Some(up)]) {
        Path::Kernels => kernel(gate, up),
        Path::Plain => {
            #[cfg(feature = "cuda")]
            if let Some(y) = crate::cuda::swiglu(gate, up)? {
                return Ok(y);
            }
            plain(gate, up)
        }
        Path::Gradients => {
            let held = (gate.detach(), up.detach());
            join(&[gate, up], &kernel(&held.0, &held.1)?, move |g| pull_back(&held, g))
        }
    }
}

/// Gradients of `gate` and `up`: with `σ = 1 / (1 + e^−gate)`, those of the result times `up · σ · (1 + gate · (1 − σ))` and times
/// `silu(gate)`.
fn pull_back((gate, up): &(Tensor, Tensor), gradient: &Tensor) -> Result<Vec<Tensor>> {
    let of_up = swiglu(gate, gradient)?;
    let with = Values::of(gradient);
    let gradient = with.f32()?;
    let of_gate = with_gated(gate, up, |gated| {
        collect(Level::best(), &OfGate { gated, gradient }, gate.shape())
    })?;
    Ok(vec![of_gate, of_up])
}

/// Rows of the gate's gradient.
struct OfGate<'a> {
    gated: &'a Gated<'a>,
    gradient: &'a [f32],
}

impl Source for OfGate<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let row = index * to.len()..(index + 1) * to.len();
        let values = self.gated.gate[row.clone()].iter().zip(&self.gated.up[row.clone()]);
        for ((to, (gate, up)), g) in to.iter_mut().zip(values).zip(&self.gradient[row]) {
            let share = sigmoid(*gate);
            *to = g * up * share * (1.0 + gate * (1.0 - share));
        }
    }
}

/// The plain twin.
fn plain(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Calls `f` with the rows of `silu(gate) · up`.
pub(crate) fn with_gated<R>(
    gate: &Tensor,
    up: &Tensor,
    f: impl FnOnce(&Gated) -> Result<R>,
) -> Result<R> {
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    let (gate, up) = (Values::of(&gate), Values::of(&up));
    f(&Gated { gate: gate.f32()?, up: up.f32()? })
}

/// Rows of `silu(gate) · up`.
pub(crate) struct Gated<'a> {
    gate: &'a [f32],
    up: &'a [f32],
}

impl Source for Gated<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let width = to.len();
        let row = index * width..(index + 1) * width;
        let both = self.gate[row.clone()].iter().zip(&self.up[row]);
        to.iter_mut().zip(both).for_each(|(to, (gate, up))| *to = silu(*gate) * up);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::worst;

    #[test]
    fn every_level_agrees_with_the_plain_twin() {
        for width in [1, 7, 16, 100, 1027] {
            let of = || Tensor::randn(0f32, 3.0, (2, 3, width), &Device::Cpu).unwrap();
            let (gate, up) = (of(), of());
            let want = plain(&gate, &up).unwrap();
            for level in Level::available() {
                let got = with_gated(&gate, &up, |s| collect(level, s, gate.shape())).unwrap();
                assert!(worst(&got, &want) < 1e-5, "{level} {width}");
            }
            assert_eq!(swiglu(&gate, &up).unwrap().dims(), [2, 3, width]);
        }
        let of = |n: usize| Tensor::zeros(n, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(swiglu(&of(2), &of(3)).unwrap_err().to_string().contains("[2] and [3]"));
    }
}

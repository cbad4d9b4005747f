//! Convolutions over images.

use candle_core::Tensor;
use zoetrope_kernels::{Affine, Before, Conv, Filter, Wrap, conv2d};

use super::{GroupNorm, Parameters};
use crate::Result;

/// A square convolution with bias.
pub struct Conv2d {
    filter: Filter,
    bias: Tensor,
    padding: [usize; 2],
}

impl Conv2d {
    /// A kernel of `size` × `size` that keeps the image's size.
    pub fn load(parameters: &Parameters, out: usize, channels: usize, size: usize) -> Result<Self> {
        Self::load_with(parameters, [out, channels, size], [size / 2; 2], 1)
    }

    /// A kernel of 3 × 3 at every second pixel; one pixel is added at the right and at the bottom only.
    pub fn load_halving(parameters: &Parameters, out: usize, channels: usize) -> Result<Self> {
        Self::load_with(parameters, [out, channels, 3], [0, 1], 2)
    }

    /// The same with a pixel added at every side.
    pub fn load_halving_around(
        parameters: &Parameters,
        out: usize,
        channels: usize,
    ) -> Result<Self> {
        Self::load_with(parameters, [out, channels, 3], [1, 1], 2)
    }

    fn load_with(
        parameters: &Parameters,
        [out, channels, size]: [usize; 3],
        padding: [usize; 2],
        stride: usize,
    ) -> Result<Self> {
        let weight = parameters.tensor("weight", &[out, channels, size, size])?;
        let bias = parameters.tensor("bias", &[out])?;
        let filter = Filter::new(&weight, parameters.precision(), stride)?;
        Ok(Self { filter, bias, padding })
    }

    /// Operations for one pixel of the result, a multiply-add being two.
    pub fn operations_a_pixel(&self) -> f64 {
        2.0 * self.filter.values() as f64
    }

    /// A kernel of 3 × 3 without bias.
    pub fn load_without_bias(parameters: &Parameters, out: usize, channels: usize) -> Result<Self> {
        let weight = parameters.tensor("weight", &[out, channels, 3, 3])?;
        let bias = Tensor::zeros(out, weight.dtype(), weight.device())?;
        let filter = Filter::new(&weight, parameters.precision(), 1)?;
        Ok(Self { filter, bias, padding: [1, 1] })
    }

    /// `x`: `[batch, channels, height, width]`.
    pub fn forward(&self, x: &Tensor, wrap: Wrap) -> Result<Tensor> {
        self.run(x, Before::Nothing, None, wrap)
    }

    /// The convolution of `x`, normed and through SiLU, plus `residual`.
    pub fn forward_normed(
        &self,
        norm: &GroupNorm,
        x: &Tensor,
        residual: Option<&Tensor>,
        wrap: Wrap,
    ) -> Result<Tensor> {
        self.run(x, Before::NormSilu(norm.kernel()), residual, wrap)
    }

    /// The convolution of a part of an image, normed by what is known of the whole, and through SiLU.
    pub fn forward_affine(&self, norm: &Affine, x: &Tensor, wrap: Wrap) -> Result<Tensor> {
        self.run(x, Before::AffineSilu(norm), None, wrap)
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.bias.elem_count()
    }

    /// The convolution of `x` at twice its size.
    pub fn forward_doubled(&self, x: &Tensor, wrap: Wrap) -> Result<Tensor> {
        self.run(x, Before::Double, None, wrap)
    }

    fn run(
        &self,
        x: &Tensor,
        before: Before,
        residual: Option<&Tensor>,
        wrap: Wrap,
    ) -> Result<Tensor> {
        let Self { filter, bias, padding } = self;
        let conv = Conv { filter, bias, padding: *padding, wrap };
        Ok(conv2d(x, before, conv, residual)?)
    }
}

//! Convolutions over images.

use candle_core::Tensor;

use super::Parameters;
use crate::Result;

/// A square convolution with bias.
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    padding: usize,
    stride: usize,
}

impl Conv2d {
    /// A kernel of `size` × `size` that keeps the image's size.
    pub fn load(parameters: &Parameters, out: usize, channels: usize, size: usize) -> Result<Self> {
        let weight = parameters.tensor("weight", &[out, channels, size, size])?;
        let bias = parameters.tensor("bias", &[out])?.reshape((1, out, 1, 1))?;
        Ok(Self { weight, bias, padding: size / 2, stride: 1 })
    }

    /// The same kernel without padding, at every second pixel.
    pub fn halving(self) -> Self {
        Self { padding: 0, stride: 2, ..self }
    }

    /// `x`: `[batch, channels, height, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?;
        Ok(y.broadcast_add(&self.bias)?)
    }
}

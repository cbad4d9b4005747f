//! Normalisations with weights.

use candle_core::Tensor;
use zoetrope_kernels::{self as kernels, Input, add_gated, group_norm, layer_norm, rms_norm};

use super::Parameters;
use crate::Result;

/// RMS norm over the last dimension.
pub struct RmsNorm(kernels::RmsNorm);

impl RmsNorm {
    /// A norm over `width` values.
    pub fn load(parameters: &Parameters, width: usize, eps: f64) -> Result<Self> {
        Ok(Self(kernels::RmsNorm { weight: parameters.tensor("weight", &[width])?, eps }))
    }

    /// `x`: `[…, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, &self.0, None)?)
    }

    /// The norm of `x` as a linear layer's input, times `scale`, `[batch, 1, width]`, if there is one.
    pub fn input<'a>(&'a self, x: &'a Tensor, scale: Option<&'a Tensor>) -> Input<'a> {
        Input::Normed { x, norm: &self.0, scale }
    }

    /// `x + gate · norm(y)`; `gate`: `[batch, 1, width]`, absent it is 1.
    pub fn add_gated(&self, x: &Tensor, y: &Tensor, gate: Option<&Tensor>) -> Result<Tensor> {
        Ok(add_gated(x, y, &self.0, gate)?)
    }

    /// The weight and epsilon.
    pub fn kernel(&self) -> &kernels::RmsNorm {
        &self.0
    }
}

/// Layer norm over the last dimension.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// A norm over `width` values.
    pub fn load(parameters: &Parameters, width: usize, eps: f64) -> Result<Self> {
        let weight = parameters.tensor("weight", &[width])?;
        Ok(Self { weight, bias: parameters.tensor("bias", &[width])?, eps })
    }

    /// `x`: `[…, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = layer_norm(x, self.eps)?;
        Ok(normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

/// Group norm over the channels of an image.
pub struct GroupNorm(kernels::GroupNorm);

impl GroupNorm {
    /// The epsilon of every group norm in the autoencoder, which its configuration does not carry.
    const EPS: f64 = 1e-6;

    /// A norm over `channels` in `groups`.
    pub fn load(parameters: &Parameters, channels: usize, groups: usize) -> Result<Self> {
        let weight = parameters.tensor("weight", &[channels])?;
        let bias = parameters.tensor("bias", &[channels])?;
        Ok(Self(kernels::GroupNorm { weight, bias, groups, eps: Self::EPS }))
    }

    /// `x`: `[batch, channels, height, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(group_norm(x, &self.0)?)
    }

    /// The weight, bias and groups.
    pub fn kernel(&self) -> &kernels::GroupNorm {
        &self.0
    }
}

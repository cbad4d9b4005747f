//! Normalisations with weights.

use candle_core::Tensor;
use zoetrope_kernels::{group_norm, rms_norm};

use super::Parameters;
use crate::Result;

/// RMS norm over the last dimension.
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// A norm over `width` values.
    pub fn load(parameters: &Parameters, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: parameters.tensor("weight", &[width])?, eps })
    }

    /// `x`: `[…, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, &self.weight, self.eps)?)
    }
}

/// Group norm over the channels of an image.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
}

impl GroupNorm {
    /// The epsilon of every group norm in the autoencoder, which its configuration does not carry.
    const EPS: f64 = 1e-6;

    /// A norm over `channels` in `groups`.
    pub fn load(parameters: &Parameters, channels: usize, groups: usize) -> Result<Self> {
        let weight = parameters.tensor("weight", &[channels])?;
        Ok(Self { weight, bias: parameters.tensor("bias", &[channels])?, groups })
    }

    /// `x`: `[batch, channels, height, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(group_norm(x, &self.weight, &self.bias, self.groups, Self::EPS)?)
    }
}

//! The layers that networks are made of. Each asks for its weights by name and puts them on the network's device.

mod conv;
mod linear;
mod norm;
mod rope;

use std::fmt::Display;

use candle_core::{Device, Tensor};
use zoetrope_checkpoint::{Storage, Weights};
use zoetrope_kernels::Precision;

pub use conv::Conv2d;
pub use linear::{Delta, Linear};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use rope::{Angles, RopeTable, half_angles};

use crate::Result;

/// Weights, and the device that their layers live on.
#[derive(Clone)]
pub struct Parameters {
    weights: Weights,
    device: Device,
}

impl Parameters {
    /// Layers made from these live on `device`.
    pub fn new(weights: Weights, device: &Device) -> Self {
        Self { weights, device: device.clone() }
    }

    /// The parameters under `part`.
    pub fn at(&self, part: impl Display) -> Self {
        Self { weights: self.weights.at(part), device: self.device.clone() }
    }

    /// A float32 tensor.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(self.weights.tensor(name, shape)?.to_device(&self.device)?)
    }

    /// What layers without a form of their own, as convolutions, are computed in: bfloat16 beside any narrow form.
    pub fn precision(&self) -> Precision {
        match self.weights.storage() {
            Storage::F32 | Storage::F16 => Precision::F32,
            Storage::AsStored if self.weights.form() == Storage::F32 => Precision::F32,
            _ => Precision::Bf16,
        }
    }

    /// The files behind.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Where the layers live.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

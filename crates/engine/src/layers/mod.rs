//! The layers that networks are made of. Each asks for its weights by name and puts them on the network's device.

mod conv;
mod linear;
mod norm;
mod resample;
mod rope;

use std::fmt::Display;

use candle_core::{Device, Tensor};
use zoetrope_checkpoint::{Storage, Weights};
use zoetrope_kernels::Precision;

pub use conv::Conv2d;
pub use linear::{Delta, Linear};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use resample::{bicubic, bilinear};
pub use rope::{Angles, RopeTable, half_angles};

use crate::Result;

/// Weights, and the device that their layers live on.
#[derive(Clone)]
pub struct Parameters {
    weights: Weights,
    device: Device,
    home: Home,
}

/// Where the weights of linear layers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the memory of the device that computes.
    Device,
    /// In main memory, from where they are sent for every use: slower, but a model may be larger than a GPU.
    MainMemory,
}

impl Parameters {
    /// Layers made from these live on `device`.
    pub fn new(weights: Weights, device: &Device) -> Self {
        Self { weights, device: device.clone(), home: Home::Device }
    }

    /// The same with large weights at `home`.
    pub fn kept(self, home: Home) -> Self {
        Self { home, ..self }
    }

    /// The parameters under `part`.
    pub fn at(&self, part: impl Display) -> Self {
        Self { weights: self.weights.at(part), ..self.clone() }
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

//! Depth pictures, as control networks follow them: near things are bright.

mod config;

use candle_core::{Device, Tensor};
use zoetrope_api::{Acceleration, InvalidField};
use zoetrope_checkpoint::{Role, VisionModel, Weights};

use crate::layers::{Parameters, bicubic};
use crate::networks::DepthNetwork;
use crate::pixels::Rgb;
use crate::processor::Processor;
use crate::{Error, Result, Watch, config as configuration, memory};
use config::NetworkConfig;

/// A network that sees depth, with what prepares pictures for it.
pub struct DepthEstimator {
    processor: Processor,
    network: DepthNetwork,
    patch: usize,
    device: Device,
}

/// How many times as long as wide a picture may be. Networks see the shorter side at one size, so that this bounds the memory.
const RATIO_MAX: usize = 4;

impl DepthEstimator {
    /// Reads the network of `files`.
    pub fn open(files: &VisionModel, device: &Device) -> Result<Self> {
        let name = files.config.name();
        let shape =
            configuration::parse::<NetworkConfig>(&name, &files.config.read()?)?.check(&name)?;
        let name = files.preprocessor.name();
        let processor = Processor::parse(&name, &files.preprocessor.read()?)?;
        if processor.crops() {
            let problem = "`do_center_crop` would leave the depth of a picture's edges unknown; set it to false".into();
            return Err(Error::Config { file: name, problem });
        }
        let weights = Weights::open(&files.weights, Role::Depth)?;
        let storage = memory::storage_for(&weights, None, Acceleration::default());
        let home = memory::home_as_it_is("depth network", &weights, storage, device)?;
        let parameters = Parameters::new(weights.with_storage(storage), device).kept(home);
        let network = DepthNetwork::load(&parameters, &shape)?;
        zoetrope_kernels::give_back_memory(); // matrices in the forms that files have
        Ok(Self { processor, network, patch: shape.backbone.patch, device: device.clone() })
    }

    /// What has to be done to a picture before it is looked at.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Refuses pictures that are too long for their width.
    pub fn check(width: usize, height: usize) -> Result<()> {
        let (long, short) = (width.max(height), width.min(height));
        if short > 0 && long <= RATIO_MAX * short {
            return Ok(());
        }
        let problem = format!(
            "of {width}x{height} is longer than {RATIO_MAX} times its width, beyond which no depth is looked for: cut it, or send its \
             depth picture itself"
        );
        Err(InvalidField::new("control picture", problem).into())
    }

    /// The grey depth picture, `width · height` bytes, of a picture of `size`, `(width, height)`, which was `prepared` as
    /// [`DepthEstimator::processor`] says. 255 is the nearest that is to be seen and 0 the farthest.
    pub fn look(
        &self,
        prepared: &Rgb,
        (width, height): (usize, usize),
        watch: &dyn Watch,
    ) -> Result<Vec<u8>> {
        if prepared.width % self.patch != 0 || prepared.height % self.patch != 0 {
            let file = "preprocessor_config.json".into();
            let (wide, tall, patch) = (prepared.width, prepared.height, self.patch);
            let problem = format!(
                "makes pictures of {wide}x{tall}, but the network of config.json sees multiples of {patch}"
            );
            return Err(Error::Config { file, problem });
        }
        let depth = self.look_at(&self.processor.pixels(prepared, &self.device)?, watch)?;
        let depth = bicubic(&depth.unsqueeze(3)?, (height, width))?;
        to_grey(&depth.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)
    }

    /// How near everything in `pixels` is, `[batch, 3, height, width]` as the processor makes them: `[batch, height, width]`.
    pub fn look_at(&self, pixels: &Tensor, watch: &dyn Watch) -> Result<Tensor> {
        self.network.forward(pixels, watch)
    }
}

/// From the least to the greatest value, rounded down, as transformers' pipeline has it. Where all is as near, all is black.
fn to_grey(values: &[f32]) -> Result<Vec<u8>> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotANumber { stage: "the depth network" });
    }
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = if greatest > least { greatest - least } else { 1.0 };
    Ok(values.iter().map(|value| ((value - least) / span * 255.0) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_white_and_what_is_not_a_number_no_depth() {
        assert_eq!(to_grey(&[1.0, 3.0, 2.0]).unwrap(), [0, 255, 127]);
        assert_eq!(to_grey(&[2.0, 2.0]).unwrap(), [0, 0]);
        assert!(to_grey(&[2.0, f32::NAN]).is_err());
    }

    #[test]
    fn long_pictures_are_refused_before_anything_is_computed() {
        assert!(DepthEstimator::check(400, 100).is_ok() && DepthEstimator::check(1, 1).is_ok());
        let message = DepthEstimator::check(100, 401).unwrap_err().to_string();
        assert!(message.contains("100x401") && message.contains("4 times"), "{message}");
        assert!(DepthEstimator::check(0, 1).is_err());
    }
}

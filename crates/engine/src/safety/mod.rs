//! A look at finished pictures: whether somebody might rather not see them.
//!
//! Two networks serve: a ViT that was trained to tell such pictures from others, and the CLIP model with concepts that Stable
//! Diffusion came with. Which of them a folder holds, its configuration says.

mod config;

use candle_core::{Device, Tensor};
use zoetrope_api::Acceleration;
use zoetrope_checkpoint::{Role, VisionModel, Weights};

use crate::layers::Parameters;
use crate::networks::vision::Sizes;
use crate::networks::{ImageClassifier, SafetyChecker};
use crate::pixels::Rgb;
use crate::processor::Processor;
use crate::{Error, Result, Watch, config as configuration, memory};
use config::{Config, NetworkConfig};

/// A network that finds pictures unsafe, with what prepares pictures for it.
pub struct Checker {
    processor: Processor,
    network: Network,
    sizes: Sizes,
    device: Device,
}

enum Network {
    /// Labels, and which of them are of unsafe pictures.
    Classifier {
        network: ImageClassifier,
        labels: Vec<bool>,
    },
    Concepts(SafetyChecker),
}

/// What was found in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Whether it is unsafe.
    pub is_unsafe: bool,
    /// Probability of an unsafe label; of concepts, the highest score, which is above 0 where one was found.
    pub score: f32,
}

/// Pictures that go through a network together: the most that a request has, in some hundred megabytes.
const AT_ONCE: usize = 8;

impl Checker {
    /// Reads the network of `files`.
    pub fn open(files: &VisionModel, device: &Device) -> Result<Self> {
        let Config { sizes, network } =
            configuration::parse::<NetworkConfig>(&files.config.name(), &files.config.read()?)?
                .check(&files.config.name())?;
        let name = files.preprocessor.name();
        let processor = Processor::parse(&name, &files.preprocessor.read()?)?;
        if processor.output() != (sizes.image, sizes.image) {
            let (width, height) = processor.output();
            let problem = format!(
                "makes pictures of {width}x{height}, but the network of config.json sees {0}x{0}",
                sizes.image
            );
            return Err(Error::Config { file: name, problem });
        }
        let weights = Weights::open(&files.weights, Role::Safety)?;
        let storage = memory::storage_for(&weights, None, Acceleration::default());
        let home = memory::home_as_it_is("safety checker", &weights, storage, device)?;
        let parameters = Parameters::new(weights.with_storage(storage), device).kept(home);
        let network = match network {
            config::Network::Labels(labels) => Network::Classifier {
                network: ImageClassifier::load(&parameters, &sizes, labels.len())?,
                labels,
            },
            config::Network::Concepts { projection } => {
                Network::Concepts(SafetyChecker::load(&parameters, &sizes, projection)?)
            }
        };
        zoetrope_kernels::give_back_memory(); // matrices in the forms that files have
        Ok(Self { processor, network, sizes, device: device.clone() })
    }

    /// What has to be done to a picture before it is looked at.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// What is to be seen in `pictures`, each prepared as [`Checker::processor`] says.
    pub fn look(&self, pictures: &[Rgb], watch: &dyn Watch) -> Result<Vec<Finding>> {
        let mut findings = Vec::with_capacity(pictures.len());
        for some in pictures.chunks(AT_ONCE) {
            let pixels = some.iter().map(|picture| self.processor.pixels(picture, &self.device));
            let pixels = Tensor::cat(&pixels.collect::<Result<Vec<_>>>()?, 0)?;
            findings.extend(self.look_at(&pixels, watch)?);
        }
        Ok(findings)
    }

    /// The same for pixels as the processor makes them, `[batch, 3, height, width]`.
    pub fn look_at(&self, pixels: &Tensor, watch: &dyn Watch) -> Result<Vec<Finding>> {
        match &self.network {
            Network::Classifier { network, labels } => {
                let logits = network.forward(pixels, watch)?;
                watch.stage(&"logits", &logits)?;
                let logits = logits.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
                logits.iter().map(|logits| labelled(logits, labels)).collect()
            }
            Network::Concepts(network) => {
                let scores = network.forward(pixels, watch)?;
                let found = scores.iter().map(|scores| {
                    let score = scores.concepts.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    finite(Finding { is_unsafe: scores.is_unsafe(), score })
                });
                found.collect()
            }
        }
    }

    /// Operations for a picture, a multiply-add being two.
    pub fn operations(&self) -> f64 {
        self.sizes.operations()
    }
}

/// A picture's label is the likeliest one, as transformers' pipeline takes it: the first of those that are equally likely.
fn labelled(logits: &[f32], labels: &[bool]) -> Result<Finding> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - peak).exp()).collect();
    let sum: f32 = powers.iter().sum();
    let of_unsafe = powers.iter().zip(labels).filter(|(_, is_unsafe)| **is_unsafe);
    let score = of_unsafe.map(|(power, _)| power / sum).sum();
    let likeliest = logits.iter().position(|logit| *logit == peak);
    finite(Finding { is_unsafe: likeliest.is_some_and(|label| labels[label]), score })
}

/// An answer that is not a number is none, and must not pass for a harmless picture.
fn finite(finding: Finding) -> Result<Finding> {
    match finding.score.is_finite() {
        true => Ok(finding),
        false => Err(Error::NotANumber { stage: "the safety checker" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_label_decides_and_the_first_of_equals() {
        let labels = [false, true, true];
        let cases = [
            ([2.0, 1.0, 1.9], false, 0.559),
            ([1.0, 2.0, 0.0], true, 0.755),
            ([1.0, 1.0, 1.0], false, 0.667),
        ];
        for (logits, is_unsafe, score) in cases {
            let finding = labelled(&logits, &labels).unwrap();
            assert_eq!(finding.is_unsafe, is_unsafe, "{logits:?}");
            assert!((finding.score - score).abs() < 1e-3, "{logits:?}: {}", finding.score);
        }
    }

    #[test]
    fn what_is_not_a_number_is_no_clean_bill() {
        assert!(labelled(&[f32::NAN, 0.0], &[false, true]).is_err());
        assert!(labelled(&[0.0, f32::NAN], &[false, true]).is_err());
    }
}

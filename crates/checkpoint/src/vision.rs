//! Where the parts of a network that looks at pictures are: a folder in transformers' layout.

use std::path::Path;

use crate::blob::Blob;
use crate::layout::{existing, weights_in};
use crate::{Error, Result};

/// The files of a network that looks at pictures: a safety checker, or one that tells depth.
#[derive(Clone, Debug)]
pub struct VisionModel {
    /// Its weights.
    pub weights: Vec<Blob>,
    /// `config.json`.
    pub config: Blob,
    /// `preprocessor_config.json`.
    pub preprocessor: Blob,
    /// The folder, for messages.
    pub name: String,
}

impl VisionModel {
    /// The safety checker in `folder`.
    pub fn safety_checker(folder: &Path) -> Result<Self> {
        Self::locate(folder, "A safety checker", "safety")
    }

    /// The depth network in `folder`.
    pub fn depth(folder: &Path) -> Result<Self> {
        Self::locate(folder, "A depth network", "depth")
    }

    /// The parts of `what`, which `zoetrope models pull` fetches when it is called `pulled`.
    fn locate(folder: &Path, what: &str, pulled: &str) -> Result<Self> {
        let name = folder.display().to_string();
        let missing = |file: &str| {
            Error::NoPart(format!(
                "{name}: there is no {file}. {what} is a folder with config.json, preprocessor_config.json and \
                 model.safetensors, as `zoetrope models pull {pulled}` fetches it."
            ))
        };
        let file = |file: &str| existing(folder.join(file)).ok_or_else(|| missing(file));
        let (config, preprocessor) = (file("config.json")?, file("preprocessor_config.json")?);
        let weights = weights_in(folder)?;
        if weights.is_empty() {
            return Err(missing("model.safetensors"));
        }
        Ok(Self { weights, config, preprocessor, name })
    }
}

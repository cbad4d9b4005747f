//! Where the parts of a network that looks at pictures are: a folder in transformers' layout.

use std::path::Path;

use crate::blob::Blob;
use crate::layout::{existing, weights_in};
use crate::{Error, Result};

/// The files of an image classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// Its weights.
    pub weights: Vec<Blob>,
    /// `config.json`.
    pub config: Blob,
    /// `preprocessor_config.json`.
    pub preprocessor: Blob,
    /// The folder, for messages.
    pub name: String,
}

impl Classifier {
    /// The parts in `folder`.
    pub fn locate(folder: &Path) -> Result<Self> {
        let name = folder.display().to_string();
        let missing = |what: &str| {
            Error::NoPart(format!(
                "{name}: there is no {what}. A safety checker is a folder with config.json, preprocessor_config.json and \
                 model.safetensors, as `zoetrope models pull safety` fetches it."
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

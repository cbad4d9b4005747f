//! `config.json` of a network that looks at pictures, field for field.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{Defaults, EncoderConfig, WIDTH_MAX, check_range};
use crate::networks::vision::Sizes;
use crate::{Error, Result};

/// What errors call it.
const PART: &str = "safety checker";

/// Names of labels, in any case, that pictures are found unsafe by.
const UNSAFE_LABELS: [&str; 5] = ["nsfw", "unsafe", "porn", "hentai", "explicit"];
/// Labels of one network.
const LABELS_MAX: usize = 1000;

/// The file, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct NetworkConfig {
    model_type: Option<String>,
    #[serde(flatten)]
    vision: EncoderConfig,
    /// Labels by their numbers; transformers' own are two without names.
    #[serde(default)]
    id2label: BTreeMap<String, String>,
    /// CLIP's vision model.
    vision_config: Option<EncoderConfig>,
    projection_dim: Option<usize>,
}

/// What the file describes.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) sizes: Sizes,
    pub(super) network: Network,
}

/// Which network it is.
#[derive(Debug, PartialEq)]
pub(super) enum Network {
    /// A classifier; whether each label is of unsafe pictures.
    Labels(Vec<bool>),
    /// Concepts in a space of so many dimensions.
    Concepts { projection: usize },
}

const VIT: Defaults =
    Defaults { patch: 16, intermediate: Some(3072), eps: 1e-12, activation: "gelu" };
const CLIP: Defaults =
    Defaults { patch: 32, intermediate: Some(3072), eps: 1e-5, activation: "quick_gelu" };

impl NetworkConfig {
    /// Refuses what is not supported; `file` is named in errors.
    pub(super) fn check(self, file: &str) -> Result<Config> {
        let wrong = |problem: String| Error::Config { file: file.into(), problem };
        match self.model_type.as_deref() {
            Some("vit") => {
                let sizes = self.vision.sizes(PART, &VIT)?;
                Ok(Config {
                    sizes,
                    network: Network::Labels(labels(&self.id2label).map_err(wrong)?),
                })
            }
            Some("clip") => {
                let sizes = self.vision_config.unwrap_or_default().sizes(PART, &CLIP)?;
                let projection = self.projection_dim.unwrap_or(512);
                check_range(PART, &[("projection_dim", projection, WIDTH_MAX)])?;
                Ok(Config { sizes, network: Network::Concepts { projection } })
            }
            other => Err(wrong(format!(
                "`model_type` is `{}`; a safety checker is a `vit` classifier, as Falconsai/nsfw_image_detection, or the `clip` one \
                 of Stable Diffusion, as CompVis/stable-diffusion-safety-checker",
                other.unwrap_or("absent")
            ))),
        }
    }
}

/// Which of the labels, in the order of their numbers, are of unsafe pictures.
fn labels(named: &BTreeMap<String, String>) -> Result<Vec<bool>, String> {
    let names: Option<Vec<&String>> =
        (0..named.len().min(LABELS_MAX)).map(|i| named.get(&i.to_string())).collect();
    let found = names.filter(|names| names.len() == named.len()).map(|names| {
        let is_unsafe = |name: &String| UNSAFE_LABELS.contains(&name.to_lowercase().as_str());
        names.into_iter().map(is_unsafe).collect::<Vec<bool>>()
    });
    match found {
        Some(labels) if labels.contains(&true) && labels.contains(&false) => Ok(labels),
        _ => Err(format!(
            "`id2label` is {named:?}; it must number its labels from 0, and one of them must be of unsafe pictures ({})",
            UNSAFE_LABELS.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use zoetrope_kernels::Gelu;

    use super::*;

    fn checked(json: &str) -> Result<Config> {
        crate::config::parse::<NetworkConfig>("config.json", json.as_bytes())?.check("config.json")
    }

    #[test]
    fn published_configurations_are_understood_with_what_they_leave_out() {
        let falconsai = r#"{"architectures": ["ViTForImageClassification"], "encoder_stride": 16, "hidden_act": "gelu", "hidden_size": 768,
            "id2label": {"0": "normal", "1": "nsfw"}, "image_size": 224, "intermediate_size": 3072, "label2id": {"normal": "0", "nsfw": "1"},
            "layer_norm_eps": 1e-12, "model_type": "vit", "num_attention_heads": 12, "num_channels": 3, "num_hidden_layers": 12,
            "patch_size": 16, "qkv_bias": true}"#;
        let config = checked(falconsai).unwrap();
        assert_eq!(config.network, Network::Labels(vec![false, true]));
        assert_eq!((config.sizes.patches(), config.sizes.activation), (196, Gelu::Exact));

        let compvis = r#"{"model_type": "clip", "projection_dim": 768, "vision_config": {"hidden_size": 1024, "intermediate_size": 4096,
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14}}"#;
        let config = checked(compvis).unwrap();
        assert_eq!(config.network, Network::Concepts { projection: 768 });
        assert_eq!((config.sizes.patches(), config.sizes.activation), (256, Gelu::Quick));
    }

    #[test]
    fn what_cannot_find_anything_unsafe_is_refused() {
        for (json, says) in [
            (r#"{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}"#, "id2label"),
            (r#"{"model_type": "vit", "id2label": {"0": "nsfw"}}"#, "id2label"),
            (r#"{"model_type": "vit"}"#, "id2label"),
            (r#"{"model_type": "resnet"}"#, "resnet"),
            (r#"{"model_type": "clip", "vision_config": {"patch_size": 15}}"#, "patch_size"),
            (
                r#"{"model_type": "clip", "vision_config": {"hidden_size": 99999999}}"#,
                "hidden_size",
            ),
        ] {
            let message = checked(json).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}

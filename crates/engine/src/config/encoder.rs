//! The fields that `config.json` has of a vision transformer, whatever looks through it.

use serde::Deserialize;
use zoetrope_kernels::Gelu;

use super::{LAYERS_MAX, WIDTH_MAX, check_range, unsupported};
use crate::Result;
use crate::networks::vision::Sizes;

/// A vision transformer's fields. Those that a file leaves out are what transformers takes for them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct EncoderConfig {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    /// In place of `intermediate_size` in DINOv2's files: how many times as wide as `hidden_size` that is.
    mlp_ratio: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    num_channels: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    qkv_bias: Option<bool>,
}

/// What transformers takes for absent fields.
pub(crate) struct Defaults {
    pub(crate) patch: usize,
    /// Of `intermediate_size`; none where the file has `mlp_ratio` in its place.
    pub(crate) intermediate: Option<usize>,
    pub(crate) eps: f64,
    pub(crate) activation: &'static str,
}

impl EncoderConfig {
    /// The sizes; `part` is named in errors.
    pub(crate) fn sizes(&self, part: &str, defaults: &Defaults) -> Result<Sizes> {
        let name = self.hidden_act.as_deref().unwrap_or(defaults.activation);
        let activation = match name {
            "gelu" => Gelu::Exact,
            "gelu_new" | "gelu_pytorch_tanh" => Gelu::Tanh,
            "quick_gelu" => Gelu::Quick,
            other => {
                return Err(unsupported(part, format!("`hidden_act` `{other}` is not supported")));
            }
        };
        let hidden = self.hidden_size.unwrap_or(768);
        let ratio = self.mlp_ratio.unwrap_or(4);
        let intermediate = self.intermediate_size.or(defaults.intermediate);
        let sizes = Sizes {
            hidden,
            intermediate: intermediate.unwrap_or_else(|| hidden.saturating_mul(ratio)),
            layers: self.num_hidden_layers.unwrap_or(12),
            heads: self.num_attention_heads.unwrap_or(12),
            image: self.image_size.unwrap_or(224),
            patch: self.patch_size.unwrap_or(defaults.patch),
            eps: self.layer_norm_eps.unwrap_or(defaults.eps),
            activation,
        };
        check_range(
            part,
            &[
                ("hidden_size", sizes.hidden, WIDTH_MAX),
                ("intermediate_size", sizes.intermediate, WIDTH_MAX),
                ("num_hidden_layers", sizes.layers, LAYERS_MAX),
                ("num_attention_heads", sizes.heads, sizes.hidden),
                ("image_size", sizes.image, 4096),
                ("patch_size", sizes.patch, sizes.image),
            ],
        )?;
        let wrong = if sizes.hidden % sizes.heads != 0 {
            Some("`hidden_size` is no multiple of `num_attention_heads`".into())
        } else if sizes.image % sizes.patch != 0 {
            Some(format!(
                "`image_size` {} is no multiple of `patch_size` {}",
                sizes.image, sizes.patch
            ))
        } else if self.num_channels.unwrap_or(3) != 3 || !self.qkv_bias.unwrap_or(true) {
            Some("only 3 channels and attention with biases are supported".into())
        } else {
            None
        };
        match wrong {
            Some(problem) => Err(unsupported(part, problem)),
            None => Ok(sizes),
        }
    }
}

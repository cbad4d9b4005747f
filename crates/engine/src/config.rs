//! The configuration files of a model, field for field; each is checked once.
//!
//! Single files carry no configuration. Then everything that shapes tell is read off the tensors, and the rest is
//! what the Z-Image family was published with.

mod control;
mod encoder;
mod vision;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use zoetrope_checkpoint::Weights;

pub use self::control::{ControlConfig, ControlRefiner};
pub(crate) use self::encoder::{Defaults, EncoderConfig};
pub use self::vision::{VisionConfig, VisionProcessor};
use crate::{Error, Result};

/// Reads a configuration; `file` is named in errors.
pub fn parse<T: DeserializeOwned>(file: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| Error::Config {
        file: file.into(),
        problem: format!("cannot be read as a configuration: {e}"),
    })
}

pub(crate) fn unsupported(part: &str, problem: String) -> Error {
    Error::Config { file: format!("{part}/config.json"), problem }
}

/// Widths beyond this are no Z-Image; a lying file must not choose how much is allocated.
pub(crate) const WIDTH_MAX: usize = 1 << 17;
pub(crate) const LAYERS_MAX: usize = 1024;

pub(crate) fn check_range(part: &str, fields: &[(&str, usize, usize)]) -> Result<()> {
    for (name, value, most) in fields {
        if *value == 0 || value > most {
            return Err(unsupported(
                part,
                format!("`{name}` is {value}; it must lie between 1 and {most}"),
            ));
        }
    }
    Ok(())
}

/// `transformer/config.json`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct TransformerConfig {
    pub dim: usize,
    pub n_layers: usize,
    pub n_refiner_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub axes_dims: [usize; 3],
    pub axes_lens: [usize; 3],
    pub cap_feat_dim: usize,
    pub in_channels: usize,
    pub norm_eps: f64,
    pub rope_theta: f64,
    pub t_scale: f64,
    pub qk_norm: bool,
    pub all_patch_size: Vec<usize>,
    pub all_f_patch_size: Vec<usize>,
    pub siglip_feat_dim: Option<usize>,
}

impl TransformerConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Width of the feed-forward layers: `int(dim / 3 · 8)`.
    pub fn ffn_dim(&self) -> usize {
        (self.dim as f64 / 3.0 * 8.0) as usize
    }

    /// Width of the modulation's input: `min(dim, 256)`.
    pub fn adaln_dim(&self) -> usize {
        self.dim.min(256)
    }

    /// Values in a token: a patch of 2 × 2 latents.
    pub fn patch_values(&self) -> usize {
        4 * self.in_channels
    }

    /// Refuses what the network does not implement.
    pub fn check(self) -> Result<Self> {
        const PART: &str = "transformer";
        check_range(
            PART,
            &[
                ("dim", self.dim, WIDTH_MAX),
                ("n_heads", self.n_heads, self.dim),
                ("n_layers", self.n_layers, LAYERS_MAX),
                ("n_refiner_layers", self.n_refiner_layers.max(1), LAYERS_MAX),
                ("cap_feat_dim", self.cap_feat_dim, WIDTH_MAX),
                ("in_channels", self.in_channels, 1024),
                ("axes_lens", self.axes_lens.iter().copied().max().unwrap_or(0), 1 << 20),
            ],
        )?;
        let wrong = if self.siglip_feat_dim.is_some_and(|width| width == 0 || width > WIDTH_MAX) {
            let width = self.siglip_feat_dim.unwrap_or_default();
            Some(format!("`siglip_feat_dim` is {width}; it must lie between 1 and {WIDTH_MAX}"))
        } else if self.all_patch_size != [2] || self.all_f_patch_size != [1] {
            let (p, f) = (&self.all_patch_size, &self.all_f_patch_size);
            Some(format!("patch sizes {p:?} and {f:?} are not supported, only [2] and [1]"))
        } else if !self.qk_norm || self.n_kv_heads != self.n_heads {
            Some("only attention with qk_norm and n_kv_heads = n_heads is supported".into())
        } else if self.dim % self.n_heads != 0
            || self.axes_dims.iter().sum::<usize>() != self.head_dim()
        {
            let (dim, heads) = (self.dim, self.n_heads);
            Some(format!(
                "axes_dims {:?} do not add up to a head of dim {dim} / {heads} heads",
                self.axes_dims
            ))
        } else if self.axes_dims.iter().any(|d| d % 2 != 0) {
            Some(format!(
                "axes_dims {:?} must be even: rotary embedding turns pairs",
                self.axes_dims
            ))
        } else {
            None
        };
        match wrong {
            Some(problem) => Err(unsupported(PART, problem)),
            None => Ok(self),
        }
    }

    /// What the tensors tell, and the published values for the rest.
    pub fn infer(weights: &Weights) -> Result<Self> {
        let size = |name: &str, axis: usize| size_of(weights, "transformer", name, axis);
        let head = size("layers.0.attention.norm_q.weight", 0)?;
        let dim = size("layers.0.attention_norm1.weight", 0)?;
        if head < 8 || head % 8 != 0 {
            return Err(unsupported(
                "transformer",
                format!("heads of {head} values are not supported"),
            ));
        }
        let n_heads = dim / head;
        Self {
            dim,
            n_layers: count(weights, "layers", "attention_norm1.weight"),
            n_refiner_layers: count(weights, "noise_refiner", "attention_norm1.weight"),
            n_heads,
            n_kv_heads: n_heads,
            axes_dims: [head / 4, head / 8 * 3, head / 8 * 3],
            axes_lens: [1536, 512, 512],
            cap_feat_dim: size("cap_embedder.0.weight", 0)?,
            in_channels: size("all_final_layer.2-1.linear.bias", 0)? / 4,
            norm_eps: 1e-5,
            rope_theta: 256.0,
            t_scale: 1000.0,
            qk_norm: true,
            all_patch_size: vec![2],
            all_f_patch_size: vec![1],
            siglip_feat_dim: weights
                .shape("siglip_embedder.0.weight")
                .and_then(|shape| shape.first().copied()),
        }
        .check()
    }
}

/// `text_encoder/config.json`, a Qwen3.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct TextEncoderConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: Option<usize>,
    pub rms_norm_eps: f64,
    pub vocab_size: usize,
    /// Where files up to transformers 4 have it; newer ones have `rope_parameters`.
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    attention_bias: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl TextEncoderConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Base of the rotary frequencies.
    pub fn rope_theta(&self) -> Option<f64> {
        self.rope_theta.or(self.rope_parameters.as_ref().and_then(|p| p.rope_theta))
    }

    /// Refuses what the network does not implement.
    pub fn check(self) -> Result<Self> {
        const PART: &str = "text_encoder";
        check_range(
            PART,
            &[
                ("hidden_size", self.hidden_size, WIDTH_MAX),
                ("intermediate_size", self.intermediate_size, WIDTH_MAX),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS_MAX),
                ("num_attention_heads", self.num_attention_heads, self.hidden_size.max(1)),
                ("num_key_value_heads", self.num_key_value_heads, self.num_attention_heads),
                ("vocab_size", self.vocab_size, 1 << 24),
            ],
        )?;
        check_range(PART, &[("head_dim", self.head_dim(), 4096)])?;
        let rope_type = self.rope_parameters.as_ref().and_then(|p| p.rope_type.as_deref());
        let wrong = if self.num_attention_heads % self.num_key_value_heads != 0 {
            Some("`num_attention_heads` is no multiple of `num_key_value_heads`".into())
        } else if self.head_dim() % 2 != 0 {
            Some(format!("heads of {} values cannot be rotated in halves", self.head_dim()))
        } else if self.attention_bias {
            Some("`attention_bias` is not supported: no Qwen3 has it".into())
        } else if rope_type.is_some_and(|t| t != "default") {
            Some(format!(
                "rope_type `{}` is not supported, only `default`",
                rope_type.unwrap_or_default()
            ))
        } else if self.rope_theta().is_none() {
            Some("there is neither `rope_theta` nor `rope_parameters.rope_theta`".into())
        } else {
            None
        };
        match wrong {
            Some(problem) => Err(unsupported(PART, problem)),
            None => Ok(self),
        }
    }

    /// What the tensors tell, and Qwen3's published values for the rest.
    pub fn infer(weights: &Weights) -> Result<Self> {
        let size = |name: &str, axis: usize| size_of(weights, "text_encoder", name, axis);
        let head_dim = size("layers.0.self_attn.q_norm.weight", 0)?.max(1);
        Self {
            hidden_size: size("embed_tokens.weight", 1)?,
            intermediate_size: size("layers.0.mlp.gate_proj.weight", 0)?,
            num_hidden_layers: count(weights, "layers", "input_layernorm.weight"),
            num_attention_heads: size("layers.0.self_attn.q_proj.weight", 0)? / head_dim,
            num_key_value_heads: size("layers.0.self_attn.k_proj.weight", 0)? / head_dim,
            head_dim: Some(head_dim),
            rms_norm_eps: 1e-6,
            vocab_size: size("embed_tokens.weight", 0)?,
            rope_theta: Some(1e6),
            rope_parameters: None,
            attention_bias: false,
        }
        .check()
    }
}

/// `vae/config.json`, an AutoencoderKL.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct VaeConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    #[serde(default)]
    pub use_quant_conv: bool,
    #[serde(default)]
    pub use_post_quant_conv: bool,
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
}

/// `config.json` of an AutoencoderTiny, as TAEF1.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct TinyConfig {
    pub out_channels: usize,
    pub latent_channels: usize,
    pub decoder_block_out_channels: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    pub upsampling_scaling_factor: usize,
    pub act_fn: String,
    pub scaling_factor: f64,
    #[serde(default)]
    pub shift_factor: f64,
}

impl TinyConfig {
    /// Refuses what the network does not implement, and what does not decode latents of `channels`.
    pub fn check(self, channels: usize) -> Result<Self> {
        const PART: &str = "taef1";
        let widths = &self.decoder_block_out_channels;
        let blocks = self.num_decoder_blocks.iter().copied().max().unwrap_or(0);
        check_range(
            PART,
            &[("decoder_block_out_channels", widths.first().copied().unwrap_or(0), 4096)],
        )?;
        let wrong = if self.latent_channels != channels {
            Some(format!(
                "decodes latents of {} channels; the model's have {channels}",
                self.latent_channels
            ))
        } else if widths.len() != 4 || self.num_decoder_blocks.len() != 4 || blocks > 64 {
            Some("`num_decoder_blocks` and `decoder_block_out_channels` have 4 levels, of at most 64 blocks".into())
        } else if widths.iter().any(|width| *width != widths[0]) {
            Some(format!("`decoder_block_out_channels` {widths:?} are not all the same"))
        } else if (self.out_channels, self.upsampling_scaling_factor) != (3, 2)
            || self.act_fn != "relu"
        {
            Some("is supported with 3 channels, doubling and `relu` alone".into())
        } else {
            None
        };
        match wrong {
            Some(problem) => Err(unsupported(PART, problem)),
            None => Ok(self),
        }
    }
}

fn yes() -> bool {
    true
}

impl VaeConfig {
    /// Refuses what the network does not implement.
    pub fn check(self) -> Result<Self> {
        const PART: &str = "vae";
        check_range(
            PART,
            &[
                ("layers_per_block", self.layers_per_block, 64),
                ("latent_channels", self.latent_channels, 1024),
                ("norm_num_groups", self.norm_num_groups, 4096),
                (
                    "block_out_channels",
                    self.block_out_channels.iter().copied().max().unwrap_or(0),
                    1 << 14,
                ),
            ],
        )?;
        let wrong = if self.in_channels != 3 || self.out_channels != 3 {
            Some(format!(
                "{} and {} image channels are not supported, only 3",
                self.in_channels, self.out_channels
            ))
        } else if self.block_out_channels.len() != 4 {
            let levels = self.block_out_channels.len();
            Some(format!(
                "`block_out_channels` has {levels} levels; Z-Image's latents are an eighth of the picture, 4 levels"
            ))
        } else if self.block_out_channels.iter().any(|c| *c == 0 || c % self.norm_num_groups != 0) {
            let (channels, groups) = (&self.block_out_channels, self.norm_num_groups);
            Some(format!("`block_out_channels` {channels:?} do not divide into {groups} groups"))
        } else if self.use_quant_conv || self.use_post_quant_conv {
            Some("quant convolutions are not supported: Z-Image's autoencoder has none".into())
        } else {
            None
        };
        match wrong {
            Some(problem) => Err(unsupported(PART, problem)),
            None => Ok(self),
        }
    }

    /// What the tensors tell, and the Flux autoencoder's published values for the rest.
    pub fn infer(weights: &Weights) -> Result<Self> {
        let size = |name: &str, axis: usize| size_of(weights, "vae", name, axis);
        let channels =
            (0..4).map(|i| size(&format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0));
        Self {
            in_channels: size("encoder.conv_in.weight", 1)?,
            out_channels: size("decoder.conv_out.weight", 0)?,
            block_out_channels: channels.collect::<Result<_>>()?,
            layers_per_block: count(weights, "encoder.down_blocks.0.resnets", "conv1.weight"),
            latent_channels: size("decoder.conv_in.weight", 1)?,
            norm_num_groups: 32,
            scaling_factor: 0.3611,
            shift_factor: Some(0.1159),
            use_quant_conv: weights.has("quant_conv.weight"),
            use_post_quant_conv: weights.has("post_quant_conv.weight"),
            mid_block_add_attention: true,
        }
        .check()
    }
}

/// `scheduler/scheduler_config.json`, a FlowMatchEulerDiscreteScheduler.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct SchedulerConfig {
    pub num_train_timesteps: f64,
    pub shift: f64,
    pub use_dynamic_shifting: bool,
    pub base_shift: f64,
    pub max_shift: f64,
    pub base_image_seq_len: f64,
    pub max_image_seq_len: f64,
    pub time_shift_type: String,
    shift_terminal: Option<f64>,
    invert_sigmas: bool,
    use_karras_sigmas: bool,
    use_exponential_sigmas: bool,
    use_beta_sigmas: bool,
    stochastic_sampling: bool,
}

impl Default for SchedulerConfig {
    /// The reference's own defaults, which files leave out.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000.0,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256.0,
            max_image_seq_len: 4096.0,
            time_shift_type: "exponential".into(),
            shift_terminal: None,
            invert_sigmas: false,
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            stochastic_sampling: false,
        }
    }
}

impl SchedulerConfig {
    /// A static shift: 3 for Turbo, 6 for the base model.
    pub fn with_shift(shift: f64) -> Self {
        Self { shift, ..Self::default() }
    }

    /// Refuses what the schedule does not implement.
    pub fn check(self) -> Result<Self> {
        let wrong = if self.shift_terminal.is_some()
            || self.invert_sigmas
            || self.use_karras_sigmas
            || self.use_exponential_sigmas
            || self.use_beta_sigmas
            || self.stochastic_sampling
        {
            Some("only plain flow matching with static or dynamic shift is supported".into())
        } else if !matches!(self.time_shift_type.as_str(), "exponential" | "linear") {
            Some(format!(
                "`time_shift_type` is `{}`; it must be `exponential` or `linear`",
                self.time_shift_type
            ))
        } else if !(self.shift > 0.0 && self.shift.is_finite()) {
            Some(format!("`shift` is {}; it must be above 0", self.shift))
        } else if self.num_train_timesteps != 1000.0 {
            Some(format!(
                "`num_train_timesteps` is {}; only 1000 is supported",
                self.num_train_timesteps
            ))
        } else {
            None
        };
        match wrong {
            Some(problem) => {
                Err(Error::Config { file: "scheduler/scheduler_config.json".into(), problem })
            }
            None => Ok(self),
        }
    }
}

fn size_of(weights: &Weights, part: &str, name: &str, axis: usize) -> Result<usize> {
    let size = weights.shape(name).and_then(|shape| shape.get(axis).copied());
    size.ok_or_else(|| Error::Config {
        file: format!("the {part}'s file"),
        problem: format!(
            "`{name}` is missing, so this is no Z-Image {part}, or the file is damaged"
        ),
    })
}

/// How many of `group.0.name`, `group.1.name`, … there are.
fn count(weights: &Weights, group: &str, name: &str) -> usize {
    (0..LAYERS_MAX).take_while(|i| weights.has(&format!("{group}.{i}.{name}"))).count()
}

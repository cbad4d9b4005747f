//! `siglip/config.json` and `siglip_processor/preprocessor_config.json` of Omni and Edit models.

use serde::Deserialize;

use super::{LAYERS_MAX, WIDTH_MAX, check_range, unsupported};
use crate::{Error, Result};

/// The configuration of a vision tower, a Siglip2VisionModel. What the file leaves out is what transformers takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub num_patches: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            num_patches: 256,
            patch_size: 16,
            hidden_act: "gelu_pytorch_tanh".into(),
            layer_norm_eps: 1e-6,
        }
    }
}

impl VisionConfig {
    /// Rows and columns of the grid of learned positions.
    pub fn positions_side(&self) -> usize {
        self.num_patches.isqrt()
    }

    /// Values of a patch.
    pub fn patch_values(&self) -> usize {
        self.num_channels * self.patch_size * self.patch_size
    }

    /// Refuses what the network does not implement.
    pub fn check(self) -> Result<Self> {
        const PART: &str = "siglip";
        check_range(
            PART,
            &[
                ("hidden_size", self.hidden_size, WIDTH_MAX),
                ("intermediate_size", self.intermediate_size, WIDTH_MAX),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS_MAX),
                ("num_attention_heads", self.num_attention_heads, self.hidden_size.max(1)),
                ("num_patches", self.num_patches, 1 << 20),
                ("patch_size", self.patch_size, 1 << 10),
            ],
        )?;
        let wrong = if self.hidden_size % self.num_attention_heads != 0 {
            let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
            Some(format!("`hidden_size` {hidden} does not divide into {heads} heads"))
        } else if self.num_channels != 3 {
            Some(format!("`num_channels` is {}; only 3 is supported", self.num_channels))
        } else if self.positions_side().pow(2) != self.num_patches {
            Some(format!("`num_patches` is {}, which is no square", self.num_patches))
        } else if self.hidden_act != "gelu_pytorch_tanh" {
            Some(format!(
                "`hidden_act` is `{}`; only gelu_pytorch_tanh is supported",
                self.hidden_act
            ))
        } else {
            None
        };
        wrong.map_or(Ok(self), |problem| Err(unsupported(PART, problem)))
    }
}

/// How a picture is prepared for the tower, a Siglip2ImageProcessor. What the file leaves out is what transformers takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the published file's fields")]
pub struct VisionProcessor {
    pub patch_size: usize,
    pub max_num_patches: usize,
    pub resample: u32,
    pub rescale_factor: f64,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    pub do_resize: bool,
    pub do_rescale: bool,
    pub do_normalize: bool,
}

impl Default for VisionProcessor {
    fn default() -> Self {
        Self {
            patch_size: 16,
            max_num_patches: 256,
            resample: 2,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            do_resize: true,
            do_rescale: true,
            do_normalize: true,
        }
    }
}

impl VisionProcessor {
    /// Refuses what is not implemented, and what does not fit `tower`.
    pub fn check(self, tower: &VisionConfig) -> Result<Self> {
        let wrong = if self.patch_size != tower.patch_size {
            Some(format!(
                "`patch_size` is {}, and the tower's {}",
                self.patch_size, tower.patch_size
            ))
        } else if !(1..=1 << 14).contains(&self.max_num_patches) {
            let most = self.max_num_patches;
            Some(format!("`max_num_patches` is {most}; it must lie between 1 and 16384"))
        } else if self.resample != 2 || !(self.do_resize && self.do_rescale && self.do_normalize) {
            Some("only bilinear resampling (`resample` 2) with rescaling and normalisation is supported".into())
        } else if self.image_std.contains(&0.0) {
            Some("`image_std` holds a 0".into())
        } else {
            None
        };
        let file = "siglip_processor/preprocessor_config.json";
        wrong.map_or(Ok(self), |problem| Err(Error::Config { file: file.into(), problem }))
    }

    /// The size, width and height, at which a picture has about as many patches as the tower takes, its shape kept: the reference's
    /// bisection of the scale.
    pub fn size(&self, width: usize, height: usize) -> (usize, usize) {
        const EPS: f64 = 1e-5;
        let patch = self.patch_size as f64;
        let side = |scale: f64, side: usize| (side as f64 * scale / patch).ceil().max(1.0);
        let (mut low, mut high) = (EPS / 10.0, 100.0);
        while high - low >= EPS {
            let scale = f64::midpoint(low, high);
            match side(scale, width) * side(scale, height) <= self.max_num_patches as f64 {
                true => low = scale,
                false => high = scale,
            }
        }
        let pixels = |length: usize| side(low, length) as usize * self.patch_size;
        (pixels(width), pixels(height))
    }
}

//! The vision tower of Omni and Edit models: SigLIP 2, which takes pictures in their own shape (Tschannen et al., 2025).

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use zoetrope_kernels::Gelu;

use super::vision::{CLIP, Layer, Sizes};
use crate::config::{VisionConfig, VisionProcessor};
use crate::layers::{LayerNorm, Linear, Parameters};
use crate::pixels::Rgb;
use crate::{Result, Watch};

/// SigLIP 2's tower for pictures, without the head that pools them.
pub struct VisionTower {
    patch_embedding: Linear,
    position_embedding: Tensor, // [side, side, hidden]
    layers: Vec<Layer>,
    post_layernorm: LayerNorm,
    patch_size: usize,
}

impl VisionTower {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, config: &VisionConfig) -> Result<Self> {
        let (p, hidden, side) = (parameters, config.hidden_size, config.positions_side());
        p.weights().ignore("head.");
        let embeddings = p.at("embeddings");
        let positions = embeddings
            .at("position_embedding")
            .tensor("weight", &[config.num_patches, hidden])?
            .reshape((side, side, hidden))?;
        let sizes = Sizes {
            hidden,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            image: side * config.patch_size,
            patch: config.patch_size,
            eps: config.layer_norm_eps,
            activation: Gelu::Tanh,
        };
        let encoder = p.at("encoder").at("layers");
        let layers = (0..config.num_hidden_layers)
            .into_par_iter()
            .map(|i| Layer::load(&encoder.at(i), &sizes, &CLIP));
        let network = Self {
            patch_embedding: Linear::load(
                &embeddings.at("patch_embedding"),
                hidden,
                config.patch_values(),
            )?,
            position_embedding: positions,
            layers: layers.collect::<Result<_>>()?,
            post_layernorm: LayerNorm::load(
                &p.at("post_layernorm"),
                hidden,
                config.layer_norm_eps,
            )?,
            patch_size: config.patch_size,
        };
        p.weights().finish()?;
        Ok(network)
    }

    /// Features of a picture whose sides are multiples of a patch, `[rows, columns, hidden]`.
    pub fn forward(
        &self,
        picture: &Rgb,
        processor: &VisionProcessor,
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let device = self.position_embedding.device();
        let (rows, columns) = (picture.height / self.patch_size, picture.width / self.patch_size);
        let patches = patches(picture, self.patch_size, processor, device)?;
        let positions = stretched(&self.position_embedding, rows, columns)?;
        let x = (self.patch_embedding.forward(&patches)? + positions)?;
        watch.stage(&"siglip.embeddings", &x)?;
        let mut x = x.unsqueeze(0)?; // [1, tokens, hidden]
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            watch.stage(&format_args!("siglip.layers.{i}"), &x)?;
        }
        let x = self.post_layernorm.forward(&x)?;
        Ok(x.reshape((rows, columns, ()))?)
    }
}

/// The patches of `picture`, `[tokens, side · side · 3]`: row, column, channel fastest; normalised as `processor` says.
pub fn patches(
    picture: &Rgb,
    side: usize,
    processor: &VisionProcessor,
    device: &Device,
) -> Result<Tensor> {
    let (rows, columns) = (picture.height / side, picture.width / side);
    let value = |(i, byte): (usize, &u8)| {
        let scaled = (f64::from(*byte) * processor.rescale_factor) as f32;
        (scaled - processor.image_mean[i % 3]) / processor.image_std[i % 3]
    };
    let values: Vec<f32> = picture.bytes.iter().enumerate().map(value).collect();
    let x = Tensor::from_vec(values, (rows, side, columns, side * 3), device)?;
    Ok(x.transpose(1, 2)?.reshape((rows * columns, side * side * 3))?)
}

/// The grid of learned positions at another size, `[rows · columns, hidden]`: bilinear, and with a wider filter where it shrinks.
fn stretched(grid: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (height, width, hidden) = grid.dims3()?;
    let down = weights(height, rows, grid.device())?; // [rows, height]
    let across = weights(width, columns, grid.device())?; // [columns, width]
    let x = down.matmul(&grid.reshape((height, width * hidden))?)?; // [rows, width · hidden]
    let x = x.reshape((rows, width, hidden))?.transpose(0, 1)?.reshape((width, rows * hidden))?;
    let x = across.matmul(&x)?.reshape((columns, rows, hidden))?; // [columns, rows, hidden]
    Ok(x.transpose(0, 1)?.reshape((rows * columns, hidden))?)
}

/// `[to, from]`: what each value of the result is made of.
fn weights(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let scale = from as f32 / to as f32;
    let row = |i: usize| {
        let centre = (i as f32 + 0.5) * scale - 0.5;
        let raw = (0..from).map(|j| (1.0 - (j as f32 - centre).abs() / scale.max(1.0)).max(0.0));
        let raw: Vec<f32> = raw.collect();
        let sum: f32 = raw.iter().sum();
        raw.into_iter().map(move |weight| weight / sum)
    };
    let values: Vec<f32> = (0..to).flat_map(row).collect();
    Ok(Tensor::from_vec(values, (to, from), device)?)
}

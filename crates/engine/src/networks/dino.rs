//! DINOv2's features of a picture of any size (Oquab et al., 2023; transformers' `Dinov2Backbone`).

use candle_core::Tensor;
use rayon::prelude::*;

use super::vision::{DINO, Layer, Sizes, patches};
use crate::layers::{LayerNorm, Linear, Parameters, bicubic};
use crate::{Result, Watch};

/// The network, without a head.
pub struct Dino {
    cls_token: Tensor,           // [1, 1, hidden], its position added
    position_embeddings: Tensor, // [1, side, side, hidden], of the patches
    patch_embeddings: Linear,
    layer: Vec<Layer>,
    layernorm: LayerNorm,
    sizes: Sizes,
}

impl Dino {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, sizes: &Sizes) -> Result<Self> {
        let (embeddings, hidden) = (parameters.at("embeddings"), sizes.hidden);
        let side = sizes.image / sizes.patch;
        let positions =
            embeddings.tensor("position_embeddings", &[1, 1 + sizes.patches(), hidden])?;
        let cls_token = embeddings.tensor("cls_token", &[1, 1, hidden])?;
        embeddings.weights().ignore("mask_token"); // of training
        let layer = |i| Layer::load(&parameters.at("encoder.layer").at(i), sizes, &DINO);
        let layer = (0..sizes.layers).into_par_iter().map(layer);
        Ok(Self {
            cls_token: (cls_token + positions.narrow(1, 0, 1)?)?,
            position_embeddings: positions
                .narrow(1, 1, side * side)?
                .reshape((1, side, side, hidden))?,
            patch_embeddings: Linear::load_patches(
                &embeddings.at("patch_embeddings.projection"),
                [hidden, 3, sizes.patch],
                true,
            )?,
            layer: layer.collect::<Result<_>>()?,
            layernorm: LayerNorm::load(&parameters.at("layernorm"), hidden, sizes.eps)?,
            sizes: *sizes,
        })
    }

    /// What is seen after each of the layers `taken`, counted from 1, in `pixels`, `[batch, 3, height, width]` with sides that are
    /// multiples of a patch: each normed, without the class token, `[batch, hidden, rows, columns]`.
    pub fn forward(
        &self,
        pixels: &Tensor,
        taken: &[usize],
        watch: &dyn Watch,
    ) -> Result<Vec<Tensor>> {
        let (batch, _, height, width) = pixels.dims4()?;
        let Sizes { hidden, patch, .. } = self.sizes;
        let (rows, columns) = (height / patch, width / patch);
        let positions = bicubic(&self.position_embeddings, (rows, columns))?;
        let patches = self.patch_embeddings.forward(&patches(pixels, patch)?)?;
        let patches = patches.broadcast_add(&positions.reshape((1, rows * columns, hidden))?)?;
        let class = self.cls_token.expand((batch, 1, hidden))?;
        let mut x = Tensor::cat(&[&class, &patches], 1)?; // [batch, 1 + patches, hidden]
        watch.stage(&"embeddings", &x)?;
        let mut features = Vec::with_capacity(taken.len());
        for (i, layer) in self.layer.iter().enumerate() {
            x = layer.forward(&x)?;
            watch.stage(&format_args!("layer.{i}"), &x)?;
            if taken.contains(&(i + 1)) {
                let seen =
                    self.layernorm.forward(&x.narrow(1, 1, rows * columns)?.contiguous()?)?;
                let seen = seen.reshape((batch, rows, columns, hidden))?;
                features.push(seen.permute((0, 3, 1, 2))?);
            }
        }
        Ok(features)
    }
}

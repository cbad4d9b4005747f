//! The transformer: S3-DiT, a single stream of image tokens and caption tokens (Z-Image, 2025).

mod batch;
mod block;
mod control;
mod ends;
mod gradient;
mod omni;

use std::ops::Range;

use candle_core::Tensor;

pub use self::batch::{Batch, Caption, caption_positions, image_positions};
use self::batch::{Item, Part};
use self::block::{At, Block, Modulation, Time, join, load_blocks};
pub use self::control::{ControlNet, Guide};
pub use self::ends::sinusoid;
use self::ends::{FeatureEmbedder, FinalLayer, TimestepEmbedder};
pub use self::gradient::{Gradients, Point};
use self::omni::Vision;
pub use self::omni::{Reference, text_positions, vision_positions};
use super::reuse::Past;
use crate::config::TransformerConfig;
use crate::layers::{Linear, Parameters, RopeTable};
use crate::{Result, Watch};

/// Image and caption are each filled up to a multiple of this many tokens, with learned tokens that are attended to.
pub const SEQ_MULTI_OF: usize = 32;

/// S3-DiT.
pub struct Transformer {
    t_embedder: TimestepEmbedder,
    x_embedder: Linear,
    cap_embedder: FeatureEmbedder,
    x_pad_token: Tensor,   // [1, dim]
    cap_pad_token: Tensor, // [1, dim]
    noise_refiner: Vec<Block>,
    context_refiner: Vec<Block>,
    /// Of Omni and Edit.
    vision: Option<Vision>,
    layers: Vec<Block>,
    final_layer: FinalLayer,
    rope: RopeTable,
    t_scale: f64,
    round_scores: bool,
}

/// What is added to the stream behind some layers, by their numbers.
type Added<'a> = [(usize, &'a Tensor)];

impl Transformer {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, config: &TransformerConfig) -> Result<Self> {
        let p = parameters;
        let modulated =
            |group: &str, count: usize| load_blocks(&p.at(group), count, config, Modulation::load);
        let context = p.at("context_refiner");
        let network = Self {
            t_embedder: TimestepEmbedder::load(&p.at("t_embedder").at("mlp"), config)?,
            x_embedder: Linear::load_precise(
                &p.at("all_x_embedder").at("2-1"),
                config.dim,
                config.patch_values(),
            )?,
            cap_embedder: FeatureEmbedder::load(
                &p.at("cap_embedder"),
                config,
                config.cap_feat_dim,
            )?,
            x_pad_token: p.tensor("x_pad_token", &[1, config.dim])?,
            cap_pad_token: p.tensor("cap_pad_token", &[1, config.dim])?,
            noise_refiner: modulated("noise_refiner", config.n_refiner_layers)?,
            context_refiner: load_blocks(
                &context,
                config.n_refiner_layers,
                config,
                Modulation::none,
            )?,
            vision: Vision::load(p, config)?,
            layers: modulated("layers", config.n_layers)?,
            final_layer: FinalLayer::load(&p.at("all_final_layer").at("2-1"), config)?,
            rope: RopeTable::new(config.rope_theta, config.axes_dims, config.axes_lens),
            t_scale: config.t_scale,
            round_scores: false,
        };
        p.weights().finish()?;
        Ok(network)
    }

    /// Whether batches made from now on round queries and keys to int8 on a processor where weights are narrow, as
    /// [`zoetrope_kernels::Precision::Int8`] says; beside int8 weights in runs they always do.
    pub fn round_scores(&mut self, round: bool) {
        self.round_scores = round;
    }

    /// What the main layers need of a caption's features, `[tokens, cap_feat_dim]`.
    pub fn caption(&self, features: &Tensor, watch: &dyn Watch) -> Result<Caption> {
        self.scene(std::slice::from_ref(features), &[], watch)
    }

    /// The same in networks without a vision branch, where the caption stands behind the picture.
    fn plain_caption(&self, features: &Tensor, watch: &dyn Watch) -> Result<Caption> {
        let x = self.cap_embedder.forward(features)?; // [tokens, dim]
        watch.stage(&"cap_embedded", &x)?;
        let x = pad(&x, &self.cap_pad_token)?; // [padded, dim]
        let positions = caption_positions(x.dim(0)?);
        let place = positions.len() + 1;
        let tokens =
            self.refined(&self.context_refiner, &x, &positions, ("context_refiner", watch))?;
        let after = Some(Part { tokens, positions, clean: 0 });
        Ok(Caption { before: None, after, references: Vec::new(), place })
    }

    /// Pictures of latents `[channels, height, width]`, given as height and width, each with its caption.
    pub fn batch<'a>(
        &self,
        pictures: impl IntoIterator<Item = (&'a Caption, (usize, usize))>,
    ) -> Result<Batch> {
        let mut batch = Batch::new(pictures, &self.rope, self.x_pad_token.device())?;
        for sequence in [&mut batch.images, &mut batch.whole] {
            sequence.round_scores = self.round_scores;
        }
        Ok(batch)
    }

    /// Velocities of the pictures of `batch` at time `t`, 0 (noise) to 1 (image), from their `latents`, each
    /// `[channels, height, width]`; pipelines negate them. With a `past` of this batch, steps that it tells are predicted.
    pub fn forward(
        &self,
        batch: &Batch,
        latents: &[Tensor],
        t: f64,
        past: Option<&mut Past>,
        watch: &dyn Watch,
    ) -> Result<Vec<Tensor>> {
        let time = self.time(t, batch.has_references())?;
        watch.stage(&"t_embedding", &time.noisy)?;
        let patches = self.patches(batch, latents, watch)?;
        let x = batch.unified(&self.refine(batch, &patches, &time, (&[], watch))?)?;
        let mut hints = self.hints(batch, (t, &time), (&patches, &x), watch)?;
        if let Some(past) = past {
            past.keep_apart(hints.is_some());
            let mut through =
                |x, layers| self.through(x, layers, (batch, &time), &mut hints, watch);
            let entered = through(x, 0..1)?;
            let left = match past.predict(t, &entered)? {
                Some(added) => (entered + added)?,
                None => {
                    let left = through(entered.clone(), 1..self.layers.len())?;
                    past.record(t, &entered, &left)?;
                    left
                }
            };
            return self.finish(batch, &left, &time, watch);
        }
        let x = self.through(x, 0..self.layers.len(), (batch, &time), &mut hints, watch)?;
        self.finish(batch, &x, &time, watch)
    }

    /// `x` after main `layers`, and what a control network adds behind them.
    fn through(
        &self,
        mut x: Tensor,
        layers: Range<usize>,
        (batch, time): (&Batch, &Time),
        hints: &mut Option<control::Hints>,
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        for i in layers {
            x = self.layer(i, &x, time, batch, watch)?;
            if let Some(hints) = hints {
                x = hints.after(i, x, (batch, time), watch)?;
            }
        }
        Ok(x)
    }

    /// Main layer `i`.
    fn layer(
        &self,
        i: usize,
        x: &Tensor,
        time: &Time,
        batch: &Batch,
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        self.layers[i].forward(x, Some(time), &batch.whole, &At("layers", i, watch))
    }

    /// The embeddings of time `t` and, where there are pictures without noise, of its end.
    fn time(&self, t: f64, clean: bool) -> Result<Time> {
        let device = self.x_pad_token.device();
        let at = |t: f64| self.t_embedder.forward(&[(t * self.t_scale) as f32], device);
        Ok(Time { noisy: at(t)?, clean: clean.then(|| at(1.0)).transpose()? })
    }

    /// The tokens of all pictures before the noise refiner, `[1, tokens, dim]`: of each item those without noise, then the one that is drawn.
    fn patches(&self, batch: &Batch, latents: &[Tensor], watch: &dyn Watch) -> Result<Tensor> {
        let patches = latents.iter().map(patchify).collect::<Result<Vec<_>>>()?;
        let x = self.x_embedder.forward(&Tensor::cat(&patches, 0)?)?; // [tokens, dim]
        watch.stage(&"x_embedded", &x)?;
        let drawn = split(&x, batch.items.iter().map(Item::tokens))?;
        let mut images = Vec::with_capacity(drawn.len());
        for (item, drawn) in batch.items.iter().zip(&drawn) {
            images.extend(item.caption.references.iter().map(|r| r.tokens.clone()));
            images.push(pad(drawn, &self.x_pad_token)?);
        }
        join(&images)
    }

    /// The pictures' tokens after the noise refiner, with what is `added` behind its layers.
    fn refine(
        &self,
        batch: &Batch,
        patches: &Tensor,
        time: &Time,
        (added, watch): (&Added, &dyn Watch),
    ) -> Result<Tensor> {
        let mut x = patches.clone();
        for (i, block) in self.noise_refiner.iter().enumerate() {
            x = block.forward(&x, Some(time), &batch.images, &At("noise_refiner", i, watch))?;
            for (_, hint) in added.iter().filter(|(place, _)| *place == i) {
                x = (x + *hint)?;
            }
        }
        Ok(x)
    }

    /// Velocities from what leaves the main layers.
    fn finish(
        &self,
        batch: &Batch,
        x: &Tensor,
        time: &Time,
        watch: &dyn Watch,
    ) -> Result<Vec<Tensor>> {
        let parts = split(&x.squeeze(0)?, batch.whole.lengths.iter().copied())?;
        let images = parts
            .iter()
            .zip(&batch.items)
            .map(|(x, item)| x.narrow(0, item.start(), item.tokens()));
        let images = images.collect::<candle_core::Result<Vec<_>>>()?;
        let x = self.final_layer.forward(&join(&images)?, &time.noisy)?; // [1, tokens, 4 · channels]
        watch.stage(&"final_layer", &x)?;
        let parts = split(&x.squeeze(0)?, batch.items.iter().map(Item::tokens))?;
        parts.iter().zip(&batch.items).map(|(x, item)| unpatchify(x, item.grid)).collect()
    }

    /// Channels of latents.
    pub fn channels(&self) -> usize {
        self.final_layer.linear.shape()[0] / 4
    }

    /// Operations of one step for an image of `tokens` and a caption of `caption` padded tokens: linear layers of the
    /// blocks that see them, and attention.
    pub fn operations(&self, tokens: usize, caption: usize) -> f64 {
        self.operations_of(tokens, caption, self.layers.len())
    }

    /// The same of a step that is predicted from those before it.
    pub fn predicted_operations(&self, tokens: usize, caption: usize) -> f64 {
        self.operations_of(tokens, caption, 1)
    }

    fn operations_of(&self, tokens: usize, caption: usize, layers: usize) -> f64 {
        let padded = tokens.next_multiple_of(SEQ_MULTI_OF);
        let of =
            |blocks: &[Block], tokens| blocks.iter().map(|b| b.operations(tokens)).sum::<f64>();
        of(&self.noise_refiner, padded) + of(&self.layers[..layers], padded + caption)
    }

    /// Calls `f` with every linear layer and its published name, as `layers.0.attention.to_q`.
    pub fn visit_linears(&mut self, f: &mut dyn FnMut(String, &mut Linear)) {
        f("t_embedder.mlp.0".into(), &mut self.t_embedder.mlp_0);
        f("t_embedder.mlp.2".into(), &mut self.t_embedder.mlp_2);
        f("all_x_embedder.2-1".into(), &mut self.x_embedder);
        f("cap_embedder.1".into(), &mut self.cap_embedder.linear);
        let mut groups = vec![
            ("noise_refiner", &mut self.noise_refiner),
            ("context_refiner", &mut self.context_refiner),
            ("layers", &mut self.layers),
        ];
        if let Some(vision) = &mut self.vision {
            f("siglip_embedder.1".into(), &mut vision.siglip_embedder.linear);
            groups.push(("siglip_refiner", &mut vision.siglip_refiner));
        }
        for (group, blocks) in groups {
            for (i, block) in blocks.iter_mut().enumerate() {
                block.visit_linears(&mut |name, linear| f(format!("{group}.{i}.{name}"), linear));
            }
        }
        f("all_final_layer.2-1.linear".into(), &mut self.final_layer.linear);
        f("all_final_layer.2-1.adaLN_modulation.1".into(), &mut self.final_layer.modulation);
    }
}

/// `[tokens, dim]` filled up to a multiple of [`SEQ_MULTI_OF`] with `token`, `[1, dim]`.
fn pad(x: &Tensor, token: &Tensor) -> Result<Tensor> {
    let (tokens, dim) = x.dims2()?;
    match tokens.next_multiple_of(SEQ_MULTI_OF) - tokens {
        0 => Ok(x.clone()),
        missing => Ok(Tensor::cat(&[x, &token.expand((missing, dim))?], 0)?),
    }
}

/// `[channels, height, width]` to tokens of 2 × 2 patches, `[tokens, 4 · channels]`: row, column, channel fastest.
fn patchify(latents: &Tensor) -> Result<Tensor> {
    let (channels, height, width) = latents.dims3()?;
    let x = latents.reshape((channels, height / 2, 2, width / 2, 2))?;
    let x = x.permute((1, 3, 2, 4, 0))?; // [rows, columns, 2, 2, channels]
    Ok(x.reshape((height / 2 * (width / 2), 4 * channels))?)
}

/// The inverse: `[tokens, 4 · channels]` to `[channels, height, width]`.
fn unpatchify(x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let channels = x.dim(1)? / 4;
    let x = x.reshape((rows, columns, 2, 2, channels))?;
    let x = x.permute((4, 0, 2, 1, 3))?; // [channels, rows, 2, columns, 2]
    Ok(x.reshape((channels, rows * 2, columns * 2))?)
}

/// The runs of rows of `x`, `[rows, …]`, that are so long.
fn split(x: &Tensor, lengths: impl Iterator<Item = usize>) -> Result<Vec<Tensor>> {
    let mut start = 0;
    let part = |length| {
        let part = x.narrow(0, start, length);
        start += length;
        part
    };
    Ok(lengths.map(part).collect::<candle_core::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn patches_come_back_where_they_were() {
        let x = Tensor::arange(0f32, 3.0 * 4.0 * 6.0, &Device::Cpu)
            .unwrap()
            .reshape((3, 4, 6))
            .unwrap();
        let patches = patchify(&x).unwrap();
        // Row in patch, column in patch, channel fastest.
        let first: Vec<f32> = patches.get(0).unwrap().to_vec1().unwrap();
        assert_eq!(first, [0., 24., 48., 1., 25., 49., 6., 30., 54., 7., 31., 55.]);
        let back = unpatchify(&patches, (2, 3)).unwrap();
        assert_eq!(
            back.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
    }
}

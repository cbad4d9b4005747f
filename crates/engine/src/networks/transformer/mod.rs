//! The transformer: S3-DiT, a single stream of image tokens and caption tokens (Z-Image, 2025).

mod block;
mod gradient;

use std::ops::Range;

use candle_core::Tensor;
use zoetrope_kernels::layer_norm;

use self::block::{At, Block, Modulation, Sequence, join, load_blocks};
pub use self::gradient::{Gradients, Point};
use super::reuse::Past;
use crate::config::TransformerConfig;
use crate::layers::{Linear, Parameters, RmsNorm, RopeTable};
use crate::{Result, Watch};

/// Image and caption are each filled up to a multiple of this many tokens, with learned tokens that are attended to.
pub const SEQ_MULTI_OF: usize = 32;
/// Width of the timestep's sinusoid.
const SINUSOID: usize = 256;
/// Inner width of the timestep's MLP.
const T_EMBEDDER_MID: usize = 1024;
/// Epsilon of the final layer's norm.
const FINAL_NORM_EPS: f64 = 1e-6;

/// S3-DiT.
pub struct Transformer {
    t_embedder: TimestepEmbedder,
    x_embedder: Linear,
    cap_embedder: CapEmbedder,
    x_pad_token: Tensor,   // [1, dim]
    cap_pad_token: Tensor, // [1, dim]
    noise_refiner: Vec<Block>,
    context_refiner: Vec<Block>,
    layers: Vec<Block>,
    final_layer: FinalLayer,
    rope: RopeTable,
    t_scale: f64,
}

/// A caption as the main layers take it. It does not depend on the time, so it is made once a picture.
#[derive(Clone)]
pub struct Caption {
    tokens: Tensor, // [padded, dim]
}

impl Caption {
    /// Tokens with padding.
    pub fn padded_tokens(&self) -> usize {
        self.tokens.dims()[0]
    }
}

/// Pictures that go through the network together, and all of them that does not depend on the time.
///
/// Their tokens stand one after another as the rows of one matrix, so that every weight is read once for all of them
/// and nothing is filled up for another's sake: the two branches of guidance differ in the lengths of their captions.
pub struct Batch {
    items: Vec<Item>,
    images: Sequence,
    whole: Sequence,
}

struct Item {
    caption: Caption,
    /// Rows and columns of patches.
    grid: (usize, usize),
}

impl Item {
    fn tokens(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    fn padded(&self) -> usize {
        self.tokens().next_multiple_of(SEQ_MULTI_OF)
    }
}

impl Batch {
    /// How many pictures it holds.
    pub fn pictures(&self) -> usize {
        self.items.len()
    }
}

impl Transformer {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, config: &TransformerConfig) -> Result<Self> {
        let p = parameters;
        let modulated =
            |group: &str, count: usize| load_blocks(&p.at(group), count, config, Modulation::load);
        let plain = |_: &Parameters, _: &TransformerConfig| Ok(None);
        let network = Self {
            t_embedder: TimestepEmbedder::load(&p.at("t_embedder").at("mlp"), config)?,
            x_embedder: Linear::load_precise(
                &p.at("all_x_embedder").at("2-1"),
                config.dim,
                config.patch_values(),
            )?,
            cap_embedder: CapEmbedder::load(&p.at("cap_embedder"), config)?,
            x_pad_token: p.tensor("x_pad_token", &[1, config.dim])?,
            cap_pad_token: p.tensor("cap_pad_token", &[1, config.dim])?,
            noise_refiner: modulated("noise_refiner", config.n_refiner_layers)?,
            context_refiner: load_blocks(
                &p.at("context_refiner"),
                config.n_refiner_layers,
                config,
                plain,
            )?,
            layers: modulated("layers", config.n_layers)?,
            final_layer: FinalLayer::load(&p.at("all_final_layer").at("2-1"), config)?,
            rope: RopeTable::new(config.rope_theta, config.axes_dims, config.axes_lens),
            t_scale: config.t_scale,
        };
        p.weights().finish()?;
        Ok(network)
    }

    /// What the main layers need of a caption's features, `[tokens, cap_feat_dim]`.
    pub fn caption(&self, features: &Tensor, watch: &dyn Watch) -> Result<Caption> {
        let x = self.cap_embedder.forward(features)?; // [tokens, dim]
        watch.stage(&"cap_embedded", &x)?;
        let mut x = pad(&x, &self.cap_pad_token)?.unsqueeze(0)?; // [1, padded, dim]
        let padded = x.dim(1)?;
        let angles = self.rope.angles(&caption_positions(padded), features.device())?;
        let sequence = Sequence { angles, lengths: vec![padded] };
        for (i, block) in self.context_refiner.iter().enumerate() {
            x = block.forward(&x, None, &sequence, &At("context_refiner", i, watch))?;
        }
        Ok(Caption { tokens: x.squeeze(0)? })
    }

    /// Pictures of latents `[channels, height, width]`, given as height and width, each with its caption.
    pub fn batch<'a>(
        &self,
        pictures: impl IntoIterator<Item = (&'a Caption, (usize, usize))>,
    ) -> Result<Batch> {
        let item = |(caption, (height, width)): (&Caption, _)| Item {
            caption: caption.clone(),
            grid: (height / 2, width / 2),
        };
        let items: Vec<_> = pictures.into_iter().map(item).collect();
        let of_image = |item: &Item| {
            let (rows, columns) = item.grid;
            image_positions(rows, columns, item.caption.padded_tokens(), item.padded())
        };
        let of_item = |item: &Item| {
            [of_image(item), caption_positions(item.caption.padded_tokens())].concat()
        };
        let sequence = |positions: Vec<Vec<[usize; 3]>>| {
            let lengths = positions.iter().map(Vec::len).collect();
            let angles = self.rope.angles(&positions.concat(), self.x_pad_token.device())?;
            Ok::<_, crate::Error>(Sequence { angles, lengths })
        };
        let images = sequence(items.iter().map(of_image).collect())?;
        let whole = sequence(items.iter().map(of_item).collect())?;
        Ok(Batch { items, images, whole })
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
        let c = self.time(t)?;
        watch.stage(&"t_embedding", &c)?;
        let mut x = self.embed(batch, latents, &c, watch)?;
        let through = |mut x: Tensor, layers: Range<usize>| {
            for i in layers {
                x = self.layer(i, &x, &c, batch, watch)?;
            }
            Ok::<_, crate::Error>(x)
        };
        let all = self.layers.len();
        x = match past {
            None => through(x, 0..all)?,
            Some(past) => {
                let entered = through(x, 0..1)?;
                match past.predict(t, &entered)? {
                    Some(added) => (entered + added)?,
                    None => {
                        let left = through(entered.clone(), 1..all)?;
                        past.record(t, &entered, &left)?;
                        left
                    }
                }
            }
        };
        self.finish(batch, &x, &c, watch)
    }

    /// Main layer `i`.
    fn layer(
        &self,
        i: usize,
        x: &Tensor,
        c: &Tensor,
        batch: &Batch,
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        self.layers[i].forward(x, Some(c), &batch.whole, &At("layers", i, watch))
    }

    /// The time's embedding, `[1, adaln]`.
    fn time(&self, t: f64) -> Result<Tensor> {
        self.t_embedder.forward(&[(t * self.t_scale) as f32], self.x_pad_token.device())
    }

    /// What enters the main layers, `[1, tokens, dim]`: of each picture the image's tokens, then the caption's.
    fn embed(
        &self,
        batch: &Batch,
        latents: &[Tensor],
        c: &Tensor,
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let patches = latents.iter().map(patchify).collect::<Result<Vec<_>>>()?;
        let x = self.x_embedder.forward(&Tensor::cat(&patches, 0)?)?; // [tokens, dim]
        watch.stage(&"x_embedded", &x)?;
        let images = split(&x, batch.items.iter().map(Item::tokens))?;
        let images =
            images.iter().map(|x| pad(x, &self.x_pad_token)).collect::<Result<Vec<_>>>()?;
        let mut x = join(&images)?;
        for (i, block) in self.noise_refiner.iter().enumerate() {
            x = block.forward(&x, Some(c), &batch.images, &At("noise_refiner", i, watch))?;
        }
        let images = split(&x.squeeze(0)?, batch.images.lengths.iter().copied())?;
        let both = images.into_iter().zip(&batch.items);
        let parts: Vec<_> =
            both.flat_map(|(image, item)| [image, item.caption.tokens.clone()]).collect();
        join(&parts)
    }

    /// Velocities from what leaves the main layers.
    fn finish(
        &self,
        batch: &Batch,
        x: &Tensor,
        c: &Tensor,
        watch: &dyn Watch,
    ) -> Result<Vec<Tensor>> {
        let parts = split(&x.squeeze(0)?, batch.whole.lengths.iter().copied())?;
        let images = parts.iter().zip(&batch.items).map(|(x, item)| x.narrow(0, 0, item.tokens()));
        let images = images.collect::<candle_core::Result<Vec<_>>>()?;
        let x = self.final_layer.forward(&join(&images)?, c)?; // [1, tokens, 4 · channels]
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
        let groups = [
            ("noise_refiner", &mut self.noise_refiner),
            ("context_refiner", &mut self.context_refiner),
            ("layers", &mut self.layers),
        ];
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

/// Caption tokens, padding included, stand at (1, 0, 0), (2, 0, 0), …
pub fn caption_positions(padded: usize) -> Vec<[usize; 3]> {
    (0..padded).map(|i| [1 + i, 0, 0]).collect()
}

/// Image tokens stand after the caption at (caption + 1, row, column); their padding at (0, 0, 0).
pub fn image_positions(
    rows: usize,
    columns: usize,
    caption: usize,
    padded: usize,
) -> Vec<[usize; 3]> {
    let grid = (0..rows).flat_map(|row| (0..columns).map(move |column| [caption + 1, row, column]));
    grid.chain(std::iter::repeat([0; 3])).take(padded).collect()
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

/// `[cos, sin]` of `t` times 128 frequencies from 1 down to 1 / 10000, `[batch, 256]`.
pub fn sinusoid(t: &[f32], device: &candle_core::Device) -> Result<Tensor> {
    const HALF: usize = SINUSOID / 2;
    let frequencies: Vec<f32> =
        (0..HALF).map(|k| (-(10000f32.ln()) * k as f32 / HALF as f32).exp()).collect();
    let row = |t: f32| {
        let angles: Vec<f64> = frequencies.iter().map(|f| f64::from(t * f)).collect();
        let cos: Vec<f32> = angles.iter().map(|a| a.cos() as f32).collect();
        cos.into_iter().chain(angles.into_iter().map(|a| a.sin() as f32)).collect::<Vec<_>>()
    };
    let values: Vec<f32> = t.iter().flat_map(|t| row(*t)).collect();
    Ok(Tensor::from_vec(values, (t.len(), SINUSOID), device)?)
}

struct TimestepEmbedder {
    mlp_0: Linear,
    mlp_2: Linear,
}

impl TimestepEmbedder {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        Ok(Self {
            mlp_0: Linear::load_precise(&p.at(0), T_EMBEDDER_MID, SINUSOID)?,
            mlp_2: Linear::load_precise(&p.at(2), config.adaln_dim(), T_EMBEDDER_MID)?,
        })
    }

    /// `t` in 0..=`t_scale`; the result is `[times, adaln]`.
    fn forward(&self, t: &[f32], device: &candle_core::Device) -> Result<Tensor> {
        self.mlp_2.forward(&self.mlp_0.forward(&sinusoid(t, device)?)?.silu()?)
    }
}

struct CapEmbedder {
    norm: RmsNorm,
    linear: Linear,
}

impl CapEmbedder {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        Ok(Self {
            norm: RmsNorm::load(&p.at(0), config.cap_feat_dim, config.norm_eps)?,
            linear: Linear::load_precise(&p.at(1), config.dim, config.cap_feat_dim)?,
        })
    }

    fn forward(&self, features: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.norm.forward(features)?)
    }
}

struct FinalLayer {
    linear: Linear,
    modulation: Linear,
}

impl FinalLayer {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        Ok(Self {
            linear: Linear::load_precise(&p.at("linear"), config.patch_values(), config.dim)?,
            modulation: Linear::load_precise(
                &p.at("adaLN_modulation").at(1),
                config.dim,
                config.adaln_dim(),
            )?,
        })
    }

    /// `x`: `[1, tokens, dim]`; the result is `[1, tokens, 4 · channels]`.
    fn forward(&self, x: &Tensor, c: &Tensor) -> Result<Tensor> {
        let scale = (self.modulation.forward(&c.silu()?)? + 1.0)?.unsqueeze(1)?;
        self.linear.forward(&layer_norm(x, FINAL_NORM_EPS)?.broadcast_mul(&scale)?)
    }
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

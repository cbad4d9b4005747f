//! The transformer: S3-DiT, a single stream of image tokens and caption tokens (Z-Image, 2025).

use std::ops::Range;

use candle_core::{D, Tensor};
use rayon::prelude::*;
use zoetrope_kernels::{Input, Mask, Pairs, attention, layer_norm, norm_and_rotate};

use super::reuse::Past;
use crate::config::TransformerConfig;
use crate::layers::{Angles, Linear, Parameters, RmsNorm, RopeTable};
use crate::{Result, Watch};

/// Image and caption are each filled up to a multiple of this many tokens, with learned tokens that are attended to.
pub const SEQ_MULTI_OF: usize = 32;
/// Width of the timestep's sinusoid.
const SINUSOID: usize = 256;
/// Inner width of the timestep's MLP.
const T_EMBEDDER_MID: usize = 1024;
/// Epsilon of the query and key norms, whatever `norm_eps` says.
const QK_NORM_EPS: f64 = 1e-5;
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

/// Tokens of several pictures, of which each attends to its own.
struct Sequence {
    angles: Angles,
    lengths: Vec<usize>,
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
                let at = At("layers", i, watch);
                x = self.layers[i].forward(&x, Some(&c), &batch.whole, &at)?;
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
        let padded = tokens.next_multiple_of(SEQ_MULTI_OF);
        let of =
            |blocks: &[Block], tokens| blocks.iter().map(|b| b.operations(tokens)).sum::<f64>();
        of(&self.noise_refiner, padded) + of(&self.layers, padded + caption)
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

/// Names a block's stages for the watcher.
struct At<'a>(&'static str, usize, &'a dyn Watch);

impl At<'_> {
    fn part(&self, part: &str, x: &Tensor) -> Result<()> {
        self.2.stage(&format_args!("{}.{}.{part}", self.0, self.1), x)
    }

    fn whole(&self, x: &Tensor) -> Result<()> {
        self.2.stage(&format_args!("{}.{}", self.0, self.1), x)
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

/// Rows one after another, `[1, rows, …]`; alone they are not copied.
fn join(parts: &[Tensor]) -> Result<Tensor> {
    Ok(match parts {
        [one] => one.unsqueeze(0)?,
        many => Tensor::cat(many, 0)?.unsqueeze(0)?,
    })
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

type LoadModulation = fn(&Parameters, &TransformerConfig) -> Result<Option<Modulation>>;

fn load_blocks(
    p: &Parameters,
    count: usize,
    config: &TransformerConfig,
    modulation: LoadModulation,
) -> Result<Vec<Block>> {
    (0..count).into_par_iter().map(|i| Block::load(&p.at(i), config, modulation)).collect()
}

struct Block {
    modulation: Option<Modulation>,
    attention: Attention,
    feed_forward: FeedForward,
    attention_norm1: RmsNorm,
    attention_norm2: RmsNorm,
    ffn_norm1: RmsNorm,
    ffn_norm2: RmsNorm,
}

impl Block {
    fn load(
        p: &Parameters,
        config: &TransformerConfig,
        modulation: LoadModulation,
    ) -> Result<Self> {
        let norm = |name: &str| RmsNorm::load(&p.at(name), config.dim, config.norm_eps);
        Ok(Self {
            modulation: modulation(p, config)?,
            attention: Attention::load(&p.at("attention"), config)?,
            feed_forward: FeedForward::load(&p.at("feed_forward"), config)?,
            attention_norm1: norm("attention_norm1")?,
            attention_norm2: norm("attention_norm2")?,
            ffn_norm1: norm("ffn_norm1")?,
            ffn_norm2: norm("ffn_norm2")?,
        })
    }

    /// `x`: `[1, tokens, dim]`; `c`: `[1, adaln]`, the timestep's embedding, for blocks with modulation.
    fn forward(
        &self,
        x: &Tensor,
        c: Option<&Tensor>,
        sequence: &Sequence,
        at: &At,
    ) -> Result<Tensor> {
        let Scales { scale_attn, gate_attn, scale_ffn, gate_ffn } = match (&self.modulation, c) {
            (Some(modulation), Some(c)) => modulation.forward(c)?, // each [1, 1, dim]
            _ => Scales::default(),
        };
        let h = self.attention_norm1.input(x, scale_attn.as_ref());
        let h = self.attention.forward(h, sequence)?; // [1, tokens, dim]
        at.part("attention", &h)?;
        let x = self.attention_norm2.add_gated(x, &h, gate_attn.as_ref())?;

        let h = self.ffn_norm1.input(&x, scale_ffn.as_ref());
        let h = self.feed_forward.forward(h)?;
        at.part("feed_forward", &h)?;
        let x = self.ffn_norm2.add_gated(&x, &h, gate_ffn.as_ref())?;
        at.whole(&x)?;
        Ok(x)
    }

    fn operations(&self, tokens: usize) -> f64 {
        let Attention { to_q, to_k, to_v, to_out, .. } = &self.attention;
        let FeedForward { w1, w2, w3 } = &self.feed_forward;
        let linears = [to_q, to_k, to_v, to_out, w1, w2, w3].map(Linear::operations_a_token);
        let attention = 4 * tokens * to_q.shape()[0];
        tokens as f64 * (linears.iter().sum::<f64>() + attention as f64)
    }

    fn visit_linears(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        if let Some(modulation) = &mut self.modulation {
            f("adaLN_modulation.0", &mut modulation.linear);
        }
        f("attention.to_q", &mut self.attention.to_q);
        f("attention.to_k", &mut self.attention.to_k);
        f("attention.to_v", &mut self.attention.to_v);
        f("attention.to_out.0", &mut self.attention.to_out);
        f("feed_forward.w1", &mut self.feed_forward.w1);
        f("feed_forward.w2", &mut self.feed_forward.w2);
        f("feed_forward.w3", &mut self.feed_forward.w3);
    }
}

/// What the time does to a block; nothing in the context refiner.
#[derive(Default)]
struct Scales {
    scale_attn: Option<Tensor>, // 1 + s
    gate_attn: Option<Tensor>,  // tanh(g)
    scale_ffn: Option<Tensor>,
    gate_ffn: Option<Tensor>,
}

struct Modulation {
    linear: Linear,
}

impl Modulation {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Option<Self>> {
        let linear =
            Linear::load(&p.at("adaLN_modulation").at(0), 4 * config.dim, config.adaln_dim())?;
        Ok(Some(Self { linear }))
    }

    /// The block's linear takes `c` as it is; only the final layer puts a SiLU before its own.
    fn forward(&self, c: &Tensor) -> Result<Scales> {
        let parts = self.linear.forward(c)?.unsqueeze(1)?.chunk(4, D::Minus1)?;
        Ok(Scales {
            scale_attn: Some((&parts[0] + 1.0)?),
            gate_attn: Some(parts[1].tanh()?),
            scale_ffn: Some((&parts[2] + 1.0)?),
            gate_ffn: Some(parts[3].tanh()?),
        })
    }
}

struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    head_dim: usize,
}

impl Attention {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        let square = |name: &str| Linear::load_without_bias(&p.at(name), config.dim, config.dim);
        let norm = |name: &str| RmsNorm::load(&p.at(name), config.head_dim(), QK_NORM_EPS);
        Ok(Self {
            to_q: square("to_q")?,
            to_k: square("to_k")?,
            to_v: square("to_v")?,
            to_out: square("to_out.0")?,
            norm_q: norm("norm_q")?,
            norm_k: norm("norm_k")?,
            head_dim: config.head_dim(),
        })
    }

    fn forward(&self, x: Input, sequence: &Sequence) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.to_q, &self.to_k, &self.to_v])?;
        let (_, tokens, _) = q.dims3()?;
        let heads = |y: Tensor| y.reshape((1, tokens, (), self.head_dim)); // [1, tokens, heads, d]
        let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?.transpose(1, 2)?);
        let angles = (&sequence.angles.cos, &sequence.angles.sin);
        let q = norm_and_rotate(&q, self.norm_q.kernel(), angles, Pairs::Neighbours)?; // [1, heads, tokens, d]
        let k = norm_and_rotate(&k, self.norm_k.kernel(), angles, Pairs::Neighbours)?;
        let mut start = 0;
        let mut parts = Vec::with_capacity(sequence.lengths.len());
        for length in &sequence.lengths {
            let part = |y: &Tensor| y.narrow(2, start, *length);
            let y =
                attention(&part(&q)?, &part(&k)?, &part(&v)?, Mask::None, self.to_q.precision())?;
            parts.push(y.transpose(1, 2)?.flatten_from(2)?.squeeze(0)?); // [length, dim]
            start += length;
        }
        self.to_out.forward(&join(&parts)?)
    }
}

struct FeedForward {
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

impl FeedForward {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        let (dim, inner) = (config.dim, config.ffn_dim());
        Ok(Self {
            w1: Linear::load_without_bias(&p.at("w1"), inner, dim)?,
            w2: Linear::load_without_bias(&p.at("w2"), dim, inner)?,
            w3: Linear::load_without_bias(&p.at("w3"), inner, dim)?,
        })
    }

    fn forward(&self, x: Input) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all(x, [&self.w1, &self.w3])?;
        self.w2.forward_input(Input::Gated { gate: &gate, up: &up })
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

//! Control networks for Z-Image, as Fun-Controlnet-Union has them: layers beside the main ones that look at a picture's latents, and what
//! they add to the stream (after ControlNet; Zhang et al., 2023).

use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::batch::{Batch, Item};
use super::block::{At, Block, Modulation, Time, join, load_blocks};
use super::{Transformer, pad, patchify, split};
use crate::config::{ControlConfig, ControlRefiner, TransformerConfig};
use crate::layers::{Linear, Parameters};
use crate::{Error, Result, Watch};

/// A control network. Embeddings and refiners it shares with the transformer that it belongs to.
pub struct ControlNet {
    control_all_x_embedder: Linear,
    refiner: Refiner,
    control_layers: Vec<ControlBlock>,
    /// The main layers behind which each control layer's result is added.
    places: Vec<usize>,
    /// The same of noise refiners.
    refiner_places: Vec<usize>,
    channels: usize,
}

/// What the control picture passes before it meets the caption.
enum Refiner {
    /// Layers of its own that see nothing else (version 1.0).
    Apart(Vec<Block>),
    /// The control layers themselves (2.0).
    Layers,
    /// Control layers of its own (2.1).
    Beside(Vec<ControlBlock>),
}

/// A layer whose stream is shown to another network.
struct ControlBlock {
    /// Of the first one, which joins the two streams.
    before_proj: Option<Linear>,
    block: Block,
    after_proj: Linear,
}

/// What a control network does to the pictures of a batch.
#[derive(Clone)]
pub struct Guide {
    network: Arc<ControlNet>,
    /// The control pictures' patches, embedded and padded, `[1, tokens, dim]`.
    patches: Tensor,
    scale: f64,
    times: RangeInclusive<f64>,
}

/// A control network at work in one step.
pub(super) struct Hints<'a> {
    guide: &'a Guide,
    /// The control layers' stream, `[1, tokens, dim]`.
    stream: Tensor,
    /// What entered the main layers, until the first control layer has joined it to the stream.
    entered: Option<Tensor>,
    next: usize,
}

impl ControlNet {
    /// The network in `parameters`, which belongs to a transformer of `config`.
    pub fn load(
        parameters: &Parameters,
        control: &ControlConfig,
        config: &TransformerConfig,
    ) -> Result<Self> {
        let config = &TransformerConfig { norm_eps: control.norm_eps, ..config.clone() };
        let blocks = |group: &str, count: usize| {
            let p = parameters.at(group);
            (0..count)
                .into_par_iter()
                .map(|i| ControlBlock::load(&p.at(i), config, i == 0))
                .collect::<Result<Vec<_>>>()
        };
        let (own, depth) = ("control_noise_refiner", config.n_refiner_layers);
        let refiner = match control.refiner()? {
            ControlRefiner::Apart => {
                Refiner::Apart(load_blocks(&parameters.at(own), depth, config, Modulation::load)?)
            }
            ControlRefiner::Layers => {
                // Published files of 2.0 have one all the same.
                parameters.weights().ignore("control_noise_refiner.");
                Refiner::Layers
            }
            ControlRefiner::Beside => Refiner::Beside(blocks(own, depth)?),
        };
        let network = Self {
            control_all_x_embedder: Linear::load_precise(
                &parameters.at("control_all_x_embedder").at("2-1"),
                config.dim,
                4 * control.control_in_dim,
            )?,
            refiner,
            control_layers: blocks("control_layers", control.control_layers_places.len())?,
            places: control.control_layers_places.clone(),
            refiner_places: control.control_refiner_layers_places.clone().unwrap_or_default(),
            channels: control.control_in_dim,
        };
        parameters.weights().finish()?;
        Ok(network)
    }

    /// Channels of what it looks at: those of latents, and in later versions a mask and the latents of what is around it.
    pub fn channels(&self) -> usize {
        self.channels
    }
}

impl ControlBlock {
    fn load(p: &Parameters, config: &TransformerConfig, first: bool) -> Result<Self> {
        let square = |name: &str| Linear::load(&p.at(name), config.dim, config.dim);
        Ok(Self {
            before_proj: first.then(|| square("before_proj")).transpose()?,
            block: Block::load(p, config, Modulation::load)?,
            after_proj: square("after_proj")?,
        })
    }

    /// The stream after this layer; the first one joins it with `other` before.
    fn forward(
        &self,
        stream: &Tensor,
        other: Option<&Tensor>,
        through: impl FnOnce(&Block, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        match (&self.before_proj, other) {
            (Some(joining), Some(other)) => {
                through(&self.block, &(joining.forward(stream)? + other)?)
            }
            _ => through(&self.block, stream),
        }
    }
}

impl Transformer {
    /// Has `network` look at `contexts`, a `[channels, height, width]` for every picture of `batch`, and add what it makes of them,
    /// times `scale`, at `times`.
    pub fn guide(
        &self,
        batch: &mut Batch,
        network: &Arc<ControlNet>,
        contexts: &[Tensor],
        (scale, times): (f64, RangeInclusive<f64>),
    ) -> Result<()> {
        if self.sees() {
            return Err(Error::no_control());
        }
        let patches = contexts.iter().map(patchify).collect::<Result<Vec<_>>>()?;
        let x = network.control_all_x_embedder.forward(&Tensor::cat(&patches, 0)?)?;
        let pictures = split(&x, batch.items.iter().map(Item::tokens))?;
        let padded = pictures.iter().map(|x| pad(x, &self.x_pad_token));
        let patches = join(&padded.collect::<Result<Vec<_>>>()?)?;
        batch.guide = Some(Guide { network: network.clone(), patches, scale, times });
        Ok(())
    }

    /// The control network of `batch` at work, if there is one and it works at `t`. `patches` are the pictures' before the noise refiner, `entered`
    /// is what enters the main layers.
    pub(super) fn hints<'a>(
        &self,
        batch: &'a Batch,
        (t, time): (f64, &Time),
        (patches, entered): (&Tensor, &Tensor),
        watch: &dyn Watch,
    ) -> Result<Option<Hints<'a>>> {
        let Some(guide) = batch.guide.as_ref().filter(|guide| guide.times.contains(&t)) else {
            return Ok(None);
        };
        watch.stage(&"control_embedded", &guide.patches)?;
        let network = &*guide.network;
        let (mut stream, mut entered) = (guide.patches.clone(), entered.clone());
        let through =
            |block: &Block, x: &Tensor, at: At| block.forward(x, Some(time), &batch.images, &at);
        let beside = match &network.refiner {
            Refiner::Apart(blocks) => {
                for (i, block) in blocks.iter().enumerate() {
                    stream = through(block, &stream, At("control_noise_refiner", i, watch))?;
                }
                None
            }
            Refiner::Layers => Some((&network.control_layers, "control_layers")),
            Refiner::Beside(blocks) => Some((blocks, "control_noise_refiner")),
        };
        if let Some((blocks, group)) = beside {
            let mut added = Vec::with_capacity(blocks.len());
            for (i, control) in blocks.iter().enumerate() {
                let layer = |block: &Block, x: &Tensor| through(block, x, At(group, i, watch));
                stream = control.forward(&stream, Some(patches), layer)?;
                added.push((control.after_proj.forward(&stream)? * guide.scale)?);
            }
            // What the control layers start from has been told of the picture; what the main ones start from has not.
            let hints = network.refiner_places.iter().copied().zip(&added);
            let refined = self.refine(batch, patches, time, (&hints.collect::<Vec<_>>(), watch))?;
            entered = batch.unified(&refined)?;
        }
        Ok(Some(Hints { guide, stream: batch.unified(&stream)?, entered: Some(entered), next: 0 }))
    }
}

impl Hints<'_> {
    /// `x` as it leaves main layer `i`, with what is added there.
    pub(super) fn after(
        &mut self,
        i: usize,
        x: Tensor,
        (batch, time): (&Batch, &Time),
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let network = &*self.guide.network;
        let Some(control) =
            network.control_layers.get(self.next).filter(|_| network.places[self.next] == i)
        else {
            return Ok(x);
        };
        let at = At("control_layers", self.next, watch);
        let layer = |block: &Block, x: &Tensor| block.forward(x, Some(time), &batch.whole, &at);
        self.stream = control.forward(&self.stream, self.entered.take().as_ref(), layer)?;
        self.next += 1;
        let hint = (control.after_proj.forward(&self.stream)? * self.guide.scale)?;
        watch.stage(&format_args!("hint.{i}"), &hint)?;
        Ok((x + hint)?)
    }
}

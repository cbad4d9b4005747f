//! The vision branch of Z-Image Omni and Edit: pictures that the caption speaks of, as latents and as a vision tower sees them.
//!
//! Where the reference implementation (diffusers 0.42) does what was hardly meant, so does this: weights that were trained with it
//! expect it. That is the order in which a tower's features are read, and the positions of all but a caption's first part.

use candle_core::Tensor;

use super::batch::{Caption, Part, Patches, padded};
use super::block::{At, Block, Modulation, Sequence, Span, load_blocks};
use super::ends::FeatureEmbedder;
use super::{SEQ_MULTI_OF, Transformer, pad, patchify};
use crate::config::TransformerConfig;
use crate::layers::Parameters;
use crate::{Error, Result, Watch};

/// The layers that networks with a vision branch have beside the others.
pub(super) struct Vision {
    pub(super) siglip_embedder: FeatureEmbedder,
    pub(super) siglip_refiner: Vec<Block>,
    siglip_pad_token: Tensor, // [1, dim]
}

/// A picture that the one to be drawn refers to.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its latents, `[channels, height, width]`.
    pub latents: Tensor,
    /// What the vision tower makes of it, `[rows, columns, siglip_feat_dim]`.
    pub vision: Tensor,
}

impl Vision {
    /// Nothing for networks without `siglip_feat_dim`.
    pub(super) fn load(p: &Parameters, config: &TransformerConfig) -> Result<Option<Self>> {
        let Some(width) = config.siglip_feat_dim else { return Ok(None) };
        let refiner = p.at("siglip_refiner");
        Ok(Some(Self {
            siglip_embedder: FeatureEmbedder::load(&p.at("siglip_embedder"), config, width)?,
            siglip_refiner: load_blocks(
                &refiner,
                config.n_refiner_layers,
                config,
                Modulation::none,
            )?,
            siglip_pad_token: p.tensor("siglip_pad_token", &[1, config.dim])?,
        }))
    }
}

impl Transformer {
    /// Whether a caption may speak of pictures.
    pub fn sees(&self) -> bool {
        self.vision.is_some()
    }

    /// What the main layers need of a caption that speaks of `references`. `segments` are the features of its parts, each
    /// `[tokens, cap_feat_dim]`: one ahead of every reference, one ahead of the picture that is drawn, and the last behind it;
    /// without references there is one part.
    pub fn scene(
        &self,
        segments: &[Tensor],
        references: &[Reference],
        watch: &dyn Watch,
    ) -> Result<Caption> {
        let Some(vision) = &self.vision else {
            return match (segments, references) {
                ([one], []) => self.plain_caption(one, watch),
                _ => Err(Error::no_references()),
            };
        };
        let lengths = segments.iter().map(|s| s.dim(0)).collect::<candle_core::Result<Vec<_>>>()?;
        let (positions, ends) = text_positions(&lengths);
        let clean = |length: &usize| length.next_multiple_of(SEQ_MULTI_OF);
        let before = Part {
            tokens: self.text(segments, &positions, watch)?,
            positions,
            clean: lengths.iter().take(references.len()).map(clean).sum(),
        };
        let patches = |(reference, place): (&Reference, &usize)| {
            let (_, height, width) = reference.latents.dims3()?;
            let tokens = self.x_embedder.forward(&patchify(&reference.latents)?)?;
            let tokens = pad(&tokens, &self.x_pad_token)?;
            Ok(Patches { tokens, grid: (height / 2, width / 2), place: *place })
        };
        let place = ends.get(references.len()).copied();
        let after = match references {
            [] => None,
            some => Some(self.seen(vision, some, &ends, watch)?),
        };
        Ok(Caption {
            before: Some(before),
            after,
            references: references.iter().zip(&ends).map(patches).collect::<Result<_>>()?,
            place: place.expect("there is a segment ahead of every picture"),
        })
    }

    /// The tokens of a caption's parts, `[tokens, dim]`.
    fn text(
        &self,
        segments: &[Tensor],
        positions: &[[usize; 3]],
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let part =
            |features: &Tensor| pad(&self.cap_embedder.forward(features)?, &self.cap_pad_token);
        let parts = segments.iter().map(part).collect::<Result<Vec<_>>>()?;
        self.refined(
            &self.context_refiner,
            &Tensor::cat(&parts, 0)?,
            positions,
            ("context_refiner", watch),
        )
    }

    /// The tokens of what the tower saw of `references`, and those that stand for the picture that is not there yet.
    fn seen(
        &self,
        vision: &Vision,
        references: &[Reference],
        ends: &[usize],
        watch: &dyn Watch,
    ) -> Result<Part> {
        let missing = vision.siglip_pad_token.shape().dims()[1];
        let missing = vision.siglip_pad_token.expand((SEQ_MULTI_OF, missing))?;
        let (mut parts, mut positions) = (Vec::new(), Vec::new());
        for (reference, end) in references.iter().zip(ends) {
            let (rows, columns, width) = reference.vision.dims3()?;
            // Channel by channel, and cut into rows of `width`: not the tower's tokens, but what the reference makes of them.
            let scattered =
                reference.vision.permute((2, 0, 1))?.reshape((rows * columns, width))?;
            parts
                .push(pad(&vision.siglip_embedder.forward(&scattered)?, &vision.siglip_pad_token)?);
            let (_, height, width) = reference.latents.dims3()?;
            positions.extend(vision_positions((rows, columns), (height, width), end + 1));
        }
        let clean = positions.len();
        parts.push(missing);
        positions.extend([[0; 3]; SEQ_MULTI_OF]);
        let tokens = Tensor::cat(&parts, 0)?;
        let tokens =
            self.refined(&vision.siglip_refiner, &tokens, &positions, ("siglip_refiner", watch))?;
        Ok(Part { tokens, positions, clean })
    }

    /// `tokens`, `[tokens, dim]`, after `blocks`, which do not depend on the time.
    pub(super) fn refined(
        &self,
        blocks: &[Block],
        tokens: &Tensor,
        positions: &[[usize; 3]],
        (group, watch): (&'static str, &dyn Watch),
    ) -> Result<Tensor> {
        let angles = self.rope.angles(positions, tokens.device())?;
        let spans = [Span::noisy(positions.len())];
        let sequence = Sequence::new(angles, vec![positions.len()], &spans);
        let mut x = tokens.unsqueeze(0)?;
        for (i, block) in blocks.iter().enumerate() {
            x = block.forward(&x, None, &sequence, &At(group, i, watch))?;
        }
        Ok(x.squeeze(0)?)
    }
}

/// Where the tokens of a caption's parts of so many `lengths` stand, padding included, and where each part ends on the first axis.
///
/// The reference lists each part's positions with as many zeros behind as the part has padding, so that positions outnumber tokens, and takes
/// the first ones: behind the first part nothing stands where it was meant to.
pub fn text_positions(lengths: &[usize]) -> (Vec<[usize; 3]>, Vec<usize>) {
    let (mut positions, mut ends, mut next, mut tokens) = (Vec::new(), Vec::new(), 1, 0);
    for length in lengths {
        let padded = length.next_multiple_of(SEQ_MULTI_OF);
        positions.extend((next..next + padded).map(|i| [i, 0, 0]));
        positions.extend(std::iter::repeat_n([0; 3], padded - length));
        tokens += padded;
        next += length;
        ends.push(next);
        next += 2; // the picture's latents and what the tower saw of it
    }
    positions.truncate(tokens);
    (positions, ends)
}

/// Where the tokens of a tower's grid stand, padding included: stretched over the picture's latents of `(height, width)`, in float32 and
/// without the fraction, as the reference computes it.
pub fn vision_positions(
    (rows, columns): (usize, usize),
    (height, width): (usize, usize),
    place: usize,
) -> Vec<[usize; 3]> {
    let stretched = |i: usize, of: usize, to: usize| {
        (i as f32 / of.saturating_sub(1).max(1) as f32 * (to - 1) as f32) as usize
    };
    let at = |row, column| [place, stretched(row, rows, height), stretched(column, columns, width)];
    let grid = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let grid = grid.map(|(row, column)| at(row, column));
    grid.chain(std::iter::repeat([0; 3])).take(padded((rows, columns))).collect()
}

//! Stable Diffusion's safety checker (diffusers' `StableDiffusionSafetyChecker`): how near a picture's CLIP embedding comes to those
//! of concepts, each with a threshold of its own.

use candle_core::{D, Tensor};

use super::vision::{CLIP, Layer, Sizes, patches};
use crate::layers::{LayerNorm, Linear, Parameters};
use crate::{Result, Watch};

/// CLIP's vision model with concepts in the space of its projection.
pub struct SafetyChecker {
    class_embedding: Tensor,    // [1, 1, hidden]
    position_embedding: Tensor, // [1 + patches, hidden]
    patch_embedding: Linear,
    pre_layrnorm: LayerNorm, // as it is spelt in every checkpoint
    layers: Vec<Layer>,
    post_layernorm: LayerNorm,
    visual_projection: Linear,
    concept_embeds: Tensor,      // [concepts, projection], of length 1
    special_care_embeds: Tensor, // [special, projection], of length 1
    concept_embeds_weights: Vec<f32>,
    special_care_embeds_weights: Vec<f32>,
    sizes: Sizes,
}

/// How far a picture is beyond each threshold, rounded to thousandths as the reference does; above 0 it shows the concept.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Of concepts that only make the others stricter.
    pub special: Vec<f32>,
    /// Of concepts that make a picture unsafe.
    pub concepts: Vec<f32>,
}

/// What a found special concept adds to the scores after it.
const ADJUSTMENT: f32 = 0.01;

impl SafetyChecker {
    /// The network in `parameters`; `projection` is the width of the concepts' space.
    pub fn load(parameters: &Parameters, sizes: &Sizes, projection: usize) -> Result<Self> {
        // As published, or as transformers 5 writes it.
        let published = parameters.at("vision_model.vision_model");
        let vision = match published.weights().has("pre_layrnorm.weight") {
            true => published,
            false => parameters.at("vision_model"),
        };
        let (embeddings, hidden) = (vision.at("embeddings"), sizes.hidden);
        let layer = |i| Layer::load(&vision.at("encoder.layers").at(i), sizes, &CLIP);
        let norm = |name: &str| LayerNorm::load(&vision.at(name), hidden, sizes.eps);
        let concepts = |name: &str| {
            let count = parameters.weights().shape(name).and_then(|s| s.first().copied());
            let embeds = parameters.tensor(name, &[count.unwrap_or(1), projection])?;
            let thresholds =
                parameters.tensor(&format!("{name}_weights"), &[count.unwrap_or(1)])?;
            Ok::<_, crate::Error>((of_length_one(&embeds)?, thresholds.to_vec1::<f32>()?))
        };
        let (concept_embeds, concept_embeds_weights) = concepts("concept_embeds")?;
        let (special_care_embeds, special_care_embeds_weights) = concepts("special_care_embeds")?;
        let network = Self {
            class_embedding: embeddings.tensor("class_embedding", &[hidden])?.reshape((
                1,
                1,
                (),
            ))?,
            position_embedding: embeddings
                .tensor("position_embedding.weight", &[1 + sizes.patches(), hidden])?,
            patch_embedding: Linear::load_patches(
                &embeddings.at("patch_embedding"),
                [hidden, 3, sizes.patch],
                false,
            )?,
            pre_layrnorm: norm("pre_layrnorm")?,
            layers: (0..sizes.layers).map(layer).collect::<Result<_>>()?,
            post_layernorm: norm("post_layernorm")?,
            visual_projection: Linear::load_without_bias(
                &parameters.at("visual_projection"),
                projection,
                hidden,
            )?,
            concept_embeds,
            special_care_embeds,
            concept_embeds_weights,
            special_care_embeds_weights,
            sizes: *sizes,
        };
        // The positions' numbers, which old files have.
        vision.weights().ignore("embeddings.position_ids");
        parameters.weights().finish()?;
        Ok(network)
    }

    /// The embeddings of `pixels`, `[batch, 3, image, image]` as the processor makes them: `[batch, projection]`.
    pub fn embed(&self, pixels: &Tensor, watch: &dyn Watch) -> Result<Tensor> {
        let batch = pixels.dim(0)?;
        let patches = self.patch_embedding.forward(&patches(pixels, self.sizes.patch)?)?;
        let class = self.class_embedding.expand((batch, 1, self.sizes.hidden))?;
        let x = Tensor::cat(&[&class, &patches], 1)?; // [batch, 1 + patches, hidden]
        let x = x.broadcast_add(&self.position_embedding)?;
        let mut x = self.pre_layrnorm.forward(&x)?;
        watch.stage(&"embeddings", &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            watch.stage(&format_args!("layer.{i}"), &x)?;
        }
        let pooled = self.post_layernorm.forward(&x.narrow(1, 0, 1)?)?.squeeze(1)?;
        self.visual_projection.forward(&pooled)
    }

    /// What each picture of `pixels` comes near to.
    pub fn forward(&self, pixels: &Tensor, watch: &dyn Watch) -> Result<Vec<Scores>> {
        let embeds = of_length_one(&self.embed(pixels, watch)?)?;
        watch.stage(&"image_embeds", &embeds)?;
        let cosines = |concepts: &Tensor| {
            Ok::<_, crate::Error>(embeds.matmul(&concepts.t()?)?.to_vec2::<f32>()?)
        };
        let (special, concepts) =
            (cosines(&self.special_care_embeds)?, cosines(&self.concept_embeds)?);
        let scores = special.iter().zip(&concepts).map(|(special, concepts)| {
            let (mut adjustment, mut found) = (0.0, Vec::with_capacity(special.len()));
            for (cosine, threshold) in special.iter().zip(&self.special_care_embeds_weights) {
                let score = thousandths(cosine - threshold + adjustment);
                if score > 0.0 {
                    adjustment = ADJUSTMENT;
                }
                found.push(score);
            }
            let concepts = concepts.iter().zip(&self.concept_embeds_weights);
            let concepts = concepts.map(|(c, t)| thousandths(c - t + adjustment)).collect();
            Scores { special: found, concepts }
        });
        Ok(scores.collect())
    }
}

impl Scores {
    /// Whether the picture shows a concept that makes it unsafe.
    pub fn is_unsafe(&self) -> bool {
        self.concepts.iter().any(|score| *score > 0.0)
    }
}

/// Rows of `x` scaled to length 1, as torch's `normalize` does.
fn of_length_one(x: &Tensor) -> Result<Tensor> {
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    Ok(x.broadcast_div(&length)?)
}

fn thousandths(score: f32) -> f32 {
    (score * 1000.0).round_ties_even() / 1000.0
}

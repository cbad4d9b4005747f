//! `config.json` of a control network, a ZImageControlNetModel; published files have none.

use serde::Deserialize;
use zoetrope_checkpoint::Weights;

use super::{TransformerConfig, count};
use crate::{Error, Result};

/// The configuration of a control network.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the file's fields")]
pub struct ControlConfig {
    pub control_layers_places: Vec<usize>,
    pub control_refiner_layers_places: Option<Vec<usize>>,
    pub control_in_dim: usize,
    pub add_control_noise_refiner: Option<String>,
    pub all_patch_size: Vec<usize>,
    pub all_f_patch_size: Vec<usize>,
    pub dim: usize,
    pub n_refiner_layers: usize,
    pub n_heads: usize,
    pub norm_eps: f64,
    pub qk_norm: bool,
}

/// What the control picture passes before it meets the caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRefiner {
    /// Layers that see nothing else: version 1.0.
    Apart,
    /// The control layers themselves: 2.0.
    Layers,
    /// Control layers of its own: 2.1.
    Beside,
}

impl ControlConfig {
    /// What the control picture passes before it meets the caption.
    pub fn refiner(&self) -> Result<ControlRefiner> {
        match self.add_control_noise_refiner.as_deref() {
            None => Ok(ControlRefiner::Apart),
            Some("control_layers") => Ok(ControlRefiner::Layers),
            Some("control_noise_refiner") => Ok(ControlRefiner::Beside),
            Some(other) => Err(unfit(format!(
                "`add_control_noise_refiner` is `{other}`; it must be null, `control_layers` or `control_noise_refiner`"
            ))),
        }
    }

    /// Channels that a mask, and the latents of what is around it, have beside those of latents.
    pub fn fill_channels(&self, config: &TransformerConfig) -> usize {
        self.control_in_dim.saturating_sub(config.in_channels)
    }

    /// Refuses what does not fit the transformer of `config`, or is not implemented.
    pub fn check(self, config: &TransformerConfig) -> Result<Self> {
        let places = &self.control_layers_places;
        let refiners = self.control_refiner_layers_places.clone().unwrap_or_default();
        let most = match self.refiner()? {
            ControlRefiner::Apart => 0,
            ControlRefiner::Layers => places.len(),
            ControlRefiner::Beside => self.n_refiner_layers,
        };
        let channels = config.in_channels;
        let rising = |places: &[usize]| places.windows(2).all(|pair| pair[0] < pair[1]);
        let wrong = if (self.dim, self.n_heads) != (config.dim, config.n_heads) {
            let (dim, heads) = (self.dim, self.n_heads);
            Some(format!(
                "the control network is {dim} wide with {heads} heads, and the model {} with {}: it is for another one",
                config.dim, config.n_heads
            ))
        } else if self.n_refiner_layers != config.n_refiner_layers {
            let (own, of) = (self.n_refiner_layers, config.n_refiner_layers);
            Some(format!("`n_refiner_layers` is {own}, and the model has {of}"))
        } else if self.all_patch_size != [2] || self.all_f_patch_size != [1] || !self.qk_norm {
            Some("only patches of 2 × 2 and attention with qk_norm are supported".into())
        } else if places.first() != Some(&0) || !rising(places) {
            Some(format!("`control_layers_places` {places:?} must begin with 0 and rise"))
        } else if places.last().is_some_and(|last| *last >= config.n_layers) {
            let layers = config.n_layers;
            Some(format!(
                "`control_layers_places` {places:?} lie beyond the model's {layers} layers"
            ))
        } else if refiners.len() > most || refiners.iter().any(|i| *i >= config.n_refiner_layers) {
            Some(format!(
                "`control_refiner_layers_places` {refiners:?} do not fit {most} layers and the model's {} noise refiners",
                config.n_refiner_layers
            ))
        } else if self.control_in_dim != channels && self.control_in_dim != 2 * channels + 1 {
            let own = self.control_in_dim;
            Some(format!(
                "`control_in_dim` is {own}; with {channels} latent channels it must be {channels}, or {} with a mask",
                2 * channels + 1
            ))
        } else {
            None
        };
        wrong.map_or(Ok(self), |problem| Err(unfit(problem)))
    }

    /// What the tensors of a published file tell: control layers lie evenly among the main ones.
    pub fn infer(weights: &Weights, config: &TransformerConfig) -> Result<Self> {
        let embedder = "control_all_x_embedder.2-1.weight";
        let shape = weights.shape(embedder).filter(|shape| shape.len() == 2);
        let Some([dim, columns]) = shape.and_then(|shape| <[usize; 2]>::try_from(shape).ok())
        else {
            let problem = format!(
                "there is no `{embedder}`: this is no control network for Z-Image (Z-Image-Turbo-Fun-Controlnet-Union, say)"
            );
            return Err(unfit_file(weights, problem));
        };
        let layers = count(weights, "control_layers", "attention_norm1.weight");
        let refiner = refiner_of(weights, (dim, columns / 4), config)?;
        let n_refiner_layers = match refiner {
            Some("control_layers") => config.n_refiner_layers,
            _ => count(weights, "control_noise_refiner", "attention_norm1.weight"),
        };
        let head = weights.shape("control_layers.0.attention.norm_q.weight");
        let head = head.and_then(|shape| shape.first().copied()).unwrap_or(1).max(1);
        let inferred = Self {
            control_layers_places: (0..layers).map(|i| i * config.n_layers / layers).collect(),
            control_refiner_layers_places: refiner.map(|_| (0..config.n_refiner_layers).collect()),
            control_in_dim: columns / 4,
            add_control_noise_refiner: refiner.map(String::from),
            all_patch_size: vec![2],
            all_f_patch_size: vec![1],
            dim,
            n_refiner_layers,
            n_heads: dim / head,
            norm_eps: config.norm_eps,
            qk_norm: true,
        };
        inferred.check(config).map_err(|error| match error {
            Error::Config { problem, .. } => unfit_file(weights, problem),
            other => other,
        })
    }
}

/// 1.0 has refiners without projections; those of 2.0 are there and have never been trained, so that they still begin with zeros.
fn refiner_of(
    weights: &Weights,
    (dim, channels): (usize, usize),
    config: &TransformerConfig,
) -> Result<Option<&'static str>> {
    let joining = "control_noise_refiner.0.before_proj.weight";
    if !weights.has(joining) {
        return Ok((channels != config.in_channels).then_some("control_layers"));
    }
    let values = weights.tensor(joining, &[dim, dim])?.flatten_all()?.to_vec1::<f32>()?;
    let trained = values.iter().any(|value| *value != 0.0);
    Ok(Some(if trained { "control_noise_refiner" } else { "control_layers" }))
}

fn unfit(problem: String) -> Error {
    Error::Config { file: "the control network's config.json".into(), problem }
}

fn unfit_file(weights: &Weights, problem: String) -> Error {
    Error::Config { file: weights.file(), problem }
}

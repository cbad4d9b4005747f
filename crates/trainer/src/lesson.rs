//! What the network learns from: a picture at a noise level, and where its velocity should have pointed (flow matching, Lipman et
//! al., 2023; Liu et al., 2023).

use candle_core::Tensor;
use zoetrope_api::Seed;
use zoetrope_engine::noise::Generator;

use crate::Result;
use crate::inputs::Latents;

/// One picture at one noise level.
pub(crate) struct Lesson {
    /// Of the caption, `[tokens, cap_feat_dim]`.
    pub(crate) features: Tensor,
    /// `[channels, height, width]`
    pub(crate) noised: Tensor,
    /// The network's time, 0 (noise) to 1 (image).
    pub(crate) t: f64,
    /// The velocity that is right, as `noised`.
    pub(crate) target: Tensor,
    /// `[1, height, width]`: how much each place counts.
    weights: Option<Tensor>,
    /// How much the lesson counts.
    pub(crate) factor: f64,
}

impl Lesson {
    /// `σ · noise + (1 − σ) · latents` should be met by `latents − noise`: the network's velocity points from noise to image, and
    /// its time is `1 − σ`. Both the latents and the noise are drawn from `seed`.
    pub(crate) fn new(
        latents: &Latents,
        features: Tensor,
        sigma: f64,
        seed: u64,
        factor: f64,
    ) -> Result<Self> {
        let mut generator = Generator::new(Seed(seed));
        let (shape, device) = (latents.mean.dims(), latents.mean.device());
        let drawn = generator.normal(shape, device)?;
        let noise = generator.normal(shape, device)?;
        let image = (&latents.mean + (&latents.deviation * drawn)?)?;
        let noised = ((&noise * sigma)? + (&image * (1.0 - sigma))?)?;
        let target = (image - noise)?;
        Ok(Self {
            features,
            noised,
            t: 1.0 - sigma,
            target,
            weights: latents.weights.clone(),
            factor,
        })
    }

    /// The same picture at the same noise level under another caption, where `velocity` is right: what the frozen model says.
    pub(crate) fn kept(&self, features: Tensor, velocity: Tensor, factor: f64) -> Self {
        let (noised, t) = (self.noised.clone(), self.t);
        Self { features, noised, t, target: velocity, weights: None, factor }
    }

    /// The mean of the squared errors of `velocity`, weighted by place.
    pub(crate) fn loss(&self, velocity: &Tensor) -> candle_core::Result<Tensor> {
        let errors = (velocity - &self.target)?.sqr()?;
        match &self.weights {
            Some(weights) => errors.broadcast_mul(weights)?.mean_all(),
            None => errors.mean_all(),
        }
    }
}

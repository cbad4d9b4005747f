//! What stands before and behind the transformer's layers: embeddings of time and features, and the way back to latents.

use candle_core::Tensor;
use zoetrope_kernels::layer_norm;

use crate::Result;
use crate::config::TransformerConfig;
use crate::layers::{Linear, Parameters, RmsNorm};

/// Width of the timestep's sinusoid.
const SINUSOID: usize = 256;
/// Inner width of the timestep's MLP.
const T_EMBEDDER_MID: usize = 1024;
/// Epsilon of the final layer's norm.
const FINAL_NORM_EPS: f64 = 1e-6;

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

pub(super) struct TimestepEmbedder {
    pub(super) mlp_0: Linear,
    pub(super) mlp_2: Linear,
}

impl TimestepEmbedder {
    pub(super) fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        Ok(Self {
            mlp_0: Linear::load_precise(&p.at(0), T_EMBEDDER_MID, SINUSOID)?,
            mlp_2: Linear::load_precise(&p.at(2), config.adaln_dim(), T_EMBEDDER_MID)?,
        })
    }

    /// `t` in 0..=`t_scale`; the result is `[times, adaln]`.
    pub(super) fn forward(&self, t: &[f32], device: &candle_core::Device) -> Result<Tensor> {
        self.mlp_2.forward(&self.mlp_0.forward(&sinusoid(t, device)?)?.silu()?)
    }
}

/// Features of another network, as tokens: of the text encoder's, or the vision tower's.
pub(super) struct FeatureEmbedder {
    norm: RmsNorm,
    pub(super) linear: Linear,
}

impl FeatureEmbedder {
    /// Of features of `width` values.
    pub(super) fn load(p: &Parameters, config: &TransformerConfig, width: usize) -> Result<Self> {
        Ok(Self {
            norm: RmsNorm::load(&p.at(0), width, config.norm_eps)?,
            linear: Linear::load_precise(&p.at(1), config.dim, width)?,
        })
    }

    /// `features`: `[tokens, width]`; the result is `[tokens, dim]`.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.norm.forward(features)?)
    }
}

pub(super) struct FinalLayer {
    pub(super) linear: Linear,
    pub(super) modulation: Linear,
}

impl FinalLayer {
    pub(super) fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
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
    pub(super) fn forward(&self, x: &Tensor, c: &Tensor) -> Result<Tensor> {
        let scale = (self.modulation.forward(&c.silu()?)? + 1.0)?.unsqueeze(1)?;
        self.linear.forward(&layer_norm(x, FINAL_NORM_EPS)?.broadcast_mul(&scale)?)
    }
}

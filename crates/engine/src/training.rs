//! What training takes from a model besides pictures: captions as features, pictures as latents, and the transformer itself.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use zoetrope_api::Acceleration;
use zoetrope_checkpoint::{Blob, Role, Weights};

use crate::config::TransformerConfig;
use crate::networks::Transformer;
use crate::pipeline::{Listener, Pipeline};
use crate::pixels::{self, Rgb};
use crate::prompt::TOKENS_MAX;
use crate::{Error, Interrupt, Result, memory};

/// The level that training runs at: nothing is approximated but what the weights' form says.
const LEVEL: Acceleration = Acceleration::Regular;

/// A picture as the autoencoder understands it, in the transformer's scale: a normal distribution for each value.
#[derive(Clone, Debug)]
pub struct LatentMoments {
    /// `[channels, height / 8, width / 8]`
    pub mean: Tensor,
    /// As `mean`.
    pub deviation: Tensor,
}

/// Digests of a model's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the parts' names")]
pub struct Fingerprints {
    pub text_encoder: String,
    pub vae: String,
    pub transformer: String,
    /// What the transformer's matrices are kept as.
    pub form: String,
}

impl Pipeline {
    /// The features of `caption`, `[tokens, cap_feat_dim]`; a caption that is too long loses its end.
    pub fn features(
        &mut self,
        caption: &str,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Tensor> {
        let tokens = self.tokens(caption, TOKENS_MAX, on)?;
        self.text_encoder(LEVEL, on)?.forward(&tokens, interrupt)
    }

    /// `image` in latents; both sides are multiples of 16.
    pub fn latent_moments(
        &mut self,
        image: &Rgb,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<LatentMoments> {
        let device = self.parts().device().clone();
        let vae = self.parts().vae(on)?;
        let posterior = vae.encode(&pixels::to_tensor(image, &device)?, interrupt)?;
        // Scaling is affine, so that what it does to a unit of noise is its factor.
        let mean = vae.scale(&posterior.mean)?;
        let above = vae.scale(&posterior.sample(&posterior.mean.ones_like()?)?)?;
        let deviation = (above - &mean)?;
        Ok(LatentMoments { mean: mean.squeeze(0)?, deviation: deviation.squeeze(0)? })
    }

    /// The transformer, for training adapters on it.
    pub fn transformer(&mut self, on: &Listener) -> Result<&mut Transformer> {
        let transformer = self.parts().transformer(LEVEL, on)?;
        // Whatever is recomputed for gradients must be what was computed before.
        transformer.round_scores(false);
        Ok(transformer)
    }

    /// What `features` depends on besides the caption, and `latent_moments` besides the picture: for caches.
    pub fn fingerprints(&mut self) -> Result<Fingerprints> {
        let layout = self.parts().layout.clone();
        let of = |blobs: &[Blob], role| Ok::<_, Error>(Weights::open(blobs, role)?.fingerprint());
        Ok(Fingerprints {
            text_encoder: of(&layout.text_encoder, Role::TextEncoder)?,
            vae: of(&layout.vae, Role::Vae)?,
            transformer: of(&layout.transformer, Role::Transformer)?,
            form: self.parts().transformer_form(LEVEL)?.to_string(),
        })
    }

    /// Every linear layer of the transformer with `[out, in]`, from its files' headers.
    pub fn linear_shapes(&mut self) -> Result<BTreeMap<String, [usize; 2]>> {
        let blobs = &self.parts().layout.transformer;
        Ok(Weights::open(blobs, Role::Transformer)?.linear_shapes())
    }

    /// Width of the transformer's stream.
    pub fn width(&mut self) -> usize {
        self.parts().widths.dim
    }

    /// What the model was called by.
    pub fn name(&mut self) -> &str {
        &self.parts().layout.name
    }

    /// Frees what only inputs are prepared with.
    pub fn release_encoders(&mut self) {
        self.parts().release_text_encoder();
        self.parts().release_vae();
    }

    /// Where the networks run.
    pub fn device(&mut self) -> Device {
        self.parts().device().clone()
    }

    /// What training takes at most.
    pub fn training_memory(&mut self, plan: &TrainingPlan) -> Result<TrainingMemory> {
        let weights = self.parts().transformer_bytes(LEVEL)?;
        Ok(TrainingMemory::of(weights, plan, &self.parts().widths))
    }
}

/// What decides how much memory training takes, besides the model.
#[derive(Clone, Copy, Debug)]
pub struct TrainingPlan {
    /// Of a picture and its caption.
    pub tokens: usize,
    /// Pictures whose gradients are computed at the same time.
    pub at_once: usize,
    /// Whether the layers' inner values are computed again in place of being kept.
    pub checkpointing: bool,
    /// Values that are trained.
    pub values: usize,
    /// What is kept for each of them, its gradient included.
    pub bytes_a_value: usize,
}

/// Bytes that training takes at most, by use.
#[derive(Clone, Copy, Debug)]
pub struct TrainingMemory {
    /// The frozen transformer.
    pub weights: u64,
    /// The adapter, its gradients and the optimiser's averages.
    pub adapter: u64,
    /// What layers keep for their gradients, and what is kept of freed results for the next.
    pub activations: u64,
}

impl TrainingMemory {
    /// A layer keeps about this many streams of the network's width for its gradients, and as many gradients pass.
    const STREAMS: usize = 24;
    /// And these of the feed-forward's width.
    const WIDE_STREAMS: usize = 6;

    fn of(weights: u64, plan: &TrainingPlan, widths: &TransformerConfig) -> Self {
        let TrainingPlan { tokens, at_once, checkpointing, values, bytes_a_value } = *plan;
        let stream = tokens * widths.dim;
        let layer = Self::STREAMS * stream + Self::WIDE_STREAMS * tokens * widths.ffn_dim();
        let refiners = 2 * widths.n_refiner_layers;
        let kept = match checkpointing {
            true => widths.n_layers * stream + (refiners + 1) * layer,
            false => (widths.n_layers + refiners) * layer,
        };
        let activations = (4 * kept * at_once) as u64;
        // As much of them again stays with the allocator once it was freed, up to its bound.
        let recycled = activations.min(zoetrope_kernels::RECYCLED_BYTES_MAX as u64);
        Self {
            weights,
            adapter: (values * bytes_a_value) as u64,
            activations: activations + recycled,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.weights + self.adapter + self.activations
    }

    /// An error that names `remedies` when this is more than there is.
    pub fn check(&self, device: &Device, remedies: &str) -> Result<()> {
        let free = memory::available_bytes();
        if !device.is_cpu() || self.total() <= free {
            return Ok(());
        }
        let (needed, free) = (memory::gigabytes(self.total()), memory::gigabytes(free));
        Err(Error::Memory(format!(
            "training needs {needed} of memory and {free} are free; {remedies}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_what_would_help() {
        let memory = TrainingMemory { weights: 1 << 60, adapter: 0, activations: 0 };
        let error = memory.check(&Device::Cpu, "use --dtype q8_0").unwrap_err().to_string();
        assert!(error.contains("training needs 1152921504.6 GB of memory"), "{error}");
        assert!(error.ends_with("are free; use --dtype q8_0"), "{error}");
        let memory = TrainingMemory { weights: 1 << 10, adapter: 0, activations: 0 };
        memory.check(&Device::Cpu, "").unwrap();
    }
}

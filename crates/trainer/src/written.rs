//! What a run leaves: the adapter with what it says about itself, and how it was made.

use serde_json::json;
use zoetrope_checkpoint::{Adapter, Naming};

use crate::Result;
use crate::job::{Job, Trained};
use crate::settings::Settings;

/// The result of a run of `job` on the model called `base`.
pub(crate) fn trained(adapter: Adapter, job: &Job, base: &str, examples: usize) -> Trained {
    let Settings { steps, learning_rate, seed, resolution, .. } = &job.settings;
    let trigger = job.data_settings.trigger.clone().unwrap_or_default();
    let about = [
        ("modelspec.sai_model_spec", "1.0.0".into()),
        ("modelspec.architecture", "z-image/lora".into()),
        ("modelspec.implementation", "https://github.com/Tongyi-MAI/Z-Image".into()),
        ("modelspec.trigger_phrase", trigger.clone()),
        ("modelspec.resolution", format!("{resolution}x{resolution}")),
        ("ss_base_model_version", "zimage".into()),
        ("ss_sd_model_name", base.to_string()),
        ("ss_max_train_steps", steps.to_string()),
        ("ss_learning_rate", learning_rate.to_string()),
        ("ss_seed", seed.to_string()),
        ("ss_num_train_images", examples.to_string()),
        ("software", concat!("zoetrope ", env!("CARGO_PKG_VERSION")).into()),
    ];
    let about = about.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let config = json!({
        "base_model": base,
        "trigger": trigger,
        "images": examples,
        "settings": job.settings,
    });
    Trained { adapter, about, config }
}

impl Trained {
    /// The adapter's file, in bfloat16.
    pub fn file(&self, naming: Naming) -> Result<Vec<u8>> {
        Ok(self.adapter.to_bytes(naming, candle_core::DType::BF16, &self.about)?)
    }
}

//! Weights as they are multiplied, kept on disk between two runs: the option, and what `zoetrope models` says of them.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use zoetrope_checkpoint::PackedFolder;

use crate::environment::Environment;

/// What to call them where a model's name is asked for; hub ids have a slash.
pub(crate) const NAME: &str = "packed";

/// What was typed about them.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "packed-weights")]
pub(crate) struct Args {
    /// Gigabytes of weights that are kept on disk as they are multiplied, so that the next start takes seconds: about the model's size
    /// for each form of it, in zoetrope/packed in the user's cache folder. Those not used for longest go first; 0 keeps none.
    #[arg(long, env = "ZOETROPE_PACKED_GB", value_name = "GB", default_value_t = 40.0)]
    packed_gb: f64,
}

impl Args {
    /// Where they are kept, if they are.
    pub(crate) fn folder(&self, environment: &Environment) -> anyhow::Result<Option<PackedFolder>> {
        if !(0.0..1e6).contains(&self.packed_gb) {
            bail!("--packed-gb {}: give a number of gigabytes, or 0 to keep none", self.packed_gb);
        }
        let bytes_max = (self.packed_gb * 1e9) as u64;
        Ok((bytes_max > 0).then(|| folder(&environment.packed_dir, bytes_max)))
    }
}

fn folder(path: &Path, bytes_max: u64) -> PackedFolder {
    let parameters_min = PackedFolder::PARAMETERS_MIN;
    PackedFolder { path: path.into(), bytes_max, parameters_min }
}

/// What there is, with its size.
pub(crate) fn entries(environment: &Environment) -> anyhow::Result<Vec<(String, u64)>> {
    let path = &environment.packed_dir;
    let entries = folder(path, 0).entries().with_context(|| path.display().to_string())?;
    Ok(entries.into_iter().map(|entry| (entry.what, entry.bytes)).collect())
}

/// The same as JSON.
pub(crate) fn as_json(environment: &Environment) -> anyhow::Result<Value> {
    let entries = entries(environment)?;
    Ok(entries.iter().map(|(what, bytes)| json!({"of": what, "bytes": bytes})).collect())
}

/// Removes all of them; the bytes that are free now.
pub(crate) fn clear(environment: &Environment) -> anyhow::Result<u64> {
    let path = &environment.packed_dir;
    folder(path, 0).clear().with_context(|| path.display().to_string())
}

//! Which model a name means, and what it is used with when nobody says otherwise.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use zoetrope_checkpoint::{Family, Layout};
use zoetrope_engine::config::SchedulerConfig;

use crate::{demo, environment};

/// What a request is filled up with.
pub(crate) struct Defaults {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) steps: u32,
    pub(crate) guidance_scale: f64,
}

impl Defaults {
    /// The embedded model's own; Turbo's 8 steps without guidance, or what the base model is used with.
    pub(crate) fn of(model: &str, scheduler: &SchedulerConfig) -> anyhow::Result<Self> {
        if model == demo::NAME {
            let demo = demo::Demo::load()?;
            return Ok(Self { width: demo.width, height: demo.height, steps: demo.steps, guidance_scale: 0.0 });
        }
        // The schedule tells the two apart: 3 for Turbo, 6 for the base model.
        let base = !scheduler.use_dynamic_shifting && scheduler.shift >= (Family::Turbo.shift() + Family::Base.shift()) / 2.0;
        let (steps, guidance_scale) = if base { (28, 4.0) } else { (8, 0.0) };
        Ok(Self { width: 1024, height: 768, steps, guidance_scale })
    }
}

/// The files of `model`: `demo`, a path, or a hub id whose snapshot is in the hub's cache.
pub(crate) fn locate(model: &str, text_encoder: Option<&Path>, vae: Option<&Path>) -> anyhow::Result<Layout> {
    if model == demo::NAME {
        return demo::layout();
    }
    let path = Path::new(model);
    if path.exists() {
        return Ok(Layout::locate(path, text_encoder, vae)?);
    }
    if let Some(snapshot) = snapshot(model) {
        return Ok(Layout::locate(&snapshot, text_encoder, vae)?);
    }
    if is_hub_id(model) {
        bail!(
            "--model {model}: it is not in the Hugging Face cache. Download it there (`hf download {model}`), or give a folder"
        );
    }
    bail!("--model {model}: there is no such file or folder; use `demo`, a path, or a hub id as Tongyi-MAI/Z-Image-Turbo")
}

fn is_hub_id(model: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty() && !p.starts_with('.') && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    matches!(model.split('/').collect::<Vec<_>>()[..], [owner, name] if part(owner) && part(name))
}

/// The newest snapshot of `main` in the hub's cache.
fn snapshot(model: &str) -> Option<PathBuf> {
    let folder = environment::hub_cache()?.join(format!("models--{}", is_hub_id(model).then(|| model.replace('/', "--"))?));
    let revision = std::fs::read_to_string(folder.join("refs/main")).ok()?;
    let snapshot = folder.join("snapshots").join(revision.trim());
    snapshot.join("model_index.json").exists().then_some(snapshot)
}

/// An adapter's file and scale, `FILE[:SCALE]`.
pub(crate) fn lora(text: &str) -> anyhow::Result<(PathBuf, f64)> {
    // A colon may be part of the path; only what reads as a number after the last one is a scale.
    if let Some((file, scale)) = text.rsplit_once(':') {
        if let Ok(scale) = scale.parse::<f64>() {
            if !scale.is_finite() || scale.abs() > 100.0 {
                bail!("--lora {text}: the scale is {scale}; it must lie between -100 and 100");
            }
            return Ok((file.into(), scale));
        }
    }
    let path = PathBuf::from(text);
    std::fs::metadata(&path).with_context(|| format!("--lora {text}"))?;
    Ok((path, 1.0))
}

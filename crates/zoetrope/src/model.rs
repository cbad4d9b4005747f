//! Which model a name means, and what it is used with when nobody says otherwise.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use zoetrope_checkpoint::{Family, Layout};
use zoetrope_engine::config::SchedulerConfig;

use crate::environment::Environment;
use crate::models::{Consent, Obtained};
use crate::{demo, models};

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
            return Ok(Self {
                width: demo.width,
                height: demo.height,
                steps: demo.steps,
                guidance_scale: 0.0,
            });
        }
        // The schedule tells the two apart: 3 for Turbo, 6 for the base model.
        let base = !scheduler.use_dynamic_shifting
            && scheduler.shift >= (Family::Turbo.shift() + Family::Base.shift()) / 2.0;
        let (steps, guidance_scale) = if base { (28, 4.0) } else { (8, 0.0) };
        Ok(Self { width: 1024, height: 768, steps, guidance_scale })
    }
}

/// The model, as it is named on the command line.
#[derive(clap::Args)]
#[group(id = "model-files")]
pub(crate) struct Args {
    /// `demo` (inside this program), a diffusers folder, a .safetensors or .gguf file, or a hub id.
    #[arg(long, default_value = demo::NAME)]
    pub(crate) model: String,
    /// The text encoder's file or folder, for models in single files.
    #[arg(long, value_name = "FILE")]
    pub(crate) text_encoder: Option<PathBuf>,
    /// The autoencoder's file or folder, for models in single files.
    #[arg(long, value_name = "FILE")]
    pub(crate) vae: Option<PathBuf>,
}

impl Args {
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            model: &self.model,
            text_encoder: self.text_encoder.as_deref(),
            vae: self.vae.as_deref(),
        }
    }
}

/// A model as it was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// `demo`, a path, or a hub id.
    pub(crate) model: &'a str,
    pub(crate) text_encoder: Option<&'a Path>,
    pub(crate) vae: Option<&'a Path>,
}

/// The model's files; those of a hub id are downloaded on first use, after saying what that costs.
pub(crate) fn locate(wanted: Wanted, environment: &Environment) -> anyhow::Result<Layout> {
    let Wanted { model, text_encoder, vae } = wanted;
    if model == demo::NAME {
        return demo::layout();
    }
    if Path::new(model).exists() {
        return Ok(Layout::locate(Path::new(model), text_encoder, vae)?);
    }
    let Ok(repo) = model.parse() else {
        bail!(
            "--model {model}: there is no such file or folder; use `demo`, a path, or a hub id as Tongyi-MAI/Z-Image-Turbo"
        )
    };
    match models::obtain(&environment.hub, &repo, Consent::Ask)
        .with_context(|| format!("--model {model}"))?
    {
        Obtained::Directory(folder) => Ok(Layout::locate(&folder, text_encoder, vae)?),
        Obtained::Files { transformer, text_encoder: own_text, vae: own_vae, configs } => {
            let (text_encoder, vae) = (text_encoder.unwrap_or(&own_text), vae.unwrap_or(&own_vae));
            Ok(Layout::locate(&transformer, Some(text_encoder), Some(vae))?.with_configs(&configs))
        }
    }
}

/// An adapter's file and scale, `FILE[:SCALE]`.
pub(crate) fn lora(text: &str) -> anyhow::Result<(PathBuf, f64)> {
    // A colon may be part of the path; only what reads as a number after the last one is a scale.
    let scaled =
        text.rsplit_once(':').and_then(|(file, scale)| Some((file, scale.parse::<f64>().ok()?)));
    if let Some((file, scale)) = scaled {
        if !scale.is_finite() || scale.abs() > 100.0 {
            bail!("--lora {text}: the scale is {scale}; it must lie between -100 and 100");
        }
        return Ok((file.into(), scale));
    }
    let path = PathBuf::from(text);
    std::fs::metadata(&path).with_context(|| format!("--lora {text}"))?;
    Ok((path, 1.0))
}

//! Options of `zoetrope generate` beside prompt, size, steps and seed: samplers, noise levels, seeds and tiles.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use zoetrope_api::{Controls, Sampler, Sigmas, Tiling, TilingMode, Variation};

/// What was typed of them.
#[derive(clap::Args)]
#[group(id = "controls")]
pub(crate) struct Args {
    /// euler, heun (two evaluations a step), dpmpp_2m or unipc.
    #[arg(long, default_value_t, value_name = "NAME")]
    sampler: Sampler,
    /// Noise levels before shifting, as 1,0.75,0.5,0.25: one a step, falling from at most 1 to above 0.
    #[arg(long, value_name = "LEVELS", value_delimiter = ',', conflicts_with = "steps")]
    sigmas: Vec<f32>,
    /// Make the edges meet: x (left and right), y (top and bottom) or both.
    #[arg(long, value_name = "EDGES")]
    tile: Option<Edges>,
    /// The side of the windows that tiles are drawn in, in latent pixels of 8 [default: 128].
    #[arg(long, value_name = "N")]
    tile_size: Option<u32>,
    /// From one window to the next, in latent pixels of 8 [default: 64; 96 with --upscale].
    #[arg(long, value_name = "N")]
    tile_stride: Option<u32>,
    /// Draw --image anew at so many times its size, window by window.
    #[arg(long, value_name = "TIMES", requires = "image", conflicts_with_all = ["tile", "size", "width", "height"])]
    upscale: Option<f64>,
    /// A seed whose noise the picture leans towards, as far as --variation-strength says.
    #[arg(long, value_name = "SEED")]
    variation_seed: Option<u64>,
    /// How far: 0 is the noise of --seed, 1 that of --variation-seed.
    #[arg(long, value_name = "X", default_value_t = 0.1, requires = "variation_seed")]
    variation_strength: f64,
    /// Start picture i of --count from SEED + i, as if it had been asked for alone; with --variation-seed, that one counts on.
    #[arg(long)]
    seed_per_image: bool,
    /// Take (word:1.2) in the prompt as a weight, and not as text.
    #[arg(long)]
    prompt_weighting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Edges {
    X,
    Y,
    Both,
}

/// From one window to the next where a picture is upscaled: they overlap by a quarter.
const UPSCALE_STRIDE: u32 = 96;
/// As far as a picture is upscaled at once; beyond that the windows see nothing that they know.
const UPSCALE_MAX: f64 = 4.0;

impl Args {
    /// How many times its size an image is drawn anew, if it is.
    pub(crate) fn upscale(&self) -> anyhow::Result<Option<f64>> {
        match self.upscale {
            Some(times) if !(times > 1.0 && times <= UPSCALE_MAX) => {
                bail!("--upscale {times}: give a number above 1, and at most {UPSCALE_MAX}")
            }
            times => Ok(times),
        }
    }

    /// Whether an image is drawn anew, larger.
    pub(crate) fn is_upscale(&self) -> bool {
        self.upscale.is_some()
    }

    /// What it means.
    pub(crate) fn controls(&self) -> anyhow::Result<Controls> {
        let sigmas = match &self.sigmas[..] {
            [] => None,
            sigmas => Some(Sigmas::new(sigmas.to_vec()).context("--sigmas")?),
        };
        let variation =
            self.variation_seed.map(|seed| Variation::new(seed, self.variation_strength));
        Ok(Controls {
            sampler: self.sampler,
            sigmas,
            tiling: self.tiling()?,
            variation: variation.transpose().context("--variation-strength")?,
            seed_per_image: self.seed_per_image,
            prompt_weighting: self.prompt_weighting,
        })
    }

    fn tiling(&self) -> anyhow::Result<Option<Tiling>> {
        let mode = match (self.tile, self.upscale) {
            (Some(Edges::X), _) => TilingMode::Horizontal,
            (Some(Edges::Y), _) => TilingMode::Vertical,
            (Some(Edges::Both), _) => TilingMode::Both,
            (None, Some(_)) => TilingMode::Windows,
            (None, None) if self.tile_size.is_some() || self.tile_stride.is_some() => {
                bail!("--tile-size and --tile-stride go with --tile or --upscale")
            }
            (None, None) => return Ok(None),
        };
        let usual = match mode {
            TilingMode::Windows => UPSCALE_STRIDE,
            _ => Tiling::STRIDE_DEFAULT,
        };
        let size = self.tile_size.unwrap_or(Tiling::SIZE_DEFAULT);
        // Smaller windows overlap by the same share unless told otherwise.
        let scaled =
            (size * usual / Tiling::SIZE_DEFAULT / 2 * 2).clamp(Tiling::STRIDE.0, Tiling::STRIDE.1);
        let stride = self.tile_stride.unwrap_or(scaled);
        Ok(Some(Tiling::new(mode, size, stride)?))
    }

    /// What of it a picture was made with, for its metadata.
    pub(crate) fn parameters(&self, controls: &Controls) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| fields.insert(name.into(), value);
        if controls.sampler != Sampler::default() {
            add("sampler", json!(controls.sampler));
        }
        if let Some(sigmas) = &controls.sigmas {
            add("sigmas", json!(sigmas));
        }
        if let Some(Tiling { mode, size, stride }) = controls.tiling {
            add("tiling_mode", json!(mode));
            add("tile_size", size.into());
            add("tile_stride", stride.into());
        }
        if let Some(times) = self.upscale {
            add("upscale", times.into());
        }
        if let Some(Variation { seed, strength }) = controls.variation {
            add("variation_seed", seed.into());
            add("variation_strength", strength.into());
        }
        for (name, on) in [
            ("seed_per_image", controls.seed_per_image),
            ("prompt_weighting", controls.prompt_weighting),
        ] {
            if on {
                add(name, true.into());
            }
        }
        fields
    }
}

//! Pictures that `zoetrope generate` follows: `--control` with its network, and `--reference`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use candle_core::Device;
use clap::ValueEnum;
use serde_json::{Value, json};
use zoetrope_api::{ControlSpan, ImageSize};
use zoetrope_checkpoint::Layout;
use zoetrope_engine::guides::{Control, Gap, Reference};
use zoetrope_engine::pipeline::Pipeline;
use zoetrope_files::{CANNY_THRESHOLDS, Limits, Picture};
use zoetrope_worker::reference;

use crate::depth;
use crate::environment::Environment;
use crate::generate::{read_image, to_rgb};

/// What was typed about it.
#[derive(clap::Args)]
#[group(id = "guides")]
pub(crate) struct Args {
    /// A picture whose edges, depth or pose is followed, and how strongly [default: 0.75]; with --image and --mask the network paints the
    /// mask's white part.
    #[arg(long, value_name = "FILE[:SCALE]", requires = "controlnet")]
    control: Option<String>,
    /// The control network, as Z-Image-Turbo-Fun-Controlnet-Union: its file, or a folder as diffusers saves it.
    #[arg(long, value_name = "PATH", requires = "control")]
    controlnet: Option<PathBuf>,
    /// What is made of the control picture first: none, where it is edges, depth or a pose already, canny, its edges, or depth.
    #[arg(long, value_enum, default_value = "none", requires = "control")]
    control_preprocess: Preprocess,
    #[command(flatten)]
    depth: depth::Args,
    /// The share of the steps after which the control network begins to work.
    #[arg(long, value_name = "X", default_value_t = 0.0, requires = "control")]
    control_start: f64,
    /// The share of the steps after which it ends.
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "control")]
    control_end: f64,
    /// A picture that the prompt speaks of, for models that see pictures (Z-Image-Omni, Z-Image-Edit); may be given several times.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "control"])]
    reference: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preprocess {
    None,
    Canny,
    Depth,
}

/// The files that were named.
pub(crate) struct Guides {
    /// With its scale.
    pub(crate) control: Option<(Picture, f64)>,
    references: Vec<Picture>,
}

/// How strongly a control network works where nobody said, as diffusers has it.
const SCALE: f64 = 0.75;

impl Args {
    /// `layout` with the control network that was named.
    pub(crate) fn layout(&self, layout: Layout) -> anyhow::Result<Layout> {
        match &self.controlnet {
            Some(path) => layout.with_control(path).context("--controlnet"),
            None => Ok(layout),
        }
    }

    /// Reads what was named. A depth network is in memory no longer than it looks.
    pub(crate) fn read(
        &self,
        limits: &Limits,
        environment: &Environment,
        device: &Device,
    ) -> anyhow::Result<Guides> {
        let control = self.control.as_deref().map(|text| -> anyhow::Result<_> {
            let (path, scale) = scaled(text)?;
            let picture = read_image(&path, limits)?;
            let followed = match self.control_preprocess {
                Preprocess::None => picture,
                Preprocess::Canny => picture.edges(CANNY_THRESHOLDS),
                Preprocess::Depth => {
                    let network = self.depth.network(environment, device)?;
                    let network = network.context(
                        "--control-preprocess depth needs a network; `zoetrope models pull depth` fetches one",
                    )?;
                    network.of(&picture).context("--control-preprocess depth")?
                }
            };
            Ok((followed, scale))
        });
        let references = self.reference.iter().map(|path| read_image(path, limits));
        Ok(Guides {
            control: control.transpose()?,
            references: references.collect::<Result<_, _>>()?,
        })
    }

    /// The engine's request of a control network, which may have a gap to fill.
    pub(crate) fn control(
        &self,
        guides: &Guides,
        gap: Option<Gap>,
        size: ImageSize,
    ) -> anyhow::Result<Option<Control>> {
        let Some((picture, scale)) = &guides.control else { return Ok(None) };
        let span = ControlSpan::new(*scale, self.control_start, self.control_end)?;
        let image = Some(to_rgb(picture.resized(size.width(), size.height())));
        Ok(Some(Control { image, gap, span }))
    }

    /// What a picture's parameters say of it.
    pub(crate) fn describe(&self, add: &mut dyn FnMut(&str, Value)) {
        let path = |path: &Path| path.display().to_string();
        if let (Some(control), Some(network)) = (&self.control, &self.controlnet) {
            add("control", control.clone().into());
            add("controlnet", path(network).into());
            add("control_span", json!([self.control_start, self.control_end]));
            if let Some(value) = self.control_preprocess.to_possible_value()
                && self.control_preprocess != Preprocess::None
            {
                add("control_preprocess", value.get_name().into());
            }
        }
        if !self.reference.is_empty() {
            let paths: Vec<_> = self.reference.iter().map(|one| path(one)).collect();
            add("references", paths.into());
        }
    }
}

impl Guides {
    /// The picture whose size the result has where nobody asked for one: the control picture, or the last reference, as diffusers has it.
    pub(crate) fn shape(&self) -> Option<&Picture> {
        self.control.as_ref().map(|(picture, _)| picture).or(self.references.last())
    }

    /// The references at the sizes that `pipeline` takes them in.
    pub(crate) fn references(
        &self,
        pipeline: &Pipeline,
        size: Option<ImageSize>,
    ) -> anyhow::Result<Vec<Reference>> {
        let all = self.references.iter().map(|picture| reference(pipeline, picture, size));
        Ok(all.collect::<Result<_, _>>()?)
    }
}

/// A control picture's file and scale, `FILE[:SCALE]`.
fn scaled(text: &str) -> anyhow::Result<(PathBuf, f64)> {
    // A colon may be part of the path; only what reads as a number after the last one is a scale.
    let parts =
        text.rsplit_once(':').and_then(|(file, scale)| Some((file, scale.parse::<f64>().ok()?)));
    match parts {
        Some(("", _)) => bail!("--control {text}: there is no file before the scale"),
        Some((file, scale)) => Ok((file.into(), scale)),
        None => Ok((text.into(), SCALE)),
    }
}

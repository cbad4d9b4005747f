//! `zoetrope generate`: what was typed becomes a request, and the pictures become files.

mod output;

use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use zoetrope_api::fal::PIXELS_MAX;
use zoetrope_api::{Acceleration, Count, Guidance, ImageSize, OnFlagged, Seed, Steps, Strength};
use zoetrope_checkpoint::{Blob, Storage};
use zoetrope_engine::Interrupt;
use zoetrope_engine::guides::Gap;
use zoetrope_engine::lora::Applied;
use zoetrope_engine::pipeline::{Generated, Keep, Listener, Options, Pipeline, Request, Source};
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::prompt::TOKENS_MAX;
use zoetrope_files::{Limits, Picture};
use zoetrope_worker::Checker;

use crate::environment::Environment;
use crate::model::Defaults;
use crate::safety::Choice;
use crate::terminal::Terminal;
use crate::{
    controls, demo, device, expansion,
    guides::{self, Guides},
    model, packed, progress, prompts, safety, signals,
};

use output::{outputs, report, save};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    prompts: prompts::Args,
    #[command(flatten)]
    model: model::Args,
    /// Pixels across, a multiple of 16.
    #[arg(long, conflicts_with = "size")]
    width: Option<u32>,
    /// Pixels down, a multiple of 16.
    #[arg(long, conflicts_with = "size")]
    height: Option<u32>,
    /// square_hd, landscape_4_3, …, WIDTHxHEIGHT, a ratio as 16:9, or auto for that of --image.
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Network evaluations [default: the model's].
    #[arg(long)]
    steps: Option<u32>,
    /// Where the random numbers start; the same seed makes the same picture [default: by chance].
    #[arg(long)]
    seed: Option<u64>,
    /// How many pictures.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// How strongly the prompt is followed; 0 is off [default: the model's].
    #[arg(long)]
    guidance_scale: Option<f64>,
    /// What the picture shall not show; it takes effect with guidance.
    #[arg(long)]
    negative_prompt: Option<String>,
    /// Caps the guided velocity at this multiple of the prompt's own; 0 is off.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    cfg_normalization: f64,
    /// Turns guidance off once this share of the way is done; 1 is never.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    cfg_truncation: f64,
    /// An image to start from.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How much of the image is drawn anew, 0 to 1 [default: 0.6; 0.1 with --upscale].
    #[arg(long, requires = "image")]
    strength: Option<f64>,
    /// Paint only where this image is white.
    #[arg(long, value_name = "FILE", requires = "image")]
    mask: Option<PathBuf>,
    #[command(flatten)]
    guides: guides::Args,
    /// A LoRA or LoKr file with its scale; may be given several times.
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
    /// auto (a GPU of NVIDIA's where this build and machine have one), cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "auto")]
    device: String,
    /// auto, f32, bf16, f16, fp8, int8, q8_0, q6_k, q5_k, q4_k or q4_0.
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// none (as the dtype says), regular (the same; float16 weights as bfloat16 where --dtype is auto, and attention's scores
    /// in 8 bits beside weights of 16 bits and fewer) or high (the transformer in 8 bits, and steps predicted from those before them).
    #[arg(long, default_value_t, value_name = "LEVEL")]
    acceleration: Acceleration,
    /// Let the text encoder make the prompt more detailed first; the picture's file keeps both.
    #[arg(long)]
    expand: bool,
    #[command(flatten)]
    expansion: expansion::Args,
    #[command(flatten)]
    safety: safety::Args,
    #[command(flatten)]
    controls: controls::Args,
    /// Show on the terminal what the picture looks like after each step.
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    packed: packed::Args,
    /// The file to write, .png, .jpg, .webp, .gif or .avif [default: named after the prompt].
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Write the final latents, `[n, 16, h, w]` float32, as a safetensors file.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// How much of an image is drawn anew where nobody said.
const STRENGTH: f64 = 0.6;
/// The same where it is upscaled: one of 8 steps, which draws what is small and nothing else.
const UPSCALE_STRENGTH: f64 = 0.1;

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    let prompts = args.prompts.read()?;
    let adapters = args.lora.iter().map(|l| model::lora(l)).collect::<anyhow::Result<Vec<_>>>()?;
    let storage: Storage = args.dtype.parse().context("--dtype")?;
    let device = device::parse(&args.device)?;
    let checker = checker(args, &device, environment)?;
    let guides = args.guides.read(&Limits::default(), environment, &device)?;
    let one = prompts.len() == 1 && !args.prompts.have_wildcards();
    let options = Options {
        storage: Some(storage),
        device,
        keep: if one { Keep::OneAtATime } else { Keep::All },
        packed: args.packed.folder(environment)?,
    };
    let layout = args.guides.layout(model::locate(args.model.wanted(), environment)?)?;
    let mut pipeline = Pipeline::open(layout, options)?;
    let defaults = Defaults::of(&args.model.model, pipeline.scheduler())?;
    let requests = requests(args, &prompts, &guides, &defaults, &pipeline)?;
    let outputs = outputs(args, &requests)?;
    if args.model.model == demo::NAME {
        for request in &requests {
            say_where_it_ends(&request.prompt)?;
        }
    }

    let interrupt = Interrupt::default();
    signals::on_ctrl_c(&interrupt)?;
    let terminal = Terminal::called(&environment.terminal);
    let mut applied = None;
    for (request, outputs) in requests.iter().zip(&outputs) {
        let (bar, on) = progress::listener(args.preview.then_some(terminal), checker.clone());
        let begun = Instant::now();
        let applied = match &mut applied {
            Some(applied) => applied,
            none => none.insert(read_adapters(&mut pipeline, &adapters, args.acceleration, &on)?),
        };
        let generated = pipeline.generate(request, applied, &interrupt, &on);
        bar.finish_and_clear();
        let made = Made::of(generated?, checker.as_ref())?;
        save(args, request, &made, outputs)?;
        report(args, request, &made, outputs, begun.elapsed().as_secs_f64());
        if let (Some(picture), false) = (made.pictures.first(), args.json) {
            terminal.show(picture);
        }
    }
    Ok(())
}

/// One request a prompt; with wildcards one a picture, because each has a prompt of its own.
fn requests(
    args: &Args,
    prompts: &[String],
    guides: &Guides,
    defaults: &Defaults,
    pipeline: &Pipeline,
) -> anyhow::Result<Vec<Request>> {
    let base = request(args, guides, defaults, pipeline)?;
    let mut requests = Vec::new();
    for prompt in prompts {
        let seed = args.seed.unwrap_or_else(by_chance);
        if !args.prompts.have_wildcards() {
            requests.push(Request { prompt: prompt.clone(), seed: Seed(seed), ..base.clone() });
            continue;
        }
        for i in 0..base.count.get() as u64 {
            let seed = seed.wrapping_add(i);
            let prompt = args.prompts.expanded(prompt, seed)?;
            let count = Count::new(1)?;
            requests.push(Request { prompt, seed: Seed(seed), count, ..base.clone() });
        }
    }
    Ok(requests)
}

/// What looks at the pictures. The embedded model's are looked at only where a checker is named.
fn checker(
    args: &Args,
    device: &candle_core::Device,
    environment: &Environment,
) -> anyhow::Result<Option<Checker>> {
    let named = matches!(args.safety.safety, Choice::Named(_));
    if args.model.model == demo::NAME && !named {
        return Ok(None);
    }
    args.safety.checker(environment, device)
}

/// What becomes files.
struct Made {
    pictures: Vec<Picture>,
    latents: candle_core::Tensor,
    /// What the prompt was expanded to, if it was.
    expanded: Option<String>,
    /// Which pictures were found unsafe and are black now; `None` where nobody looked.
    flagged: Option<Vec<bool>>,
}

impl Made {
    fn of(generated: Generated, checker: Option<&Checker>) -> anyhow::Result<Self> {
        let Generated { pictures, latents, expanded } = generated;
        let mut pictures: Vec<Picture> = pictures.iter().map(to_picture).collect();
        let flagged = checker.map(|checker| checker.look(&pictures)).transpose()?;
        if let Some(flagged) = &flagged {
            zoetrope_worker::safety::apply(OnFlagged::Blank, &mut pictures, flagged);
            let found = flagged.iter().filter(|found| **found).count();
            if found > 0 {
                eprintln!(
                    "note: the safety checker found {found} of {} unsafe, and black is in its place; --safety off draws without it",
                    flagged.len()
                );
            }
        }
        Ok(Self { pictures, latents, expanded, flagged })
    }
}

/// What all requests have in common; each has a prompt and a seed of its own.
fn request(
    args: &Args,
    guides: &Guides,
    defaults: &Defaults,
    pipeline: &Pipeline,
) -> anyhow::Result<Request> {
    let limits = Limits::default();
    let image = args.image.as_deref().map(|path| read_image(path, &limits)).transpose()?;
    let size = size(args, image.as_ref().or(guides.shape()), defaults)?;
    let fitted = |picture: Picture| to_rgb(picture.resized(size.width(), size.height()));
    let strength = Strength::new(strength(args))?;
    let mask =
        args.mask.as_deref().map(|path| zoetrope_files::read_mask(path, &limits)).transpose()?;
    let gap = match (&image, &mask) {
        // A control network that knows of gaps paints them itself, from noise alone.
        (Some(image), Some(mask)) if guides.control.is_some() => {
            let mask = mask.resized(size.width(), size.height()).grey;
            Some(Gap { image: fitted(image.clone()), mask })
        }
        _ => None,
    };
    let control = args.guides.control(guides, gap, size)?;
    let source = match (image, mask) {
        (None, _) => Source::Text,
        (Some(_), Some(_)) if control.is_some() => Source::Text,
        (Some(image), None) => Source::Image { image: fitted(image), strength },
        (Some(image), Some(mask)) => {
            let mask = mask.resized(size.width(), size.height()).grey;
            Source::Inpaint { image: fitted(image), mask, strength }
        }
    };
    let expansion = args.expansion.expansion(&args.model.model)?;
    let scale = args.guidance_scale.unwrap_or(defaults.guidance_scale);
    Ok(Request {
        prompt: String::new(),
        negative_prompt: args.negative_prompt.clone(),
        size,
        steps: Steps::new(args.steps.unwrap_or(defaults.steps))?,
        seed: Seed(0),
        count: Count::new(args.count)?,
        guidance: Guidance::new(scale, args.cfg_normalization, args.cfg_truncation)?,
        source,
        tokens_max: TOKENS_MAX,
        acceleration: args.acceleration,
        previews: args.preview,
        control,
        references: guides.references(pipeline, args.asks_for_a_size().then_some(size))?,
        expansion: args.expand.then_some(expansion),
        controls: args.controls.controls()?,
    })
}

impl Args {
    fn asks_for_a_size(&self) -> bool {
        self.size.is_some() || self.width.is_some() && self.height.is_some()
    }
}

fn strength(args: &Args) -> f64 {
    let usual = if args.controls.is_upscale() { UPSCALE_STRENGTH } else { STRENGTH };
    args.strength.unwrap_or(usual)
}

pub(crate) fn read_image(path: &Path, limits: &Limits) -> anyhow::Result<Picture> {
    let decoded = zoetrope_files::read(path, limits)?;
    for note in decoded.notes {
        eprintln!("note: {}: {note}", path.display());
    }
    Ok(decoded.picture)
}

/// The size that was asked for; else the image's, rounded down to multiples of 16 and shrunk to 4 megapixels; else the model's.
fn size(args: &Args, image: Option<&Picture>, defaults: &Defaults) -> anyhow::Result<ImageSize> {
    if let Some(text) = args.size.as_ref().filter(|text| *text != "auto") {
        let area = u64::from(defaults.width) * u64::from(defaults.height);
        return Ok(ImageSize::parse(text, area)?);
    }
    let times = args.controls.upscale()?;
    let (width, height) = match image {
        Some(image) if image.width < 16 || image.height < 16 => {
            bail!(
                "--image is {}x{} pixels; give a --size of at least 16x16",
                image.width,
                image.height
            )
        }
        Some(image) => fitting(image, times),
        None if args.size.is_some() => bail!("--size auto is the size of --image; give that too"),
        None => (defaults.width, defaults.height),
    };
    Ok(ImageSize::new(args.width.unwrap_or(width), args.height.unwrap_or(height))?)
}

/// An image's size in multiples of 16, `times` as large, or shrunk to what models draw in one piece.
fn fitting(image: &Picture, times: Option<f64>) -> (u32, u32) {
    let pixels = f64::from(image.width) * f64::from(image.height);
    let scale = times.unwrap_or_else(|| (PIXELS_MAX as f64 / pixels).sqrt().min(1.0));
    let side = |side: u32| {
        let scaled = (f64::from(side) * scale) as u32;
        (scaled / ImageSize::MULTIPLE * ImageSize::MULTIPLE).max(ImageSize::MULTIPLE)
    };
    (side(image.width), side(image.height))
}

fn by_chance() -> u64 {
    // The standard library's hash keys come from the system's random numbers; 32 bits are all that count.
    std::collections::hash_map::RandomState::new().build_hasher().finish() & 0xffff_ffff
}

fn say_where_it_ends(prompt: &str) -> anyhow::Result<()> {
    if let Some(word) = demo::Demo::load()?.stranger(prompt) {
        eprintln!(
            "note: the embedded demonstration model draws simple landscapes and does not know “{word}”; for anything else \
             use --model with a full Z-Image, as Tongyi-MAI/Z-Image-Turbo"
        );
    }
    Ok(())
}

fn read_adapters(
    pipeline: &mut Pipeline,
    files: &[(PathBuf, f64)],
    acceleration: Acceleration,
    on: &Listener,
) -> anyhow::Result<Vec<Applied>> {
    let read = |(path, scale): &(PathBuf, f64)| {
        let adapter = pipeline.read_adapter(&Blob::File(path.clone()), acceleration, on)?;
        Ok(Applied { adapter: Arc::new(adapter), scale: *scale })
    };
    files.iter().map(read).collect()
}

fn to_picture(rgb: &Rgb) -> Picture {
    Picture { width: rgb.width as u32, height: rgb.height as u32, rgb: rgb.bytes.clone() }
}

pub(crate) fn to_rgb(picture: Picture) -> Rgb {
    Rgb { width: picture.width as usize, height: picture.height as usize, bytes: picture.rgb }
}

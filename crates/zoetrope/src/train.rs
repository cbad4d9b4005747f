//! `zoetrope train`: a folder of pictures becomes an adapter's file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::json;
use zoetrope_api::ImageSize;
use zoetrope_checkpoint::{Naming, Storage};
use zoetrope_engine::Interrupt;
use zoetrope_engine::pipeline::{Keep, Options, Pipeline};
use zoetrope_trainer::settings::{self, Lora, RateSchedule, Settings, Targets, Timesteps};
use zoetrope_trainer::{Beside, Job, Samples, data};

use crate::environment::Environment;
use crate::model::Defaults;
use crate::{demo, device, model, packed, progress, signals};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder or a zip of pictures. Captions are beside them (`name.txt`), in metadata.jsonl or captions.csv, or --default-caption.
    data: PathBuf,
    #[command(flatten)]
    model: model::Args,
    /// The file to write, .safetensors [default: named after the trigger or the folder].
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Where the run keeps what it needs to go on, its samples and its report [default: the output's name with .training].
    #[arg(long, value_name = "FOLDER")]
    work: Option<PathBuf>,
    /// Begin anew where the work folder holds a run.
    #[arg(long)]
    restart: bool,

    /// The caption of pictures without one.
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    default_caption: Option<String>,
    /// A word for what is learned: it takes the place of [trigger] in captions, or stands in front of them.
    #[arg(long, value_name = "WORD", help_heading = "Data")]
    trigger: Option<String>,
    /// Pixels a side of a square of the area that pictures are trained at [default: 1024; of the embedded model 192].
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    resolution: Option<u32>,
    /// End at the first file that cannot be used, in place of leaving it out.
    #[arg(long, help_heading = "Data")]
    strict: bool,
    /// Pictures with captions of the same kind that shall stay what they are; one goes with each picture.
    #[arg(long, value_name = "FOLDER", help_heading = "Data")]
    prior: Option<PathBuf>,
    /// How much those count.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Data")]
    prior_weight: f64,
    /// How much the loss counts where a mask is black or a picture transparent.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Data")]
    outside_mask: f64,

    /// Updates of the adapter.
    #[arg(long, default_value_t = 1000, help_heading = "Training")]
    steps: usize,
    /// Pictures an update; memory is that of one.
    #[arg(long, default_value_t = 1, help_heading = "Training")]
    batch: usize,
    /// The highest learning rate [default: 0.0001; 1 with prodigy].
    #[arg(long, value_name = "X", help_heading = "Training")]
    learning_rate: Option<f64>,
    /// constant or cosine.
    #[arg(long, value_enum, default_value = "constant", help_heading = "Training")]
    schedule: Schedule,
    /// Updates until the rate is at its height.
    #[arg(long, value_name = "STEPS", default_value_t = 0, help_heading = "Training")]
    warmup: usize,
    /// adamw, adamw8bit or prodigy.
    #[arg(long, value_enum, default_value = "adamw", help_heading = "Training")]
    optimizer: Optimizer,
    /// Decay of the adapter's values.
    #[arg(long, value_name = "X", default_value_t = 0.01, help_heading = "Training")]
    weight_decay: f64,
    /// The most that the norm of the gradients may be; 0 is off.
    #[arg(long, value_name = "NORM", default_value_t = 1.0, help_heading = "Training")]
    clip: f64,
    /// Noise levels: uniform, logit-normal, logit-normal:MEAN:DEVIATION, shifted (as the model's steps are), shifted:S, content, style or
    /// balanced.
    #[arg(long, default_value = "shifted", value_parser = timesteps, help_heading = "Training")]
    timesteps: Timesteps,
    /// Share of pictures that are shown without their caption.
    #[arg(long, value_name = "X", default_value_t = 0.05, help_heading = "Training")]
    caption_dropout: f64,
    /// How much it counts that the model stays what it was, under the prior's captions or none: keeps a distilled model distilled.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Training")]
    preserve: f64,
    /// An adapter that is on the model while it is trained and no part of the result, as one that undoes a distillation.
    #[arg(long, value_name = "FILE[:SCALE]", help_heading = "Training")]
    beside: Vec<String>,
    /// An adapter of the same shape to go on from.
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    continue_from: Option<PathBuf>,
    /// Decay of an average of the adapter, which is written in place of its last values; 0 is off.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Training")]
    ema: f64,
    /// Where the random numbers start; the same seed and data make the same adapter.
    #[arg(long, default_value_t = 0, help_heading = "Training")]
    seed: u64,

    /// Inner width of the adapter.
    #[arg(long, default_value_t = 16, help_heading = "Adapter")]
    rank: usize,
    /// The adapter is scaled by alpha / rank [default: the rank].
    #[arg(long, value_name = "X", help_heading = "Adapter")]
    alpha: Option<f64>,
    /// Layers: attention, feed-forward and modulation, with commas.
    #[arg(long, default_value = "attention,feed-forward", value_parser = targets, help_heading = "Adapter")]
    targets: Targets,
    /// Share of a layer's inputs that an update does not see.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Adapter")]
    dropout: f64,
    /// How the file calls its tensors: diffusers, comfyui or kohya. All are read by `zoetrope generate --lora`.
    #[arg(long, default_value = "diffusers", help_heading = "Adapter")]
    naming: Naming,

    /// Draw this on the way; may be given several times.
    #[arg(long, value_name = "PROMPT", help_heading = "On the way")]
    sample: Vec<String>,
    /// Updates between samples; 0 is only before the first and after the last.
    #[arg(long, value_name = "STEPS", default_value_t = 250, help_heading = "On the way")]
    sample_every: usize,
    /// Size of samples, as of --size of `generate` [default: a square of --resolution].
    #[arg(long, value_name = "SIZE", help_heading = "On the way")]
    sample_size: Option<String>,
    /// Updates between checkpoints; an interrupted run goes on from the last one with the same command.
    #[arg(long, value_name = "STEPS", default_value_t = 100, help_heading = "On the way")]
    save_every: usize,
    /// Checkpoints that are kept.
    #[arg(long, value_name = "COUNT", default_value_t = 2, help_heading = "On the way")]
    keep: usize,

    /// auto (a GPU of NVIDIA's where this build and machine have one), cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "auto", help_heading = "Memory")]
    device: String,
    /// The form of the frozen weights: auto, f32, bf16, f16, fp8, int8, q8_0, q6_k, q5_k, q4_k or q4_0.
    #[arg(long, default_value = "auto", help_heading = "Memory")]
    dtype: String,
    /// Compute what layers need for their gradients again in place of keeping it: on, off, or auto (on for models of full size).
    #[arg(long, value_enum, default_value = "auto", help_heading = "Memory")]
    checkpointing: Checkpointing,
    #[command(flatten)]
    packed: packed::Args,
    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Schedule {
    Constant,
    Cosine,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Optimizer {
    Adamw,
    Adamw8bit,
    Prodigy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Checkpointing {
    Auto,
    On,
    Off,
}

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<ExitCode> {
    let storage: Storage = args.dtype.parse().context("--dtype")?;
    let options = Options {
        storage: Some(storage),
        device: device::parse(&args.device)?,
        keep: Keep::All,
        packed: args.packed.folder(environment)?,
    };
    let layout = model::locate(args.model.wanted(), environment)?;
    let mut pipeline = Pipeline::open(layout, options)?;
    let defaults = Defaults::of(&args.model.model, pipeline.scheduler())?;
    let job = job(args, &mut pipeline, &defaults)?;
    let output = output(args);
    zoetrope_files::check_writable(&output)?;
    prepare_folder(&job.folder, args.restart)?;

    let interrupt = Interrupt::default();
    signals::on_ctrl_c(&interrupt)?;
    let (bar, on) = progress::training();
    let trained = zoetrope_trainer::train(&mut pipeline, &job, &interrupt, &on);
    bar.finish_and_clear();
    let trained = match trained {
        Err(zoetrope_trainer::Error::Engine(zoetrope_engine::Error::Interrupted)) => {
            let folder = job.folder.display();
            eprintln!("interrupted; the same command goes on with what is in {folder}");
            return Ok(130.into());
        }
        trained => trained?,
    };
    zoetrope_files::write(&output, &trained.file(args.naming)?)?;
    report(args, &job, &output);
    Ok(ExitCode::SUCCESS)
}

fn job(args: &Args, pipeline: &mut Pipeline, defaults: &Defaults) -> anyhow::Result<Job> {
    let usual = if args.model.model == demo::NAME { defaults.width } else { 1024 };
    let resolution = args.resolution.unwrap_or(usual);
    let settings = settings(args, resolution, pipeline)?;
    let area = u64::from(resolution) * u64::from(resolution);
    let size = args.sample_size.clone().unwrap_or_else(|| "1:1".into());
    if args.save_every == 0 {
        bail!("--save-every 0: give a number of updates above 0");
    }
    Ok(Job {
        data: args.data.clone(),
        data_settings: data::Settings {
            resolution,
            default_caption: args.default_caption.clone(),
            trigger: args.trigger.clone(),
            strict: args.strict,
            prior: args.prior.clone(),
        },
        settings,
        folder: args.work.clone().unwrap_or_else(|| output(args).with_extension("training")),
        beside: args.beside.iter().map(|text| beside(text)).collect::<anyhow::Result<_>>()?,
        continue_from: args.continue_from.clone(),
        samples: Samples {
            prompts: args.sample.clone(),
            every: args.sample_every,
            size: ImageSize::parse(&size, area).context("--sample-size")?,
            steps: defaults.steps,
            guidance_scale: defaults.guidance_scale,
            seed: args.seed,
        },
        save_every: args.save_every,
        keep: args.keep,
    })
}

fn settings(args: &Args, resolution: u32, pipeline: &mut Pipeline) -> anyhow::Result<Settings> {
    let usual_rate = if args.optimizer == Optimizer::Prodigy { 1.0 } else { 1e-4 };
    let settings = Settings {
        steps: args.steps,
        batch: args.batch,
        learning_rate: args.learning_rate.unwrap_or(usual_rate),
        schedule: match args.schedule {
            Schedule::Constant => RateSchedule::Constant,
            Schedule::Cosine => RateSchedule::Cosine,
        },
        warmup: args.warmup,
        optimizer: match args.optimizer {
            Optimizer::Adamw => settings::Optimizer::AdamW,
            Optimizer::Adamw8bit => settings::Optimizer::AdamW8bit,
            Optimizer::Prodigy => settings::Optimizer::Prodigy,
        },
        weight_decay: args.weight_decay,
        clip: args.clip,
        lora: Lora {
            rank: args.rank,
            alpha: args.alpha.unwrap_or(args.rank.max(1) as f64),
            targets: args.targets,
            dropout: args.dropout,
        },
        timesteps: args.timesteps,
        caption_dropout: args.caption_dropout,
        outside_mask: args.outside_mask,
        prior_weight: args.prior_weight,
        preserve: args.preserve,
        ema: args.ema,
        seed: args.seed,
        resolution,
        checkpointing: match args.checkpointing {
            Checkpointing::On => true,
            Checkpointing::Off => false,
            Checkpointing::Auto => settings::usual_checkpointing(pipeline.width()),
        },
    };
    Ok(settings.check()?)
}

fn beside(text: &str) -> anyhow::Result<Beside> {
    let (file, scale) = model::lora(text)?;
    Ok(Beside { file, scale })
}

fn output(args: &Args) -> PathBuf {
    let named = || {
        let trigger = args.trigger.as_deref().map(str::trim).filter(|t| !t.is_empty());
        let data = || args.data.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let stem = trigger.map(ToString::to_string).or_else(data).unwrap_or_default();
        let safe = |c: char| if c.is_alphanumeric() || "-_".contains(c) { c } else { '-' };
        let stem: String = stem.chars().take(48).map(safe).collect();
        PathBuf::from(format!("{}.safetensors", if stem.is_empty() { "lora" } else { &stem }))
    };
    args.output.clone().unwrap_or_else(named)
}

/// Makes the work folder; with `restart` what a run left of itself is removed, and nothing else.
fn prepare_folder(folder: &Path, restart: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for part in ["checkpoints", "samples"].map(|part| folder.join(part)) {
        if restart && part.is_dir() {
            std::fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
        }
    }
    Ok(())
}

fn report(args: &Args, job: &Job, output: &Path) {
    let page = job.folder.join("report.html");
    if args.json {
        let fields = json!({
            "path": output.display().to_string(),
            "report": page.display().to_string(),
            "steps": job.settings.steps,
        });
        println!("{fields}");
        return;
    }
    println!("{} ({} updates; {})", output.display(), job.settings.steps, page.display());
}

fn targets(text: &str) -> Result<Targets, String> {
    let mut targets = Targets { attention: false, feed_forward: false, modulation: false };
    for part in text.split(',').map(str::trim) {
        match part {
            "attention" => targets.attention = true,
            "feed-forward" => targets.feed_forward = true,
            "modulation" => targets.modulation = true,
            _ => return Err(format!("`{part}` is none of attention, feed-forward and modulation")),
        }
    }
    Ok(targets)
}

fn timesteps(text: &str) -> Result<Timesteps, String> {
    let mut parts = text.split(':');
    let kind = parts.next().unwrap_or_default();
    let numbers = parts.map(|part| part.parse().map_err(|_| format!("`{part}` is no number")));
    let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    match (kind, numbers[..].as_ref()) {
        ("uniform", []) => Ok(Timesteps::Uniform),
        ("logit-normal", []) => Ok(Timesteps::LogitNormal { mean: 0.0, deviation: 1.0 }),
        ("logit-normal", [mean, deviation]) => {
            Ok(Timesteps::LogitNormal { mean: *mean, deviation: *deviation })
        }
        ("shifted", []) => Ok(Timesteps::Shifted { shift: None }),
        ("shifted", [shift]) => Ok(Timesteps::Shifted { shift: Some(*shift) }),
        ("content", []) => Ok(Timesteps::Content),
        ("style", []) => Ok(Timesteps::Style),
        ("balanced", []) => Ok(Timesteps::Balanced),
        _ => Err(
            "use uniform, logit-normal[:MEAN:DEVIATION], shifted[:S], content, style or balanced"
                .into(),
        ),
    }
}

//! `zoetrope bench`: how fast each stage runs on this machine, and how much of what the machine could do that is.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use candle_core::Device;
use serde_json::{Value, json};
use zoetrope_api::{Acceleration, ImageSize};
use zoetrope_checkpoint::Storage;
use zoetrope_engine::device_name;
use zoetrope_engine::pipeline::{Keep, Listener, Options, Pipeline};
use zoetrope_engine::speed::{self, Arithmetic, Plan, Stage};
use zoetrope_files::Picture;

use crate::environment::Environment;
use crate::{device, model, packed, safety};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Sizes of pictures, as 512x512.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "256x256,512x512")]
    size: Vec<String>,
    /// auto, f32, bf16, f16, fp8, int8, q8_0, q6_k, q5_k, q4_k or q4_0.
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// none, regular or high; with high, steps that are predicted from those before them are a stage of their own.
    #[arg(long, default_value_t, value_name = "LEVEL")]
    acceleration: Acceleration,
    /// auto (a GPU of NVIDIA's where this build and machine have one), cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    tokens: u16,
    /// Runs of each stage, of which the median is printed; one more before them warms up.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// Measure a token of an expanded prompt, too.
    #[arg(long)]
    expand: bool,
    /// Measure a safety checker on four pictures of 1024x1024, too: a folder, or the hub id of one that was pulled.
    #[arg(long, value_name = "CHECKER")]
    safety: Option<safety::Choice>,
    #[command(flatten)]
    packed: packed::Args,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Pixels of sizes that are given as ratios.
const AREA: u64 = 512 * 512;

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    let sizes = args.size.iter().map(|size| ImageSize::parse(size, AREA));
    let plan = Plan {
        sizes: sizes.collect::<Result<_, _>>().context("--size")?,
        acceleration: args.acceleration,
        tokens: usize::from(args.tokens),
        expansion: args.expand,
        runs: usize::from(args.runs),
    };
    let storage: Storage = args.dtype.parse().context("--dtype")?;
    let device = device::parse(&args.device)?;
    let options = Options {
        storage: Some(storage),
        device: device.clone(),
        keep: Keep::OneAtATime,
        packed: args.packed.folder(environment)?,
    };
    let mut pipeline = Pipeline::open(model::locate(args.model.wanted(), environment)?, options)?;

    let (peaks, bandwidth) = (Peaks::measure(), speed::memory_bandwidth());
    if !args.json {
        let memory = bandwidth / 1e9;
        println!(
            "{}, {} threads, {peaks}, memory {memory:.0} GB/s",
            speed::instructions(),
            speed::threads()
        );
        println!("{:<28} {:>9} {:>9}  share of peak", "stage", "seconds", "GFLOP/s");
    }
    let mut stages = Vec::new();
    let silent: Listener = Arc::new(|_| ());
    let mut done = |stage: Stage| {
        if !args.json {
            println!("{}", line(&stage, &peaks, bandwidth));
        }
        stages.push(stage);
    };
    speed::measure(&mut pipeline, &plan, &silent, &mut done)?;
    if let Some(choice) = &args.safety {
        done(look(choice, plan.runs, &device, environment)?);
    }
    let memory = peak_memory_bytes();
    if args.json {
        let stages: Vec<Value> =
            stages.iter().map(|stage| as_json(stage, &peaks, bandwidth)).collect();
        let report = json!({
            "instructions": speed::instructions(),
            "threads": speed::threads(),
            "device": device_name(&device),
            "model": args.model.model,
            "dtype": args.dtype,
            "acceleration": args.acceleration,
            "peak_operations_a_second": peaks.as_json(),
            "memory_bytes_a_second": bandwidth,
            "stages": stages,
            "peak_memory_bytes": memory,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if let Some(bytes) = memory {
        println!("peak memory {:.2} GB", bytes as f64 / 1e9);
    }
    Ok(())
}

/// The look at a request's pictures of 1024x1024, from resizing to the finding.
fn look(
    choice: &safety::Choice,
    runs: usize,
    device: &Device,
    environment: &Environment,
) -> anyhow::Result<Stage> {
    const COUNT: usize = 4;
    let chosen = safety::Args { safety: choice.clone() };
    let checker =
        chosen.checker(environment, device)?.context("--safety: there is no such checker")?;
    let pictures = vec![Picture { width: 1024, height: 1024, rgb: vec![127; 3 << 20] }; COUNT];
    checker.look(&pictures)?; // warms up
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        checker.look(&pictures)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Stage {
        name: format!("look at {COUNT} pictures"),
        seconds: seconds[seconds.len() / 2],
        operations: COUNT as f64 * checker.operations(),
        bytes: None,
    })
}

/// Operations a second in registers, by arithmetic; those that the processor has no instruction for are absent.
struct Peaks(Vec<(Arithmetic, f64)>);

impl Peaks {
    fn measure() -> Self {
        let all = [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8];
        Self(all.into_iter().filter_map(|kind| Some((kind, speed::peak(kind)?))).collect())
    }

    fn as_json(&self) -> Value {
        self.0.iter().map(|(kind, speed)| (name(*kind).to_string(), json!(speed))).collect()
    }

    /// What `stage` reached of each.
    fn shares(&self, stage: &Stage) -> impl Iterator<Item = (&'static str, f64)> {
        let speed = stage.operations / stage.seconds;
        self.0.iter().map(move |(kind, peak)| (name(*kind), speed / peak))
    }
}

impl std::fmt::Display for Peaks {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("in registers")?;
        self.0.iter().try_for_each(|(kind, v)| write!(f, " {} {:.0} GFLOP/s", name(*kind), v / 1e9))
    }
}

fn name(kind: Arithmetic) -> &'static str {
    match kind {
        Arithmetic::F32 => "f32",
        Arithmetic::Bf16 => "bf16",
        Arithmetic::Int8 => "int8",
    }
}

fn line(stage: &Stage, peaks: &Peaks, bandwidth: f64) -> String {
    let speed = stage.operations / stage.seconds / 1e9;
    let shares = peaks.shares(stage).map(|(kind, share)| format!("{:.0} % {kind}", 100.0 * share));
    let read = stage.bytes.map(|bytes| bytes / stage.seconds);
    let read = read.map(|speed| {
        format!("{:.1} GB/s, {:.0} % of memory", speed / 1e9, 100.0 * speed / bandwidth)
    });
    let shares = shares.chain(read).collect::<Vec<_>>().join(", ");
    format!("{:<28} {:>9.3} {speed:>9.1}  {shares}", stage.name, stage.seconds)
}

fn as_json(stage: &Stage, peaks: &Peaks, bandwidth: f64) -> Value {
    let shares: Value = peaks.shares(stage).map(|(kind, s)| (kind.to_string(), json!(s))).collect();
    json!({
        "stage": stage.name,
        "seconds": stage.seconds,
        "operations": stage.operations,
        "share_of_peak": shares,
        "bytes": stage.bytes,
        "share_of_memory": stage.bytes.map(|bytes| bytes / stage.seconds / bandwidth),
    })
}

/// The most memory that this process had at once, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

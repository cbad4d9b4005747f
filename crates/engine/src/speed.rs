//! How fast the networks run, stage by stage, and how fast the processor could: what `zoetrope bench` prints.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use zoetrope_api::{Acceleration, ImageSize, Seed};
use zoetrope_kernels::Level;
pub use zoetrope_kernels::peak::Arithmetic;
use zoetrope_kernels::peak::{multiply_in_registers, read_memory};

use crate::networks::reuse::Past;
use crate::noise::Generator;
use crate::pipeline::{Listener, Pipeline};
use crate::{Result, Unwatched};

/// Steps of the register benchmark: about a tenth of a second.
const PEAK_STEPS: usize = 8_000_000;

/// One measured stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What ran, as `transformer step 512x512`.
    pub name: String,
    /// The median of all runs but the first, which warms up.
    pub seconds: f64,
    /// Operations of its matrix products, attention and convolutions, a multiply-add being two.
    pub operations: f64,
    /// Bytes of weights that it reads, where that is what it waits for.
    pub bytes: Option<f64>,
}

/// The instruction set that kernels use here.
pub fn instructions() -> String {
    Level::best().to_string()
}

/// Threads that kernels use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Operations a second that all threads reach together in registers; `None` without such an instruction.
pub fn peak(arithmetic: Arithmetic) -> Option<f64> {
    let start = Instant::now();
    let work = rayon::broadcast(|_| multiply_in_registers(Level::best(), arithmetic, PEAK_STEPS));
    let operations = work.into_iter().sum::<Option<f64>>()?;
    Some(operations / start.elapsed().as_secs_f64())
}

/// Bytes read for the measurement of memory: far more than any cache holds.
const MEMORY_BYTES: usize = 512 << 20;

/// Bytes a second that all threads together read from memory: the best of three runs.
pub fn memory_bandwidth() -> f64 {
    let values = vec![1f32; MEMORY_BYTES / size_of::<f32>()];
    let once = || {
        let share = values.len().div_ceil(threads());
        let start = Instant::now();
        let sums = rayon::broadcast(|thread| {
            let from = (thread.index() * share).min(values.len());
            read_memory(Level::best(), &values[from..(from + share).min(values.len())])
        });
        std::hint::black_box(sums);
        MEMORY_BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once()).fold(0.0, f64::max)
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sizes of pictures, each a step of the transformer and a decoding.
    pub sizes: Vec<ImageSize>,
    /// How far it may be approximated.
    pub acceleration: Acceleration,
    /// Length of the prompt.
    pub tokens: usize,
    /// Whether words of an expanded prompt are, too, for which all of the text encoder is read.
    pub expansion: bool,
    /// Runs of each stage after the one that warms up.
    pub runs: usize,
}

/// Runs every stage of `pipeline`'s networks on random inputs, one network in memory at a time; `done` hears of each.
pub fn measure(
    pipeline: &mut Pipeline,
    plan: &Plan,
    on: &Listener,
    done: &mut dyn FnMut(Stage),
) -> Result<()> {
    let device = pipeline.parts().device().clone();
    let ids: Vec<u32> = (0..plan.tokens as u32).map(|i| 5 + i % 100).collect();
    let encoder = pipeline.text_encoder(plan.acceleration, on)?;
    let work = encoder.operations(plan.tokens);
    let stage = |seconds, operations, name| Stage { name, seconds, operations, bytes: None };
    let seconds = median(plan.runs, &device, || encoder.forward(&ids, &Unwatched))?;
    done(stage(seconds, work, format!("text encoder {} tokens", plan.tokens)));
    let features = encoder.forward(&ids, &Unwatched)?;
    if plan.expansion {
        done(words(pipeline, plan, &ids, on)?);
    }
    pipeline.parts().release();

    let transformer = pipeline.parts().transformer(plan.acceleration, on)?;
    let caption = transformer.caption(&features, &Unwatched)?;
    for size in &plan.sizes {
        let latents = latents(*size, transformer.channels(), &device)?;
        let batch = transformer.batch([(&caption, size.latent())])?;
        let latents = [latents];
        let work = transformer.operations(size.image_tokens(), caption.padded_tokens());
        let reusing = plan.acceleration == Acceleration::High;
        let (mut past, mut t) = (Past::default(), 0.5);
        let seconds = median(plan.runs, &device, || {
            t += 1e-6;
            // The first two leave what a third would be predicted from.
            let past = (reusing && t < 0.500_002_5).then_some(&mut past);
            transformer.forward(&batch, &latents, t, past, &Unwatched)
        })?;
        done(stage(seconds, work, format!("transformer step {size}")));
        if reusing {
            let seconds = median(plan.runs, &device, || {
                transformer.forward(&batch, &latents, t, Some(&mut past.clone()), &Unwatched)
            })?;
            let work =
                transformer.predicted_operations(size.image_tokens(), caption.padded_tokens());
            done(stage(seconds, work, format!("predicted step {size}")));
        }
    }
    let channels = transformer.channels();
    pipeline.parts().release();

    let vae = pipeline.parts().vae(on)?;
    for size in &plan.sizes {
        let latents = latents(*size, channels, &device)?.unsqueeze(0)?;
        let (height, width) = size.latent();
        let work = vae.decode_operations(height, width);
        let seconds = median(plan.runs, &device, || vae.decode(&latents, &Unwatched))?;
        done(stage(seconds, work, format!("decode {size}")));
    }
    Ok(())
}

/// A word of an expanded prompt, after a chat of `ids`.
fn words(pipeline: &mut Pipeline, plan: &Plan, ids: &[u32], on: &Listener) -> Result<Stage> {
    /// Words in a run, so that one is not too short to be measured.
    const AT_ONCE: usize = 8;
    let device = pipeline.parts().device().clone();
    let encoder = pipeline.language_model(plan.acceleration, on)?;
    let mut past = encoder.past(ids.len() + AT_ONCE * (plan.runs.max(1) + 1));
    encoder.next(ids, &mut past, &Unwatched)?;
    let seconds = median(plan.runs, &device, || {
        for token in &ids[..1].repeat(AT_ONCE) {
            encoder.next(&[*token], &mut past, &Unwatched)?;
        }
        Ok(())
    })?;
    let bytes = encoder.bytes_a_token() as f64;
    Ok(Stage {
        name: "token of an expanded prompt".into(),
        seconds: seconds / AT_ONCE as f64,
        operations: encoder.operations_a_word(),
        bytes: Some(bytes),
    })
}

fn latents(size: ImageSize, channels: usize, device: &Device) -> Result<Tensor> {
    let (height, width) = size.latent();
    Ok(Generator::new(Seed(0)).normal(&[channels, height, width], device)?.to_dtype(DType::F32)?)
}

/// Seconds of a run, once it is really done.
fn median<T>(runs: usize, device: &Device, mut work: impl FnMut() -> Result<T>) -> Result<f64> {
    work()?;
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

//! What a network needs, known before it is read, and what the machine has.

use candle_core::Device;
use sysinfo::System;
use zoetrope_api::Acceleration;
use zoetrope_checkpoint::{Storage, Weights};
use zoetrope_kernels::{device_memory, multiplies_fp8};

use crate::layers::Home;
use crate::{Error, Result};

/// Below this many parameters a network is kept in float32: exactness costs nothing that anyone would notice.
const SMALL_PARAMETERS: u64 = 200_000_000;

/// Room for activations, the runtime and what else the machine does.
const RESERVE_BYTES: u64 = 1 << 30;

/// The form a network is kept in when nobody chose one: small ones in float32, published float32 in bfloat16, and
/// everything else as the file has it.
///
/// Processors have no products of float16, so that beside it everything is float32. Unless nothing may be
/// approximated, float16 is taken as bfloat16.
pub(crate) fn storage_for(
    weights: &Weights,
    chosen: Option<Storage>,
    level: Acceleration,
) -> Storage {
    match chosen {
        Some(storage) if storage != Storage::AsStored => storage,
        _ if weights.parameters() < SMALL_PARAMETERS => Storage::F32,
        _ => match weights.form() {
            Storage::F32 => Storage::Bf16,
            Storage::F16 if level != Acceleration::None => Storage::Bf16,
            _ => Storage::AsStored,
        },
    }
}

/// What activations of a step at 1024 x 1024 take on a GPU, with room for results that the libraries there keep: its activations are two dozen
/// streams of 64 MB.
const GPU_WORK_BYTES: u64 = 1_500_000_000;

/// Free bytes of a GPU, and whether it multiplies 8-bit floats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gpu {
    free: u64,
    fp8: bool,
}

impl Gpu {
    /// Nothing for processors, and for devices that do not tell.
    pub(crate) fn of(device: &Device) -> Option<Self> {
        let (free, _) = device_memory(device)?;
        Some(Self { free, fp8: multiplies_fp8(device) })
    }

    /// `storage`, or the widest narrower form in which a component, whose bytes `needed` tells, leaves room for the work; the narrowest
    /// where none does.
    pub(crate) fn fitting(self, storage: Storage, needed: impl Fn(Storage) -> u64) -> Storage {
        let eight = if self.fp8 { Storage::Fp8 } else { Storage::Q8_0 };
        let narrower = [eight, Storage::Q6K, Storage::Q4K];
        let narrower = narrower.into_iter().filter(|form| needed(*form) < needed(storage));
        let mut last = storage;
        for form in [storage].into_iter().chain(narrower) {
            last = form;
            if self.holds(needed(form)) {
                break;
            }
        }
        last
    }

    /// Whether weights of so many bytes leave room for the work.
    fn holds(self, bytes: u64) -> bool {
        bytes + GPU_WORK_BYTES <= self.free
    }

    /// What is left beside weights of so many bytes.
    pub(crate) fn without(self, bytes: u64) -> Self {
        Self { free: self.free.saturating_sub(bytes), ..self }
    }
}

/// `storage`, or 8 bits where it is computed in wider numbers: on processors and GPUs in the form that they multiply fastest. GPUs that do not
/// multiply 8-bit floats gain nothing by them.
pub(crate) fn eight_bits(weights: &Weights, storage: Storage, device: &Device) -> Storage {
    let form = if storage == Storage::AsStored { weights.form() } else { storage };
    match form {
        Storage::F32 | Storage::Bf16 | Storage::F16 | Storage::Fp8 if device.is_cpu() => {
            Storage::Int8
        }
        Storage::F32 | Storage::Bf16 | Storage::F16
            if device.is_cuda() && multiplies_fp8(device) =>
        {
            Storage::Fp8
        }
        _ if device.is_cuda() => storage,
        Storage::F32 | Storage::Bf16 | Storage::F16 | Storage::Fp8 => Storage::Q8_0,
        _ => storage,
    }
}

/// Forms that `--dtype` may bring a model's networks to where the form they are in does not fit.
const NARROWER: &[Storage] =
    &[Storage::Bf16, Storage::Q8_0, Storage::Q6K, Storage::Q5K, Storage::Q4K];

/// As [`home`], of a network whose form nobody chooses.
pub(crate) fn home_as_it_is(
    component: &str,
    weights: &Weights,
    storage: Storage,
    device: &Device,
) -> Result<Home> {
    find_home(component, weights, (storage, &[]), device, 0)
}

/// Where `component` in `storage` stays; an error when it does not fit into what is free now. `beside` is what else is to come to the memory of the
/// device.
pub(crate) fn home(
    component: &str,
    weights: &Weights,
    storage: Storage,
    device: &Device,
    beside: u64,
) -> Result<Home> {
    find_home(component, weights, (storage, NARROWER), device, beside)
}

fn find_home(
    component: &str,
    weights: &Weights,
    (storage, narrower): (Storage, &[Storage]),
    device: &Device,
    beside: u64,
) -> Result<Home> {
    let needed = |storage| weights.memory_bytes(storage);
    if !device.is_cpu() {
        let gpu = Gpu::of(device).map(|gpu| gpu.without(beside));
        if gpu.is_none_or(|gpu| gpu.holds(needed(storage))) {
            return Ok(Home::Device);
        }
    }
    check_against(component, needed, (storage, narrower), available_bytes())?;
    Ok(if device.is_cpu() { Home::Device } else { Home::MainMemory })
}

fn check_against(
    component: &str,
    needed: impl Fn(Storage) -> u64,
    (storage, narrower): (Storage, &[Storage]),
    free: u64,
) -> Result<()> {
    let needs = |storage| needed(storage) + RESERVE_BYTES;
    if needs(storage) <= free {
        return Ok(());
    }
    let fits = narrower.iter().find(|storage| needs(**storage) <= free);
    let remedy = match (fits, narrower.last()) {
        (Some(fits), _) => format!("--dtype {fits} takes {} and fits", gigabytes(needs(*fits))),
        (None, Some(last)) => {
            let least = gigabytes(needs(*last));
            format!("even --dtype {last} takes {least}: close other programs")
        }
        (None, None) => "close other programs".into(),
    };
    let (need, have) = (gigabytes(needs(storage)), gigabytes(free));
    Err(Error::Memory(format!(
        "the {component} needs {need} of memory and {have} are free; {remedy}"
    )))
}

/// An error when the work on pictures of `tokens` tokens, `batch` at a time, cannot fit: `dim` and `ffn` are the
/// transformer's widths, `pixels` what the decoder holds at once.
pub(crate) fn check_work(
    tokens: usize,
    dim: usize,
    ffn: usize,
    pixels: usize,
    device: &Device,
) -> Result<()> {
    // A block holds about a dozen streams of `dim` and three of the feed-forward's width, and the scores are bounded.
    // The decoder in strips has two pictures of 128 channels, and the strips.
    let transformer = 4 * tokens as u64 * (12 * dim + 3 * ffn) as u64 + (512 << 20);
    let decoder = 4 * pixels as u64 * 128 * 2 + 4 * STRIPPED_VALUES as u64;
    let (needed, free) = (transformer.max(decoder), free_for_work(device));
    if needed <= free {
        return Ok(());
    }
    let (needed, free) = (gigabytes(needed), gigabytes(free));
    Err(Error::Memory(format!(
        "a picture of this size needs about {needed} of memory beside the weights and {free} are free; ask for a smaller one"
    )))
}

/// Values of a level's tensors together, above which it is decoded in strips where memory is short: 0.5 GB.
pub(crate) const STRIPPED_VALUES: usize = 128 << 20;

/// Whether memory suffices for decoding a picture of so many pixels in one piece, and for as much again.
pub(crate) fn decodes_whole(pixels: usize, device: &Device) -> bool {
    2 * whole_decode_bytes(pixels) <= free_for_work(device)
}

/// Bytes that activations can have: on a GPU its own, where it tells.
fn free_for_work(device: &Device) -> u64 {
    match device_memory(device) {
        Some((free, _)) => free,
        None if device.is_cpu() => available_bytes(),
        None => u64::MAX,
    }
}

/// Where it is widest, the decoder has 256 channels at full size, and twice 128 with what is made of them.
fn whole_decode_bytes(pixels: usize) -> u64 {
    4 * pixels as u64 * 128 * 5
}

/// Bytes that programs can still get; what kernels kept for their next results is given back before.
pub(crate) fn available_bytes() -> u64 {
    zoetrope_kernels::give_back_memory();
    // A system that does not tell is taken at the caller's word.
    let Ok(mut system) = System::new() else { return u64::MAX };
    system.refresh_memory();
    match system.cgroup_limits() {
        Some(limits) => system.available_memory().min(limits.free_memory.max(RESERVE_BYTES)),
        None => system.available_memory(),
    }
}

/// `12.3 GB`.
pub(crate) fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Z-Image's transformer and text encoder, bytes by form.
    fn sizes(parameters: f64) -> impl Fn(Storage) -> u64 {
        move |storage| {
            let bits = match storage {
                Storage::Bf16 => 16.0,
                Storage::Fp8 => 8.0,
                Storage::Q8_0 => 8.5,
                Storage::Q6K => 6.5625,
                Storage::Q4K => 4.5,
                _ => 32.0,
            };
            (parameters * bits / 8.0) as u64
        }
    }

    #[test]
    fn a_gpu_gets_the_widest_form_that_leaves_room_for_the_work() {
        let (transformer, encoder) = (sizes(6.15e9), sizes(3.5e9));
        for (free, fp8, want) in [
            (80.0, true, Storage::Bf16),
            (23.3, true, Storage::Bf16),
            (15.3, true, Storage::Bf16),
            (11.3, true, Storage::Fp8),
            (11.3, false, Storage::Q8_0),
            (7.2, true, Storage::Q6K),
            (5.2, false, Storage::Q4K),
            (3.0, false, Storage::Q4K),
        ] {
            let gpu = Gpu { free: (free * 1e9) as u64, fp8 };
            assert_eq!(gpu.fitting(Storage::Bf16, &transformer), want, "{free} GB");
            // Nothing that was chosen narrow becomes wider.
            assert_eq!(gpu.fitting(Storage::Q4K, &transformer), Storage::Q4K);
        }
        // Beside the transformer the text encoder has its place on 24 GB, and none on 16.
        for (free, stays) in [(23.3, true), (15.3, false)] {
            let gpu = Gpu { free: (free * 1e9) as u64, fp8: true };
            let left = gpu.without(transformer(Storage::Bf16));
            assert_eq!(left.holds(encoder(Storage::Bf16)), stays, "{free} GB");
        }
    }

    #[test]
    fn too_little_memory_names_the_dtype_that_fits() {
        let needed = |storage| match storage {
            Storage::Bf16 => 12_300_000_000,
            Storage::Q8_0 => 6_600_000_000,
            _ => 4_000_000_000,
        };
        let check = |free| check_against("transformer", needed, (Storage::Bf16, NARROWER), free);
        assert!(check(14_000_000_000).is_ok());
        let message = check(9_000_000_000).unwrap_err().to_string();
        assert_eq!(
            message,
            "the transformer needs 13.4 GB of memory and 9.0 GB are free; --dtype q8_0 takes 7.7 GB and fits"
        );
        assert!(
            check(1_000_000_000)
                .unwrap_err()
                .to_string()
                .contains("even --dtype q4_k takes 5.1 GB")
        );
        let fixed = check_against("depth network", needed, (Storage::F32, &[]), 1_000_000_000);
        let message = fixed.unwrap_err().to_string();
        assert!(message.ends_with("1.0 GB are free; close other programs"), "{message}");
    }
}

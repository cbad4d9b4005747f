//! What a network needs, known before it is read, and what the machine has.

use candle_core::Device;
use sysinfo::System;
use zoetrope_api::Acceleration;
use zoetrope_checkpoint::{Storage, Weights};

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

/// `storage`, or 8 bits where it is computed in wider numbers: on processors in the form that they multiply fastest.
pub(crate) fn eight_bits(weights: &Weights, storage: Storage, device: &Device) -> Storage {
    let form = if storage == Storage::AsStored { weights.form() } else { storage };
    match form {
        Storage::F32 | Storage::Bf16 | Storage::F16 | Storage::Fp8 if device.is_cpu() => {
            Storage::Int8
        }
        Storage::F32 | Storage::Bf16 | Storage::F16 | Storage::Fp8 => Storage::Q8_0,
        _ => storage,
    }
}

/// An error when `component` in `storage` does not fit into what is free now.
pub(crate) fn check(
    component: &str,
    weights: &Weights,
    storage: Storage,
    device: &Device,
) -> Result<()> {
    if !device.is_cpu() {
        return Ok(());
    }
    check_against(component, |storage| weights.memory_bytes(storage), storage, available_bytes())
}

fn check_against(
    component: &str,
    needed: impl Fn(Storage) -> u64,
    storage: Storage,
    free: u64,
) -> Result<()> {
    let needs = |storage| needed(storage) + RESERVE_BYTES;
    if needs(storage) <= free {
        return Ok(());
    }
    let smaller = [Storage::Bf16, Storage::Q8_0, Storage::Q6K, Storage::Q5K, Storage::Q4K];
    let fits = smaller.into_iter().find(|s| needs(*s) <= free);
    let remedy = match fits {
        Some(fits) => format!("--dtype {fits} takes {} and fits", gigabytes(needs(fits))),
        None => format!(
            "even --dtype q4_k takes {}: close other programs",
            gigabytes(needs(Storage::Q4K))
        ),
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
    let (needed, free) = (transformer.max(decoder), available_bytes());
    if !device.is_cpu() || needed <= free {
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
    !device.is_cpu() || 2 * whole_decode_bytes(pixels) <= available_bytes()
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

    #[test]
    fn too_little_memory_names_the_dtype_that_fits() {
        let needed = |storage| match storage {
            Storage::Bf16 => 12_300_000_000,
            Storage::Q8_0 => 6_600_000_000,
            _ => 4_000_000_000,
        };
        let check = |free| check_against("transformer", needed, Storage::Bf16, free);
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
    }
}

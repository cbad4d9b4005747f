//! Where the networks run.

use anyhow::{Context, bail};
use candle_core::Device;
use zoetrope_engine::{cuda_devices, open_cuda};

/// The device that `text` names: `auto`, `cpu`, `cuda`, `cuda:1` or `metal`; of several the first.
pub(crate) fn parse(text: &str) -> anyhow::Result<Device> {
    Ok(all(text)?.swap_remove(0))
}

/// All devices that `text` names, at least one: `auto` and `cuda` name every GPU, or, `auto` where there is none, the processor.
pub(crate) fn all(text: &str) -> anyhow::Result<Vec<Device>> {
    let (kind, index) = match text.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse::<usize>();
            (
                kind,
                Some(index.with_context(|| {
                    format!("--device {text}: what follows the colon is no number")
                })?),
            )
        }
        None => (text, None),
    };
    let said = || format!("--device {text}");
    match (kind, index) {
        ("auto", None) => {
            every_gpu().map(|gpus| if gpus.is_empty() { vec![Device::Cpu] } else { gpus })
        }
        ("cpu", None) => Ok(vec![Device::Cpu]),
        ("cuda", _) if !cfg!(feature = "cuda") => not_in_this_build(text, "cuda"),
        ("cuda", None) if !cuda_devices().is_empty() => every_gpu().with_context(said),
        ("cuda", index) => {
            let opened = open_cuda(index.unwrap_or(0));
            Ok(vec![opened.with_context(|| {
                format!(
                    "--device {text} (docs/gpu.md says what it needs; --device cpu needs nothing)"
                )
            })?])
        }
        ("metal", _) if !cfg!(feature = "metal") => not_in_this_build(text, "metal"),
        ("metal", index) => Ok(vec![Device::new_metal(index.unwrap_or(0)).with_context(said)?]),
        _ => {
            bail!("--device {text}: there is no such device; use auto, cpu, cuda, cuda:N or metal")
        }
    }
}

fn every_gpu() -> anyhow::Result<Vec<Device>> {
    Ok(cuda_devices().into_iter().map(open_cuda).collect::<candle_core::Result<_>>()?)
}

fn not_in_this_build(text: &str, feature: &str) -> anyhow::Result<Vec<Device>> {
    bail!(
        "--device {text}: this build does not have it; build with `--features {feature}`, or use --device cpu"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there() {
        assert!(parse("cpu").unwrap().is_cpu());
        assert_eq!(all("auto").unwrap().len(), cuda_devices().len().max(1));
    }

    #[test]
    fn what_is_no_device_is_named() {
        for (text, part) in [
            ("gpu", "use auto, cpu, cuda, cuda:N or metal"),
            ("cpu:1", "--device cpu:1"),
            ("cuda:first", "no number"),
            ("cuda:999", "--device cuda:999"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

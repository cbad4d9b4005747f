//! Where the networks run.

use anyhow::{Context, bail};
use candle_core::Device;

/// `cpu`, `cuda`, `cuda:1`, `metal`.
pub(crate) fn parse(text: &str) -> anyhow::Result<Device> {
    let (kind, index) = match text.split_once(':') {
        Some((kind, index)) => (
            kind,
            index.parse().with_context(|| format!("--device {text}: `{index}` is no number"))?,
        ),
        None => (text, 0),
    };
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" if cfg!(feature = "cuda") => {
            Device::new_cuda(index).with_context(|| format!("--device {text}"))
        }
        "metal" if cfg!(feature = "metal") => {
            Device::new_metal(index).with_context(|| format!("--device {text}"))
        }
        "cuda" | "metal" => {
            bail!(
                "--device {text}: this build runs on the CPU only; build it with `--features {kind}`, or use --device cpu"
            )
        }
        _ => bail!("--device {text}: there is no such device; use cpu, cuda, cuda:N or metal"),
    }
}

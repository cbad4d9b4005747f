//! Group norm over images (Wu & He, 2018), with float64 sums: a group at 1024² has millions of values, which
//! float32 sums of the plain twin would blur.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// `x`: `[batch, channels, height, width]`; `weight`, `bias`: `[channels]`. Mean and variance are taken over each of
/// `groups` runs of channels.
pub fn group_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
) -> Result<Tensor> {
    let (_, channels, _, _) = x.dims4()?;
    if groups == 0 || channels % groups != 0 {
        candle_core::bail!("group norm: {channels} channels do not divide into {groups} groups");
    }
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op3_no_bwd(weight, bias, &GroupNorm { groups, eps });
    }
    plain(x, weight, bias, groups, eps)
}

/// The plain twin.
fn plain(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let grouped = x.reshape((batch, groups, channels / groups * height * width))?;
    let normed = crate::layer_norm(&grouped, eps)?.reshape((batch, channels, height, width))?;
    let scaled = normed.broadcast_mul(&weight.reshape((1, channels, 1, 1))?)?;
    scaled.broadcast_add(&bias.reshape((1, channels, 1, 1))?)
}

struct GroupNorm {
    groups: usize,
    eps: f64,
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) =
            (slice(x, x_layout)?, slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let (_, channels, height, width) = x_layout.shape().dims4()?;
        let (per_group, plane) = (channels / self.groups, height * width);
        let mut out = vec![0f32; x.len()];
        let groups = out.par_chunks_mut(per_group * plane).zip(x.par_chunks(per_group * plane));
        groups.enumerate().for_each(|(index, (out, x))| {
            let (mean, scale) = statistics(x, self.eps);
            let first = index % self.groups * per_group;
            for (c, (out, x)) in out.chunks_mut(plane).zip(x.chunks(plane)).enumerate() {
                let factor = scale * weight[first + c];
                let offset = bias[first + c];
                out.iter_mut().zip(x).for_each(|(o, x)| *o = (x - mean) * factor + offset);
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("group norm takes contiguous float32"),
    }
}

/// Mean, and 1 / √(variance + eps).
fn statistics(x: &[f32], eps: f64) -> (f32, f32) {
    // Partial sums of short runs stay exact enough in float32 lanes only for tiny runs, so all is float64.
    let sum: f64 = x.iter().map(|&v| v as f64).sum();
    let mean = sum / x.len() as f64;
    let squares: f64 = x.iter().map(|&v| (v as f64 - mean).powi(2)).sum();
    (mean as f32, (1.0 / (squares / x.len() as f64 + eps).sqrt()) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_kernel_agrees_with_its_plain_twin() {
        let x = (Tensor::randn(0f32, 2.0, (2, 6, 5, 7), &Device::Cpu).unwrap() + 3.0).unwrap();
        let weight = Tensor::randn(1f32, 0.3, 6, &Device::Cpu).unwrap();
        let bias = Tensor::randn(0f32, 0.3, 6, &Device::Cpu).unwrap();
        for groups in [1, 2, 3, 6] {
            let got = group_norm(&x, &weight, &bias, groups, 1e-6).unwrap();
            let want = plain(&x, &weight, &bias, groups, 1e-6).unwrap();
            let error = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
        }
        assert!(group_norm(&x, &weight, &bias, 4, 1e-6).is_err());
    }
}

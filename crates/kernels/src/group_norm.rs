//! Group norm over images (Wu & He, 2018), with float64 sums: a group at 1024² has millions of values, which float32
//! sums of the plain twin would blur.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::memory::zeros;
use crate::simd::{Level, Simd, Work};
use crate::values::{Values, channels_last};

/// A norm over runs of channels.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Tensor,
    /// `[channels]`
    pub bias: Tensor,
    /// How many runs the channels are cut into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// Values that one thread sums up at a time.
const CHUNK: usize = 1 << 16;

/// `x`: `[batch, channels, height, width]`. Mean and variance are taken over each group of channels. The result lies in
/// memory with channels last.
pub fn group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    let (_, channels, _, _) = x.dims4()?;
    norm.check(channels)?;
    if x.track_op() || !x.device().is_cpu() {
        return plain(x, norm);
    }
    let x = channels_last(x)?;
    let (batch, height, width, _) = x.dims4()?;
    let values = Values::of(&x);
    let mut out = zeros(x.elem_count());
    let size = height * width * channels;
    for (x, out) in values.f32()?.chunks(size.max(1)).zip(out.chunks_mut(size.max(1))) {
        let affine = norm.affine(Level::best(), x)?;
        let rows = out.par_chunks_mut(channels * 64).zip(x.par_chunks(channels * 64));
        rows.for_each(|(out, x)| {
            for (out, x) in out.chunks_mut(channels).zip(x.chunks(channels)) {
                let affine = affine.factors.iter().zip(&affine.offsets);
                out.iter_mut()
                    .zip(x.iter().zip(affine))
                    .for_each(|(o, (x, (f, a)))| *o = x * f + a);
            }
        });
    }
    Tensor::from_vec(out, (batch, height, width, channels), &Device::Cpu)?.permute((0, 3, 1, 2))
}

/// The plain twin: the path of gradients and of other devices.
pub(crate) fn plain(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let grouped = x.reshape((batch, norm.groups, channels / norm.groups * height * width))?;
    let normed =
        crate::layer_norm(&grouped, norm.eps)?.reshape((batch, channels, height, width))?;
    let scaled = normed.broadcast_mul(&norm.weight.reshape((1, channels, 1, 1))?)?;
    scaled.broadcast_add(&norm.bias.reshape((1, channels, 1, 1))?)
}

/// A norm with its statistics: `x · factor + offset`, one of each a channel.
pub(crate) struct Affine {
    pub(crate) factors: Vec<f32>,
    pub(crate) offsets: Vec<f32>,
}

impl GroupNorm {
    pub(crate) fn check(&self, channels: usize) -> Result<()> {
        if self.groups == 0 || channels % self.groups != 0 || self.weight.elem_count() != channels {
            candle_core::bail!(
                "group norm: {channels} channels do not divide into {} groups of a norm over {}",
                self.groups,
                self.weight.elem_count()
            );
        }
        Ok(())
    }

    /// For one image, `[pixels, channels]`.
    pub(crate) fn affine(&self, level: Level, image: &[f32]) -> Result<Affine> {
        let (weight, bias) = (self.weight.contiguous()?, self.bias.contiguous()?);
        let (weight, bias) = (Values::of(&weight), Values::of(&bias));
        let (weight, bias) = (weight.f32()?, bias.f32()?);
        let channels = weight.len();
        let at_once = (CHUNK / channels).max(1) * channels;
        let sums = image.par_chunks(at_once).map(|x| level.run(Sums { x, channels })).reduce(
            || vec![[0f64; 2]; channels],
            |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = [a[0] + b[0], a[1] + b[1]]);
                a
            },
        );
        let per_group = channels / self.groups;
        let count = (image.len() / channels * per_group) as f64;
        let mut affine = Affine { factors: Vec::new(), offsets: Vec::new() };
        for (i, sums) in sums.chunks(per_group).enumerate() {
            let total = sums.iter().fold([0f64; 2], |t, s| [t[0] + s[0], t[1] + s[1]]);
            let mean = total[0] / count;
            let variance = (total[1] / count - mean * mean).max(0.0);
            let scale = 1.0 / (variance + self.eps).sqrt();
            for c in i * per_group..(i + 1) * per_group {
                let factor = scale * f64::from(weight[c]);
                affine.factors.push(factor as f32);
                affine.offsets.push((f64::from(bias[c]) - mean * factor) as f32);
            }
        }
        Ok(affine)
    }
}

/// Sum and sum of squares of each channel.
struct Sums<'a> {
    x: &'a [f32],
    channels: usize,
}

impl Work for Sums<'_> {
    type Out = Vec<[f64; 2]>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Out {
        let (mut sums, mut squares) = (vec![0f64; self.channels], vec![0f64; self.channels]);
        for pixel in self.x.chunks_exact(self.channels) {
            for ((sum, square), x) in sums.iter_mut().zip(&mut squares).zip(pixel) {
                let x = f64::from(*x);
                *sum += x;
                *square += x * x;
            }
        }
        sums.into_iter().zip(squares).map(|(sum, square)| [sum, square]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::worst;

    #[test]
    fn the_kernel_agrees_with_its_plain_twin() {
        let x = (Tensor::randn(0f32, 2.0, (2, 6, 5, 7), &Device::Cpu).unwrap() + 3.0).unwrap();
        let weight = Tensor::randn(1f32, 0.3, 6, &Device::Cpu).unwrap();
        let bias = Tensor::randn(0f32, 0.3, 6, &Device::Cpu).unwrap();
        let norm =
            |groups| GroupNorm { weight: weight.clone(), bias: bias.clone(), groups, eps: 1e-6 };
        for groups in [1, 2, 3, 6] {
            let got = group_norm(&x, &norm(groups)).unwrap();
            let want = plain(&x, &norm(groups)).unwrap();
            assert!(worst(&got, &want) < 1e-5);
        }
        let message = group_norm(&x, &norm(4)).unwrap_err().to_string();
        assert!(message.contains("6 channels do not divide into 4 groups"), "{message}");
    }
}

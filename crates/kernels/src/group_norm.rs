//! Group norm over images (Wu & He, 2018), with float64 sums: a group at 1024² has millions of values, which float32
//! sums of the plain twin would blur.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::memory::unwritten;
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
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::group_norm(x, norm)? {
        return Ok(y);
    }
    if x.track_op() || !x.device().is_cpu() {
        return plain(x, norm);
    }
    let x = channels_last(x)?;
    let (batch, height, width, _) = x.dims4()?;
    let values = Values::of(&x);
    let mut out = unwritten(x.elem_count());
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
pub struct Affine {
    pub(crate) factors: Vec<f32>,
    pub(crate) offsets: Vec<f32>,
}

/// What a norm needs to know of an image, gathered from pieces of it.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Sum and sum of squares of each channel.
    sums: Vec<[f64; 2]>,
    pixels: usize,
}

impl Statistics {
    /// Adds a piece, `[1, channels, height, width]`.
    pub fn add(&mut self, piece: &Tensor) -> Result<()> {
        let (batch, channels, height, width) = piece.dims4()?;
        if batch != 1 || !(self.sums.is_empty() || self.sums.len() == channels) {
            candle_core::bail!("{:?} is no piece of one image", piece.dims());
        }
        self.pixels += height * width;
        #[cfg(feature = "cuda")]
        if let Some(sums) = crate::cuda::channel_sums(piece)? {
            self.sums = added(std::mem::take(&mut self.sums), sums);
            return Ok(());
        }
        let piece = channels_last(&piece.to_device(&Device::Cpu)?)?;
        self.add_pixels(Level::best(), Values::of(&piece).f32()?, channels);
        Ok(())
    }

    fn add_pixels(&mut self, level: Level, pixels: &[f32], channels: usize) {
        let at_once = (CHUNK / channels).max(1) * channels;
        let none = || vec![[0f64; 2]; channels];
        let sums = pixels.par_chunks(at_once).map(|x| level.run(Sums { x, channels }));
        let sums = sums.reduce(none, added);
        self.sums = added(std::mem::take(&mut self.sums), sums);
    }
}

/// Sums of the same channels, or of the one that there is.
fn added(mut a: Vec<[f64; 2]>, b: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    if a.is_empty() {
        return b;
    }
    a.iter_mut().zip(b).for_each(|(a, b)| *a = [a[0] + b[0], a[1] + b[1]]);
    a
}

impl Affine {
    /// The plain twin.
    pub(crate) fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let of_channels = |values: &[f32]| {
            Tensor::from_slice(values, (1, values.len(), 1, 1), &Device::Cpu)?.to_device(x.device())
        };
        let scaled = x.broadcast_mul(&of_channels(&self.factors)?)?;
        scaled.broadcast_add(&of_channels(&self.offsets)?)
    }
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
        let channels = self.weight.elem_count();
        let mut statistics = Statistics::default();
        statistics.add_pixels(level, image, channels);
        statistics.pixels = image.len() / channels;
        self.with(&statistics)
    }

    /// The norm of an image whose pieces were all added to `statistics`.
    pub fn with(&self, statistics: &Statistics) -> Result<Affine> {
        let near = |x: &Tensor| x.to_device(&Device::Cpu)?.contiguous();
        let (weight, bias) = (near(&self.weight)?, near(&self.bias)?);
        let (weight, bias) = (Values::of(&weight), Values::of(&bias));
        let (weight, bias) = (weight.f32()?, bias.f32()?);
        let Statistics { sums, pixels } = statistics;
        self.check(sums.len())?;
        let per_group = sums.len() / self.groups;
        let count = (pixels * per_group) as f64;
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
    fn pieces_have_the_statistics_of_the_whole() {
        let x = (Tensor::randn(0f32, 2.0, (1, 6, 9, 7), &Device::Cpu).unwrap() + 3.0).unwrap();
        let ones = |v: f64| Tensor::full(v as f32, 6, &Device::Cpu).unwrap();
        let norm = GroupNorm { weight: ones(1.5), bias: ones(0.5), groups: 3, eps: 1e-6 };
        let mut statistics = Statistics::default();
        for (start, rows) in [(0, 2), (2, 6), (8, 1)] {
            statistics.add(&x.narrow(2, start, rows).unwrap()).unwrap();
        }
        let got = norm.with(&statistics).unwrap().plain(&x).unwrap();
        assert!(worst(&got, &plain(&x, &norm).unwrap()) < 1e-5);
        assert!(statistics.add(&x.narrow(1, 0, 4).unwrap()).is_err());
    }

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

//! Convolution as a sum of products, one for each pixel of the filter: pixels are rows that overlap in memory, so no
//! matrix of patches is ever written.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::{Before, Conv};
use crate::Precision;
use crate::group_norm::Affine;
use crate::math::silu;
use crate::product::output::{Rectangle, rectangles};
use crate::product::pack;
use crate::product::tile::{Dot, DotBf16, DotF32, Strided, tile};
use crate::product::{Kind, WIDE, for_height, heights};
use crate::simd::{Level, Simd, Work};
use crate::values::{Values, channels_last};

/// Bytes of prepared input that exist at once: in the third cache, and small against the image.
const STRIP_BYTES: usize = 16 << 20;

/// Filter pixels, at most: 3 × 3.
const RUNS: usize = 9;

/// A filter in panels: `size · size` runs of channels for 32 outputs at a time.
pub(super) struct Packed {
    kind: Kind,
    units: Vec<u32>,
    /// Units of a panel.
    panel: usize,
}

impl Packed {
    /// `weight`: `[out, channels, size, size]`.
    pub(super) fn new(level: Level, weight: &Tensor, precision: Precision) -> Result<Self> {
        let (out, channels, size, _) = weight.dims4()?;
        if size * size > RUNS {
            candle_core::bail!("a filter of {size} x {size} is larger than 3 x 3");
        }
        let kind = match precision {
            Precision::Bf16 if level.has_bf16() => Kind::Bf16,
            _ => Kind::F32,
        };
        let weight = weight.permute((0, 2, 3, 1))?.contiguous()?; // [out, size, size, channels]
        let values = Values::of(&weight);
        let rows = values.f32()?;
        let run = kind.right_units(channels);
        let panel = size * size * run;
        let mut units = vec![0u32; out.div_ceil(WIDE) * panel];
        for (rows, units) in rows.chunks(WIDE * size * size * channels).zip(units.chunks_mut(panel))
        {
            for (i, units) in units.chunks_mut(run).enumerate() {
                let columns =
                    rows.chunks(size * size * channels).map(|r| &r[i * channels..][..channels]);
                pack::panel(kind, columns, units);
            }
        }
        Ok(Self { kind, units, panel })
    }

    /// The weight, `[out, channels, size, size]`.
    pub(super) fn to_f32(&self, [out, channels, size]: [usize; 3]) -> Result<Tensor> {
        let run = self.kind.right_units(channels);
        let value = |i: usize| {
            let (o, pixel, c) =
                (i / (size * size * channels), i / channels % (size * size), i % channels);
            let units = &self.units[o / WIDE * self.panel + pixel * run..];
            match self.kind {
                Kind::Bf16 => {
                    let unit = units[c / 2 * WIDE + o % WIDE];
                    f32::from_bits(if c % 2 == 0 { unit << 16 } else { unit & 0xffff_0000 })
                }
                _ => f32::from_bits(units[c * WIDE + o % WIDE]),
            }
        };
        let values: Vec<f32> = (0..out * size * size * channels).map(value).collect();
        Tensor::from_vec(values, (out, size, size, channels), &Device::Cpu)?
            .permute((0, 3, 1, 2))?
            .contiguous()
    }
}

/// As [`super::conv2d`], with the instructions of `level`.
pub(super) fn conv2d(
    level: Level,
    (x, before): (&Tensor, Before),
    (conv, filter): (Conv, &Packed),
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let x = channels_last(x)?;
    let residual = residual.map(channels_last).transpose()?;
    let bias = conv.bias.contiguous()?;
    let (batch, height, width, channels) = x.dims4()?;
    let [out_channels, _, size] = conv.filter.dims;
    let times = if matches!(before, Before::Double) { 2 } else { 1 };
    let across =
        |n: usize| (times * n + conv.padding[0] + conv.padding[1] - size) / conv.stride + 1;
    let shape = Shape {
        size,
        stride: conv.stride,
        padding: conv.padding[0],
        times,
        input: [height, width, channels],
        padded: times * width + conv.padding[0] + conv.padding[1],
        output: [across(height), across(width), out_channels],
    };
    let (x, bias) = (Values::of(&x), Values::of(&bias));
    let residual = residual.as_ref().map(Values::of);
    let residual = residual.as_ref().map(Values::f32).transpose()?;
    let image = height * width * channels;
    let out_image = shape.output.iter().product::<usize>();
    let mut out = vec![0f32; batch * out_image];
    for (i, out) in out.chunks_mut(out_image.max(1)).enumerate() {
        let x = &x.f32()?[i * image..][..image];
        let affine = match before {
            Before::NormSilu(norm) => Some(norm.affine(level, x)?),
            _ => None,
        };
        let job = Job {
            level,
            filter,
            shape,
            x,
            affine: affine.as_ref(),
            bias: bias.f32()?,
            residual: residual.map(|r| &r[i * out_image..][..out_image]),
        };
        job.run(out);
    }
    let [height, width, _] = shape.output;
    Tensor::from_vec(out, (batch, height, width, out_channels), &Device::Cpu)?.permute((0, 3, 1, 2))
}

#[derive(Clone, Copy)]
struct Shape {
    size: usize,
    stride: usize,
    /// At the left and top.
    padding: usize,
    /// 2 where every pixel becomes 2 × 2.
    times: usize,
    /// Height, width and channels.
    input: [usize; 3],
    /// Width of a prepared row.
    padded: usize,
    /// Height, width and channels.
    output: [usize; 3],
}

/// One image.
#[derive(Clone, Copy)]
struct Job<'a> {
    level: Level,
    filter: &'a Packed,
    shape: Shape,
    x: &'a [f32],
    affine: Option<&'a Affine>,
    bias: &'a [f32],
    residual: Option<&'a [f32]>,
}

impl Job<'_> {
    /// Strip by strip: input rows are prepared, then multiplied.
    fn run(self, out: &mut [f32]) {
        let Shape { size, stride, padded, output: [height, width, channels], .. } = self.shape;
        let row_units = padded * self.filter.kind.left_units(self.shape.input[2]);
        let rows_at_once = (STRIP_BYTES / 4 / row_units.max(1)).clamp(size, usize::MAX);
        let strip = ((rows_at_once - size) / stride + 1).min(height.max(1));
        let mut prepared = vec![0u32; ((strip - 1) * stride + size) * row_units];
        for (i, out) in out.chunks_mut((strip * width * channels).max(1)).enumerate() {
            let first = i * strip;
            let rows = out.len() / (width * channels);
            let needed = ((rows - 1) * stride + size) * row_units;
            prepared[..needed].par_chunks_mut(row_units).enumerate().for_each(|(row, units)| {
                self.level.run(Prepare { job: self, row: first * stride + row, units });
            });
            // Bands of a few rows: as many tasks as keep all threads busy to the end.
            let wanted = rows.div_ceil(4 * rayon::current_num_threads()).max(1);
            rectangles(out, channels, (wanted * width, WIDE)).with_max_len(1).for_each(|out| {
                let prepared = &prepared;
                self.level.run(Band { job: self, prepared, first, out });
            });
        }
    }
}

/// One padded input row: normed, doubled, rounded.
struct Prepare<'a> {
    job: Job<'a>,
    /// Of the padded image.
    row: usize,
    units: &'a mut [u32],
}

impl Work for Prepare<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Shape { padding, times, input: [height, width, channels], .. } = self.job.shape;
        let kind = self.job.filter.kind;
        let pixel_units = kind.left_units(channels);
        let row = self.row.wrapping_sub(padding);
        if row >= times * height {
            self.units.fill(0);
            return;
        }
        let from = &self.job.x[row / times * width * channels..][..width * channels];
        let (left, rest) = self.units.split_at_mut(padding * pixel_units);
        let (middle, right) = rest.split_at_mut(times * width * pixel_units);
        left.fill(0);
        right.fill(0);
        let mut changed = vec![0f32; channels];
        let pixels = from.chunks_exact(channels).zip(middle.chunks_exact_mut(times * pixel_units));
        for (pixel, units) in pixels {
            let (first, second) = units.split_at_mut(pixel_units);
            match self.job.affine {
                Some(Affine { factors, offsets }) => {
                    let affine = factors.iter().zip(offsets);
                    let values = changed.iter_mut().zip(pixel.iter().zip(affine));
                    values.for_each(|(c, (x, (f, o)))| *c = silu(x * f + o));
                    pack::row(kind, &changed, 1, first);
                }
                None => pack::row(kind, pixel, 1, first),
            }
            if times == 2 {
                second.copy_from_slice(first);
            }
        }
    }
}

/// Some output rows, for the outputs of one panel.
struct Band<'a> {
    job: Job<'a>,
    prepared: &'a [u32],
    /// The strip's first output row.
    first: usize,
    /// Pixels of the strip times outputs.
    out: Rectangle<'a>,
}

impl Work for Band<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let width = self.job.shape.output[1];
        let rows = self.out.rows.start / width..self.out.rows.end / width;
        for row in rows {
            for (x, pixels) in heights(width, S::ROWS) {
                macro_rules! go {
                    ($pixels:literal) => {
                        match self.job.filter.kind {
                            Kind::Bf16 if S::BF16 => self.tile::<_, DotBf16, $pixels>(simd, row, x),
                            _ => self.tile::<_, DotF32, $pixels>(simd, row, x),
                        }
                    };
                }
                for_height!(pixels, S::ROWS, go);
            }
        }
    }
}

impl Band<'_> {
    /// `M` pixels of a row, from `x` on.
    #[inline(always)]
    fn tile<S: Simd, D: Dot, const M: usize>(&mut self, simd: S, row: usize, x: usize) {
        let Job { filter, shape, bias, residual, .. } = self.job;
        let depth = filter.kind.left_units(shape.input[2]);
        let mut runs = [Strided { units: &[], stride: shape.stride * depth }; RUNS];
        for (i, run) in runs[..shape.size * shape.size].iter_mut().enumerate() {
            let (down, across) = (i / shape.size, i % shape.size);
            let pixel = (row * shape.stride + down) * shape.padded + x * shape.stride + across;
            run.units = &self.prepared[pixel * depth..];
        }
        let runs = &runs[..shape.size * shape.size];
        let columns = self.out.columns.clone();
        let right = &filter.units[columns.start / WIDE * filter.panel..][..filter.panel];
        let mut sums = [[0f32; WIDE]; M];
        tile::<_, D, _, M>(simd, runs, depth, right, &mut sums);
        for (i, sums) in sums.iter().enumerate() {
            let pixel = row * shape.output[1] + x + i;
            let to = self.out.row(pixel, columns.clone());
            let with_bias = sums.iter().zip(&bias[columns.clone()]);
            to.iter_mut().zip(with_bias).for_each(|(o, (s, b))| *o = s + b);
            if let Some(residual) = residual {
                let at = (self.first * shape.output[1] + pixel) * shape.output[2];
                let residual = &residual[at..][columns.clone()];
                to.iter_mut().zip(residual).for_each(|(o, r)| *o += r);
            }
        }
    }
}

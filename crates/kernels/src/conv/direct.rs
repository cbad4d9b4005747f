//! Convolution as a product of patches, strip by strip: each output pixel's patch is a row of the left side.

use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

use super::Image;
use super::input::Input;
use crate::memory::Units;
use crate::product::multiply::{Finish, Right, multiply};
use crate::product::pack::{self, Rows};
use crate::product::{Kind, WIDE};
use crate::rows::Source;
use crate::simd::{Level, Simd, Work};

/// Bytes of patches that exist at once: in the third cache, and small against the image.
const STRIP_BYTES: usize = 8 << 20;

/// A filter in panels, `size · size · channels` values deep.
pub(super) struct Packed {
    kind: Kind,
    depth: usize,
    units: Units,
}

impl Packed {
    /// `weight`: `[out, size, size, channels]` without gaps.
    pub(super) fn new(
        level: Level,
        kind: Kind,
        weight: &[f32],
        [out, channels, size]: [usize; 3],
    ) -> Self {
        let depth = size * size * channels;
        let panel = kind.right_units(depth);
        let mut units = Units::zeros(out.div_ceil(WIDE) * panel);
        for (rows, units) in weight.chunks(WIDE * depth).zip(units.chunks_mut(panel)) {
            level.run(PackPanel { kind, rows, depth, units });
        }
        Self { kind, depth, units }
    }

    /// The weight as it was given.
    pub(super) fn to_f32(&self, out: usize) -> Vec<f32> {
        let panel = self.kind.right_units(self.depth);
        let value = |i: usize| {
            let (o, k) = (i / self.depth, i % self.depth);
            let units = &self.units[o / WIDE * panel..];
            match self.kind {
                Kind::Bf16 => {
                    let unit = units[k / 2 * WIDE + o % WIDE];
                    f32::from_bits(if k % 2 == 0 { unit << 16 } else { unit & 0xffff_0000 })
                }
                _ => f32::from_bits(units[k * WIDE + o % WIDE]),
            }
        };
        (0..out * self.depth).map(value).collect()
    }

    /// The convolution of one image.
    pub(super) fn run(&self, level: Level, image: &Image, out: &mut [f32]) -> Result<()> {
        let Image { x, affine, dims, times, padding: [padding, right], wrap, .. } = *image;
        let input = Input { x, affine, dims, times, padding, wrap, pixel: dims[2] };
        let padded = padding + times * dims[1] + right;
        let [height, width, channels] = image.output;
        let row_bytes = 4 * width * self.kind.left_units(self.depth);
        let strip = (STRIP_BYTES / row_bytes.max(1)).clamp(1, height.max(1));
        let mut prepared = Vec::new();
        for (i, out) in out.chunks_mut((strip * width * channels).max(1)).enumerate() {
            let first = i * strip;
            let rows = out.len() / (width * channels);
            let row = padded * input.pixel;
            prepared.resize(((rows - 1) * image.stride + image.size) * row, 0.0);
            prepared.par_chunks_mut(row.max(1)).enumerate().for_each(|(i, to)| {
                level.run(Prepare { input, row: first * image.stride + i, padded, to });
            });
            let patches = Patches { prepared: &prepared, padded, image };
            let patches = Rows::pack(level, self.kind, (rows * width, self.depth), &patches);
            let residual = image.residual.map(|r| &r[first * width * channels..][..out.len()]);
            let finish = Finish { scale: 1.0, bias: Some(image.bias), residual };
            multiply(level, &patches, self, finish, (out, channels))?;
        }
        Ok(())
    }
}

/// One panel of rows that are `depth` values long.
pub(super) struct PackPanel<'a> {
    pub(super) kind: Kind,
    pub(super) rows: &'a [f32],
    pub(super) depth: usize,
    pub(super) units: &'a mut [u32],
}

impl Work for PackPanel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        pack::panel(simd, self.kind, self.rows.chunks(self.depth), self.units);
    }
}

/// One row of the padded image.
struct Prepare<'a> {
    input: Input<'a>,
    row: usize,
    padded: usize,
    to: &'a mut [f32],
}

impl Work for Prepare<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.input.prepare(self.row, 0..self.padded, self.to);
    }
}

impl Right for Packed {
    fn kind(&self, _: Level) -> Kind {
        self.kind
    }

    fn panels<'a>(&'a self, _: Level, range: Range<usize>, _: &'a mut Units) -> Result<&'a [u32]> {
        let panel = self.kind.right_units(self.depth);
        Ok(&self.units[range.start * panel..range.end * panel])
    }
}

/// The input values under the filter, for each output pixel.
struct Patches<'a> {
    /// From the first row on that the first pixel needs.
    prepared: &'a [f32],
    /// Pixels of a prepared row.
    padded: usize,
    image: &'a Image<'a>,
}

impl Source for Patches<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let Image { size, stride, dims: [.., channels], output: [_, width, _], .. } = *self.image;
        let (row, x) = (index / width, index % width);
        for (down, to) in to.chunks_exact_mut(size * channels).enumerate() {
            let first = (row * stride + down) * self.padded + x * stride;
            to.copy_from_slice(&self.prepared[first * channels..][..size * channels]);
        }
    }
}

//! 3 × 3 convolution by the minimal filtering of Winograd (Lavin & Gray, Fast Algorithms for Convolutional Neural
//! Networks, 2015): four outputs of a tile of 2 × 2 pixels take 16 products a channel in place of 36.
//!
//! Where every pixel was doubled before, neighbours are the same and one of the four points in each direction is always
//! zero: 9 products are left.

use std::ops::Range;

use rayon::prelude::*;

use super::Image;
use super::direct::PackPanel;
use super::input::Input;
use crate::memory::Units;
use crate::product::output::{Window, windows};
use crate::product::tile::{DEEP, DotBf16, DotF32, tile};
use crate::product::{Kind, Sums, WIDE, for_height, heights};
use crate::simd::{Level, Simd, Work};

/// Bytes of a part's tiles, about: with their sums and the pixels that they are made of they fill the second cache.
const TILE_BYTES: usize = 384 << 10;

/// Tiles of a part's rows: with them, every few rows fill the tiles of products.
const ACROSS: usize = 14;

/// Parts for each thread, at least, where there is that much to do.
const TASKS_A_THREAD: usize = 4;

/// A direction's points: each is the sum or the difference of two pixels of a tile's surroundings.
type Points<const N: usize> = [(usize, Sign, usize); N];

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Plus,
    Minus,
}

/// Of four neighbouring pixels.
const PLAIN: Points<4> =
    [(0, Sign::Minus, 2), (1, Sign::Plus, 2), (2, Sign::Minus, 1), (1, Sign::Minus, 3)];

/// The same of three pixels that were doubled, without the third, which is zero.
const DOUBLED: Points<3> = [(0, Sign::Minus, 1), (1, Sign::Plus, 1), (1, Sign::Minus, 2)];

/// Pixels of the input from one tile to the next; each takes two more.
const fn step(points: usize) -> usize {
    points - 2
}

/// A filter's points in each direction, with the third.
const FILTER: usize = 4;

/// A filter in panels: for each of its 16 points, `channels` values deep.
pub(super) struct Packed {
    kind: Kind,
    channels: usize,
    units: Units,
}

impl Packed {
    /// `weight`: `[out, 3, 3, channels]` without gaps.
    pub(super) fn new(
        level: Level,
        kind: Kind,
        weight: &[f32],
        [out, channels]: [usize; 2],
    ) -> Self {
        let point = kind.right_units(channels);
        let panel = FILTER * FILTER * point;
        let mut units = Units::zeros(out.div_ceil(WIDE) * panel);
        let panels = weight.par_chunks(WIDE * 9 * channels).zip(units.par_chunks_mut(panel.max(1)));
        panels.for_each(|(filters, units)| {
            // Point by point, each output's channels.
            let outputs = filters.len() / (9 * channels);
            let mut points = vec![0f32; outputs * FILTER * FILTER * channels];
            for (i, filter) in filters.chunks_exact(9 * channels).enumerate() {
                transform_filter(filter, channels, (i, outputs), &mut points);
            }
            let points = points.chunks(outputs * channels).zip(units.chunks_mut(point.max(1)));
            points.for_each(|(rows, units)| {
                level.run(PackPanel { kind, rows, depth: channels, units });
            });
        });
        Self { kind, channels, units }
    }

    /// The weight as it was given, but for rounding.
    pub(super) fn to_f32(&self, out: usize) -> Vec<f32> {
        let point = self.kind.right_units(self.channels);
        let value = |o: usize, i: usize, c: usize| {
            let units = &self.units[(o / WIDE * FILTER * FILTER + i) * point..];
            match self.kind {
                Kind::Bf16 => {
                    let unit = units[c / 2 * WIDE + o % WIDE];
                    f32::from_bits(if c % 2 == 0 { unit << 16 } else { unit & 0xffff_0000 })
                }
                _ => f32::from_bits(units[c * WIDE + o % WIDE]),
            }
        };
        // Each value is one point or the difference of two, in each direction.
        let parts: [&[(usize, f32)]; 3] = [&[(0, 1.0)], &[(1, 1.0), (2, -1.0)], &[(3, 1.0)]];
        let mut weight = Vec::with_capacity(out * 9 * self.channels);
        for o in 0..out {
            for (down, across) in (0..9).map(|i| (i / 3, i % 3)) {
                for c in 0..self.channels {
                    let terms = parts[down].iter().flat_map(|(i, s)| {
                        parts[across].iter().map(move |(j, t)| (i * FILTER + j, s * t))
                    });
                    weight.push(terms.map(|(i, sign)| sign * value(o, i, c)).sum());
                }
            }
        }
        weight
    }

    /// The convolution of one image, at every pixel.
    pub(super) fn run(&self, level: Level, image: &Image, out: &mut [f32]) {
        // With another padding, the two outputs of a tile have no three pixels of the image in common.
        match (image.times, image.padding) {
            (2, [1, 1]) => self.run_with::<3>(level, image, &DOUBLED, out),
            _ => self.run_with::<4>(level, image, &PLAIN, out),
        }
    }

    fn run_with<const N: usize>(
        &self,
        level: Level,
        image: &Image,
        points: &'static Points<N>,
        out: &mut [f32],
    ) {
        let input = Input {
            x: image.x,
            affine: image.affine,
            dims: image.dims,
            times: if N == 3 { 1 } else { image.times },
            padding: image.padding[0],
            wrap: image.wrap,
            pixel: self.pixel_values(),
        };
        let tile_bytes = 4 * N * N * self.kind.left_units(self.channels);
        let down = (TILE_BYTES / (ACROSS * tile_bytes.max(1))).clamp(2, 7);
        let [height, width, channels] = image.output;
        let parts = height.div_ceil(2 * down) * width.div_ceil(2 * ACROSS);
        // Where parts are few, threads share them: each prepares all of a part and makes some of its outputs.
        let shares = (TASKS_A_THREAD * rayon::current_num_threads()).div_ceil(parts.max(1));
        let deep = channels.div_ceil(WIDE).div_ceil(shares) * WIDE;
        let windows = windows(out, image.output, [2 * down, 2 * ACROSS, deep]);
        windows.with_max_len(1).for_each_init(Scratch::default, |scratch, out| {
            level.run(Part { packed: self, points, input, image, scratch, out });
        });
    }

    /// Values of a prepared pixel: whole blocks of the left side's depth.
    fn pixel_values(&self) -> usize {
        let units = self.kind.left_units(self.channels);
        if self.kind == Kind::Bf16 { 2 * units } else { units }
    }
}

/// The 16 points of output `index`'s filter, `[3, 3, channels]`; `to`: `[16, outputs, channels]`.
fn transform_filter(
    filter: &[f32],
    channels: usize,
    (index, outputs): (usize, usize),
    to: &mut [f32],
) {
    let points = |g: [f32; 3]| {
        let (ends, middle) = (0.5 * (g[0] + g[2]), 0.5 * g[1]);
        [g[0], ends + middle, ends - middle, g[2]]
    };
    for c in 0..channels {
        let value = |i: usize, j: usize| filter[(3 * i + j) * channels + c];
        let down = [0, 1, 2].map(|j| points([0, 1, 2].map(|i| value(i, j))));
        for i in 0..FILTER {
            for (j, v) in points([down[0][i], down[1][i], down[2][i]]).into_iter().enumerate() {
                to[((i * FILTER + j) * outputs + index) * channels + c] = v;
            }
        }
    }
}

/// What a part needs besides its inputs, kept by its thread.
#[derive(Default)]
struct Scratch {
    pixels: Vec<f32>,
    /// The tiles as left sides: for each few of them, point after point.
    tiles: Units,
    /// A panel's sums: for each point, the tiles.
    sums: Vec<Sums>,
}

/// Some of the output's pixels and channels.
struct Part<'a, const N: usize> {
    packed: &'a Packed,
    points: &'static Points<N>,
    input: Input<'a>,
    image: &'a Image<'a>,
    scratch: &'a mut Scratch,
    out: Window<'a>,
}

impl<const N: usize> Work for Part<'_, N> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.prepare();
        self.transform(simd);
        for first in self.out.channels.clone().step_by(WIDE) {
            self.multiply(simd, first / WIDE);
            for tile in 0..self.tiles() {
                self.finish(simd, tile, first..(first + WIDE).min(self.out.channels.end));
            }
        }
    }
}

impl<const N: usize> Part<'_, N> {
    /// Tiles of a row.
    #[inline(always)]
    fn across(&self) -> usize {
        self.out.xs.len().div_ceil(2)
    }

    #[inline(always)]
    fn tiles(&self) -> usize {
        self.out.rows.len().div_ceil(2) * self.across()
    }

    /// Pixels of a prepared row.
    #[inline(always)]
    fn pixels_across(&self) -> usize {
        step(N) * self.across() + 2
    }

    /// The pixels that tiles are made of.
    #[inline(always)]
    fn prepare(&mut self) {
        // Two outputs to a tile.
        let first = |outputs: usize| outputs / 2 * step(N);
        let (row, x) = (first(self.out.rows.start), first(self.out.xs.start));
        let rows = step(N) * self.out.rows.len().div_ceil(2) + 2;
        let (across, pixel) = (self.pixels_across(), self.input.pixel);
        self.scratch.pixels.resize(rows * across * pixel, 0.0);
        let pixels = self.scratch.pixels.chunks_exact_mut((across * pixel).max(1));
        for (i, to) in pixels.enumerate() {
            self.input.prepare(row + i, x..x + across, to);
        }
    }

    #[inline(always)]
    fn transform<S: Simd>(&mut self, simd: S) {
        let Packed { kind, channels, .. } = *self.packed;
        let (count, across, row) = (self.tiles(), self.across(), self.pixels_across());
        let (depth, pixel) = (kind.left_units(channels), self.input.pixel);
        let Scratch { pixels, tiles, .. } = &mut *self.scratch;
        tiles.resize(count * N * N * depth);
        for (first, height) in heights(count, S::ROWS) {
            let to = &mut tiles[first * N * N * depth..][..height * N * N * depth];
            for i in 0..height {
                let (down, across) = ((first + i) / across, (first + i) % across);
                let mut rows: [&[f32]; N] = [&[]; N];
                for (j, rows) in rows.iter_mut().enumerate() {
                    let pixels = &pixels[((step(N) * down + j) * row + step(N) * across) * pixel..];
                    *rows = &pixels[..N * pixel];
                }
                let at = At { i, height, depth, pixel };
                match kind {
                    Kind::Bf16 if S::BF16 => transform::<S, N, 2>(simd, self.points, rows, at, to),
                    _ => transform::<S, N, 1>(simd, self.points, rows, at, to),
                }
            }
        }
    }

    /// The sums of all tiles' points for one panel.
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, panel: usize) {
        let Packed { kind, channels, units } = self.packed;
        let (depth, point) = (kind.left_units(*channels), kind.right_units(*channels));
        let panel = &units[panel * FILTER * FILTER * point..][..FILTER * FILTER * point];
        let count = self.tiles();
        let Scratch { tiles, sums, .. } = &mut *self.scratch;
        sums.resize(N * N * count, Sums::ZERO);
        for (i, sums) in sums.chunks_exact_mut(count).enumerate() {
            // The filter has the point that is zero for doubled pixels, too.
            let of_filter = |j: usize| if N == 3 && j == 2 { 3 } else { j };
            let in_filter = of_filter(i / N) * FILTER + of_filter(i % N);
            let right = &panel[in_filter * point..][..point];
            for (first, height) in heights(count, S::ROWS) {
                let left = &tiles[(first * N * N + i * height) * depth..][..height * depth];
                macro_rules! go {
                    ($rows:literal) => {{
                        let sums = sums[first..].first_chunk_mut::<$rows>().expect("a tile's rows");
                        match kind {
                            Kind::Bf16 if S::BF16 => {
                                tile::<_, DotBf16, $rows>(simd, left, right, sums, ())
                            }
                            _ => tile::<_, DotF32, $rows>(simd, left, right, sums, ()),
                        }
                    }};
                }
                for_height!(height, S::ROWS, go);
            }
        }
    }

    /// A tile's points back to its pixels.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S, tile: usize, channels: Range<usize>) {
        let (count, bias) = (self.tiles(), &self.image.bias[channels.clone()]);
        let mut pixels = [[Sums::ZERO; 2]; 2];
        for lane in (0..WIDE).step_by(S::LANES) {
            let mut rows = [[simd.splat(0.0); 2]; N];
            for (down, row) in rows.iter_mut().enumerate() {
                let mut points = [simd.splat(0.0); N];
                for (across, point) in points.iter_mut().enumerate() {
                    let sums = &self.scratch.sums[(down * N + across) * count + tile];
                    *point = simd.load(&sums.0[lane..]);
                }
                *row = back(simd, points);
            }
            for across in 0..2 {
                let mut points = [simd.splat(0.0); N];
                for (point, row) in points.iter_mut().zip(rows) {
                    *point = row[across];
                }
                for (pixels, value) in pixels.iter_mut().zip(back(simd, points)) {
                    simd.store(value, &mut pixels[across].0[lane..]);
                }
            }
        }
        let row = self.out.rows.start + 2 * (tile / self.across());
        let x = self.out.xs.start + 2 * (tile % self.across());
        let [_, width, depth] = self.image.output;
        for (down, across) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (row, x) = (row + down, x + across);
            if row >= self.out.rows.end || x >= self.out.xs.end {
                continue;
            }
            let out = self.out.pixel(row, x, channels.clone());
            let values = pixels[down][across].0.iter().zip(bias);
            match self.image.residual {
                None => out.iter_mut().zip(values).for_each(|(o, (v, b))| *o = v + b),
                Some(residual) => {
                    let residual = &residual[(row * width + x) * depth..][channels.clone()];
                    let values = values.zip(residual);
                    out.iter_mut().zip(values).for_each(|(o, ((v, b), r))| *o = v + b + r);
                }
            }
        }
    }
}

/// Where a tile's points go: it is row `i` of `height`, each `depth` units deep.
struct At {
    i: usize,
    height: usize,
    depth: usize,
    /// Values of a pixel.
    pixel: usize,
}

#[inline(always)]
fn join<S: Simd>(simd: S, sign: Sign, a: S::F, b: S::F) -> S::F {
    match sign {
        Sign::Plus => simd.add(a, b),
        Sign::Minus => simd.sub(a, b),
    }
}

/// All points of one tile; `V` values are a unit.
#[inline(always)]
fn transform<S: Simd, const N: usize, const V: usize>(
    simd: S,
    points: &Points<N>,
    pixels: [&[f32]; N],
    at: At,
    to: &mut [u32],
) {
    for block in (0..at.depth).step_by(DEEP) {
        for lane in (0..DEEP).step_by(S::LANES) {
            for (down, (above, sign, below)) in points.iter().enumerate() {
                // Loops over arrays: closures in `map` would run without the level's instructions.
                let mut values = [[simd.splat(0.0); N]; V];
                for (v, values) in values.iter_mut().enumerate() {
                    let c = (block + lane) * V + v * S::LANES;
                    let mut column = [simd.splat(0.0); N];
                    for (across, column) in column.iter_mut().enumerate() {
                        let at = across * at.pixel + c;
                        let (above, below) = (&pixels[*above][at..], &pixels[*below][at..]);
                        *column = join(simd, *sign, simd.load(above), simd.load(below));
                    }
                    for (value, (left, sign, right)) in values.iter_mut().zip(points) {
                        *value = join(simd, *sign, column[*left], column[*right]);
                    }
                }
                for (across, (low, high)) in values[0].iter().zip(&values[V - 1]).enumerate() {
                    let point = (down * N + across) * at.height * at.depth;
                    let to = &mut to[point + block * at.height + at.i * DEEP + lane..];
                    let units = match V {
                        2 => simd.bf16_units(*low, *high),
                        _ => simd.as_units(*low),
                    };
                    simd.store_units(units, to);
                }
            }
        }
    }
}

/// The two outputs of a direction's points.
#[inline(always)]
fn back<S: Simd, const N: usize>(simd: S, m: [S::F; N]) -> [S::F; 2] {
    let (sum, difference) = (simd.add(m[0], m[1]), simd.sub(m[1], m[N - 1]));
    if N == 4 { [simd.add(sum, m[2]), simd.sub(difference, m[2])] } else { [sum, difference] }
}

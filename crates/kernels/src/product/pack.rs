//! Values into the forms that products take: rows into tiles, columns into panels.

use half::f16;
use rayon::prelude::*;

use super::blocks::{BLOCK, Layout};
use super::tile::{DEEP, RIGHT_GROUP};
use super::{GROUP, Kind, RUN, WIDE, heights};
use crate::memory::Units;
use crate::rows::Source;
use crate::simd::{Level, Simd, Work};

/// The nearest bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { (bits >> 16) | 0x40 } else { rounded }
}

/// Two values as one unit.
#[inline(always)]
pub(crate) fn bf16_pair(low: f32, high: f32) -> u32 {
    bf16_bits(low) | (bf16_bits(high) << 16)
}

/// The left side of a product: rows in tiles.
pub(crate) struct Rows {
    pub(crate) kind: Kind,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// Tiles of `tallest` rows but for the last ones, each block of depth by block.
    units: Units,
    /// What int8 rows are multiplied by.
    pub(crate) scales: Vec<f32>,
    /// The height of full tiles.
    tallest: usize,
}

impl Rows {
    /// Packs `rows` rows of `width` values from `source`.
    pub(crate) fn pack(
        level: Level,
        kind: Kind,
        (rows, width): (usize, usize),
        source: &impl Source,
    ) -> Self {
        let kind = kind.left(rows, width);
        let tallest = level.run(Tallest(kind));
        let depth = kind.left_units(width);
        let mut units = Units::unwritten(rows * depth);
        let mut scales = vec![0f32; if kind.is_int8() { rows } else { 0 }];
        let scale_chunks: Vec<&mut [f32]> = match kind {
            _ if kind.is_int8() => scales.chunks_mut(tallest).collect(),
            _ => (0..rows.div_ceil(tallest)).map(|_| [].as_mut_slice()).collect(),
        };
        let chunks = units.par_chunks_mut((tallest * depth).max(1)).zip(scale_chunks);
        chunks.enumerate().for_each_init(
            || vec![0f32; width],
            |row, (i, (units, scales))| {
                level.run(PackTiles { kind, first: i * tallest, units, scales, row, source })
            },
        );
        Self { kind, rows, width, units, scales, tallest }
    }

    /// The tiles of `rows`, which begin at a full one: first row, height, and units.
    pub(crate) fn tiles(
        &self,
        rows: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (usize, usize, &[u32])> {
        let depth = self.kind.left_units(self.width);
        heights(rows.len(), self.tallest).map(move |(first, height)| {
            let first = rows.start + first;
            (first, height, &self.units[first * depth..][..height * depth])
        })
    }

    /// The height of full tiles.
    pub(crate) fn tallest(&self) -> usize {
        self.tallest
    }
}

struct Tallest(Kind);

impl Work for Tallest {
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        match self.0 {
            Kind::Int8 | Kind::Blocks(_) | Kind::Rounded => S::ROWS_BLOCKS,
            Kind::F32 | Kind::Bf16 | Kind::Int8Runs => S::ROWS,
        }
    }
}

/// Packs the rows of one full tile, or of the smaller ones at the end.
struct PackTiles<'a, T> {
    kind: Kind,
    first: usize,
    units: &'a mut [u32],
    scales: &'a mut [f32],
    row: &'a mut [f32],
    source: &'a T,
}

impl<T: Source> Work for PackTiles<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.kind.left_units(self.row.len());
        let rows = self.units.len() / depth.max(1);
        for (first, height) in heights(rows, rows) {
            let tile = &mut self.units[first * depth..][..height * depth];
            for i in 0..height {
                self.source.row(simd, self.first + first + i, self.row);
                let scale = simd.call(PackRow { kind: self.kind, row: self.row, i, height, tile });
                if let Some(to) = self.scales.get_mut(first + i) {
                    *to = scale;
                }
            }
        }
    }
}

/// Packs row `i` of a tile of `height` rows; the result is its scale.
struct PackRow<'a> {
    kind: Kind,
    row: &'a [f32],
    i: usize,
    height: usize,
    tile: &'a mut [u32],
}

impl Work for PackRow<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        pack_row(simd, self.kind, self.row, (self.i, self.height), self.tile)
    }
}

/// Packs row `i` of a tile of `height` rows of `kind`; the result is its scale.
#[inline(always)]
pub(crate) fn pack_row<S: Simd>(
    simd: S,
    kind: Kind,
    row: &[f32],
    (i, height): (usize, usize),
    tile: &mut [u32],
) -> f32 {
    match kind {
        Kind::Int8 => return pack_int8::<GROUP>(row, (i, height), Some(128), tile),
        Kind::Rounded => return pack_int8::<BLOCK>(row, (i, height), Some(128), tile),
        Kind::Blocks(format) => {
            let Layout { group, zero, .. } = format.layout();
            return match group {
                GROUP => pack_int8::<GROUP>(row, (i, height), zero, tile),
                _ => pack_int8::<16>(row, (i, height), zero, tile),
            };
        }
        Kind::Int8Runs => return pack_int8_runs(row, (i, height), tile),
        Kind::F32 | Kind::Bf16 => {}
    }
    let blocks = tile.chunks_exact_mut(DEEP * height).map(|block| &mut block[i * DEEP..][..DEEP]);
    if kind == Kind::Bf16 {
        for (values, units) in row.chunks(2 * DEEP).zip(blocks) {
            bf16_block(simd, values, units);
        }
    } else {
        for (values, units) in row.chunks(DEEP).zip(blocks) {
            let (units, absent) = units.split_at_mut(values.len());
            units.iter_mut().zip(values).for_each(|(u, v)| *u = v.to_bits());
            absent.fill(0);
        }
    }
    1.0
}

/// Up to 32 values as pairs of bfloat16; units beyond them are 0.
#[inline(always)]
pub(crate) fn bf16_block<S: Simd>(simd: S, values: &[f32], units: &mut [u32]) {
    if S::BF16 && values.len() == 2 * units.len() {
        for (values, units) in
            values.chunks_exact(2 * S::LANES).zip(units.chunks_exact_mut(S::LANES))
        {
            let (low, high) = values.split_at(S::LANES);
            simd.store_units(simd.bf16_units(simd.load(low), simd.load(high)), units);
        }
        return;
    }
    let (units, absent) = units.split_at_mut(values.len().div_ceil(2));
    absent.fill(0);
    for (pair, unit) in values.chunks(2).zip(units) {
        *unit = bf16_pair(pair[0], pair.get(1).copied().unwrap_or(0.0));
    }
}

/// Quantises row `i` of a tile of `height` rows with one scale, which is returned, in groups of `G` values whose heads undo
/// that right values are 0 at `zero`, or have offsets of their own.
#[inline(always)]
fn pack_int8<const G: usize>(
    row: &[f32],
    (i, height): (usize, usize),
    zero: Option<i32>,
    tile: &mut [u32],
) -> f32 {
    let peak = largest(row);
    // A row of zeros stays one. NaN and infinity are kept by the scale: the product shows them.
    let inverse = if peak > 0.0 { 127.0 / peak } else { 0.0 };
    let mut quantised = [0i8; G];
    for (group, units) in row.chunks(G).zip(tile.chunks_exact_mut((1 + G / 4) * height)) {
        quantised[group.len()..].fill(0);
        let mut sum = 0;
        for (value, q) in group.iter().zip(&mut quantised) {
            *q = nearest_i8(value * inverse);
            sum += i32::from(*q);
        }
        let (heads, units) = units.split_at_mut(height);
        heads[i] = match zero {
            Some(zero) => (-zero * sum) as u32,
            None => (-sum as f32).to_bits(),
        };
        for (four, unit) in quantised.chunks_exact(4).zip(&mut units[i * G / 4..]) {
            *unit = u32::from_le_bytes([four[0], four[1], four[2], four[3]].map(|v| v as u8));
        }
    }
    peak / 127.0
}

/// As [`pack_int8`], in runs.
#[inline(always)]
fn pack_int8_runs(row: &[f32], (i, height): (usize, usize), tile: &mut [u32]) -> f32 {
    let peak = largest(row);
    let inverse = if peak > 0.0 { 127.0 / peak } else { 0.0 };
    for (run, to) in row.chunks(4 * RUN).zip(tile.chunks_mut((RUN + 1) * height)) {
        let (heads, blocks) = to.split_at_mut(height);
        let mut sum = 0;
        for (values, block) in run.chunks(4 * DEEP).zip(blocks.chunks_exact_mut(DEEP * height)) {
            sum += quantise(values, inverse, 0, &mut block[i * DEEP..][..DEEP]);
        }
        heads[i] = (-128 * sum) as u32;
    }
    peak / 127.0
}

/// Up to 64 values times `inverse` as int8, each with the bits of `flip` turned over; the result is their sum.
#[inline(always)]
fn quantise(values: &[f32], inverse: f32, flip: u8, units: &mut [u32]) -> i32 {
    let mut bytes = [0u8; 4 * DEEP];
    let mut sum = 0;
    for (value, byte) in values.iter().zip(&mut bytes) {
        let q = nearest_i8(value * inverse);
        sum += i32::from(q);
        *byte = q as u8 ^ flip;
    }
    for (unit, four) in units.iter_mut().zip(bytes.chunks_exact(4)) {
        *unit = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    }
    sum
}

/// The nearest integer of a value between −128 and 127: a sum with 1.5 · 2²³ has it in its low bits.
#[inline(always)]
pub(crate) fn nearest_i8(value: f32) -> i8 {
    (value + 12_582_912.0).to_bits() as i8
}

/// The largest absolute value; not a number if one is.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    // So many that they become whole vectors: of 16 or 32, compilers make gathers, at a tenth of the speed.
    const LANES: usize = 64;
    // Without their signs, float32 bit patterns are ordered as their values, NaN above all.
    let size = |v: f32| v.to_bits() & 0x7fff_ffff;
    let mut lanes = [0u32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = (*lane).max(size(*value));
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(l, h)| *l = (*l).max(*h));
        half /= 2;
    }
    f32::from_bits(rest.iter().fold(lanes[0], |most, v| most.max(size(*v))))
}

/// Packs up to [`WIDE`] columns of a product's right side, each given as a run of values, into one panel of `kind`.
/// Columns that are missing are zero.
#[inline(always)]
pub(crate) fn panel<'a, S: Simd>(
    simd: S,
    kind: Kind,
    columns: impl Iterator<Item = &'a [f32]>,
    panel: &mut [u32],
) {
    let mut all: [&[f32]; WIDE] = [&[]; WIDE];
    all.iter_mut().zip(columns).for_each(|(to, column)| *to = column);
    if kind == Kind::Int8Runs {
        return panel_of_runs(simd, &all, panel);
    }
    if kind == Kind::Int8 {
        for (i, column) in all.iter().enumerate() {
            for (group, to) in column.chunks(GROUP).zip(panel.chunks_exact_mut(RIGHT_GROUP)) {
                quantise_group(group, i, to);
            }
        }
        return;
    }
    let values = if kind == Kind::Bf16 { 2 * DEEP } else { DEEP };
    let mut rows = [[0u32; DEEP]; DEEP];
    let mut turned = [0u32; DEEP * DEEP];
    for (block, to) in panel.chunks_mut(DEEP * WIDE).enumerate() {
        for (side, columns) in all.chunks_exact(DEEP).enumerate() {
            for (row, column) in rows.iter_mut().zip(columns) {
                let run = column.get(block * values..).unwrap_or_default();
                let run = &run[..run.len().min(values)];
                if run.len() < values {
                    row.fill(0);
                }
                match kind {
                    Kind::Bf16 => bf16_block(simd, run, row),
                    _ => row.iter_mut().zip(run).for_each(|(u, v)| *u = v.to_bits()),
                }
            }
            simd.transpose(&rows, &mut turned, DEEP);
            let steps = to.chunks_exact_mut(WIDE).zip(turned.chunks_exact(DEEP));
            steps.for_each(|(to, from)| to[side * DEEP..][..DEEP].copy_from_slice(from));
        }
    }
}

/// Runs of int8, each column of a run with a scale of its own.
#[inline(always)]
fn panel_of_runs<S: Simd>(simd: S, columns: &[&[f32]; WIDE], panel: &mut [u32]) {
    let mut rows = [[0u32; DEEP]; DEEP];
    let mut turned = [0u32; DEEP * DEEP];
    for (i, to) in panel.chunks_mut((RUN + 1) * WIDE).enumerate() {
        let run = |column: usize| {
            let run = columns[column].get(i * 4 * RUN..).unwrap_or_default();
            &run[..run.len().min(4 * RUN)]
        };
        let (scales, steps) = to.split_at_mut(WIDE);
        let mut inverses = [0f32; WIDE];
        for (c, (scale, inverse)) in scales.iter_mut().zip(&mut inverses).enumerate() {
            let peak = largest(run(c));
            *inverse = if peak > 0.0 { 127.0 / peak } else { 0.0 };
            *scale = (peak / 127.0).to_bits();
        }
        for (block, steps) in steps.chunks_mut(DEEP * WIDE).enumerate() {
            for side in [0, DEEP] {
                for (c, row) in rows.iter_mut().enumerate() {
                    let values = run(side + c).get(block * 4 * DEEP..).unwrap_or_default();
                    let values = &values[..values.len().min(4 * DEEP)];
                    quantise(values, inverses[side + c], 0x80, row);
                }
                simd.transpose(&rows, &mut turned, DEEP);
                for (to, from) in steps.chunks_exact_mut(WIDE).zip(turned.chunks_exact(DEEP)) {
                    to[side..][..DEEP].copy_from_slice(from);
                }
            }
        }
    }
}

/// Quantises up to [`GROUP`] values as Q8_0 does.
#[inline(always)]
fn quantise_group(group: &[f32], column: usize, to: &mut [u32]) {
    let scale = f16::from_f32(largest(group) / 127.0);
    let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    let mut values = [0i8; GROUP];
    for (value, to) in group.iter().zip(&mut values) {
        *to = nearest_i8(value * inverse);
    }
    set_group(scale, &values, column, to);
}

/// Puts a group of int8 values and its scale into its column of a panel's group.
#[inline(always)]
pub(crate) fn set_group(scale: f16, values: &[i8; GROUP], column: usize, to: &mut [u32]) {
    let (scales, units) = to.split_at_mut(WIDE / 2);
    let shift = 16 * (column % 2);
    let scale_unit = &mut scales[column / 2];
    *scale_unit = *scale_unit & !(0xffff << shift) | u32::from(scale.to_bits()) << shift;
    for (four, unit) in values.chunks_exact(4).zip(units[column..].iter_mut().step_by(WIDE)) {
        let four = [four[0], four[1], four[2], four[3]];
        *unit = u32::from_le_bytes(four.map(|v| (v as u8) ^ 0x80));
    }
}

//! The innermost loops: a tile of `M` rows times a panel of 32 columns, summed in registers.
//!
//! `unsafe` stands here for one thing: reading left units without a bounds check each, after one check a block.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::{Sums, WIDE};
use crate::simd::{Simd, Work};

/// Units of depth that are fetched ahead of their use.
const AHEAD: usize = 16;

/// Units of depth in a block of the left side, which holds them row after row: so rows are packed by whole vectors, and
/// a unit of any row lies at a fixed distance from that of the first.
pub(crate) const DEEP: usize = 16;

/// Left units a row of one int8 group: an int32 that undoes the weights' offset, then 8 units of values.
pub(crate) const LEFT_GROUP: usize = 9;
/// Right units a panel of one int8 group: 32 float16 scales, then 8 units a column.
pub(crate) const RIGHT_GROUP: usize = WIDE / 2 + 8 * WIDE;

/// The units of two vectors of columns from `first` on, at one step of a panel; those `AHEAD` steps later are fetched meanwhile.
#[inline(always)]
fn right_pair<S: Simd>(simd: S, step: &[u32], first: usize) -> [S::U; 2] {
    let ahead = step.as_ptr().wrapping_add(AHEAD * WIDE + first);
    simd.prefetch(ahead);
    simd.prefetch(ahead.wrapping_add(WIDE / 2));
    [simd.load_units(&step[first..]), simd.load_units(&step[first + S::LANES..])]
}

/// What is fetched into the caches while a tile multiplies.
pub(crate) trait Fetch {
    /// Fetches the share of a block that has `units` units of the left side.
    fn fetch<S: Simd>(&mut self, simd: S, units: usize);
}

/// Nothing: what comes next is near already, or the tile is too short for it to matter.
impl Fetch for () {
    #[inline(always)]
    fn fetch<S: Simd>(&mut self, _: S, _: usize) {}
}

/// For tiles that come after. Nothing is read, wherever it points.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// The next tile of the left side, or null: each block of this one fetches a block of it.
    left: *const u32,
    /// Part of a right side that is needed later.
    right: *const u32,
    /// Lines of it that a block fetches.
    rate: usize,
    /// Lines of it that are left.
    lines: usize,
}

impl Ahead {
    /// The left units from `left` on, unless it is null, and `lines` lines of right units from `right` on, in a tile of `blocks` blocks.
    pub(crate) fn new(left: *const u32, right: *const u32, lines: usize, blocks: usize) -> Self {
        Self { left, right, rate: lines.div_ceil(blocks.max(1)), lines }
    }
}

impl Fetch for Ahead {
    #[inline(always)]
    fn fetch<S: Simd>(&mut self, simd: S, units: usize) {
        if !self.left.is_null() {
            for line in (0..units).step_by(LINE) {
                simd.prefetch(self.left.wrapping_add(line));
            }
            self.left = self.left.wrapping_add(units);
        }
        let lines = self.rate.min(self.lines);
        for line in 0..lines {
            simd.prefetch(self.right.wrapping_add(line * LINE));
        }
        self.right = self.right.wrapping_add(lines * LINE);
        self.lines -= lines;
    }
}

/// Units of a line of the caches.
pub(crate) const LINE: usize = 16;

/// How two units are multiplied.
pub(crate) trait Dot {
    /// `sum + a · b`
    fn step<S: Simd>(simd: S, sum: S::F, a: S::U, b: S::U) -> S::F;
}

/// float32 units.
pub(crate) struct DotF32;

impl Dot for DotF32 {
    #[inline(always)]
    fn step<S: Simd>(simd: S, sum: S::F, a: S::U, b: S::U) -> S::F {
        simd.fma(simd.as_f32(a), simd.as_f32(b), sum)
    }
}

/// Units of two bfloat16.
pub(crate) struct DotBf16;

impl Dot for DotBf16 {
    #[inline(always)]
    fn step<S: Simd>(simd: S, sum: S::F, a: S::U, b: S::U) -> S::F {
        simd.dot_bf16(sum, a, b)
    }
}

/// `out = left · right`; `left`: blocks of [`DEEP`] units of depth, the last one filled up; `right`: a panel or the part
/// of it that is meant.
#[inline(always)]
pub(crate) fn tile<S: Simd, D: Dot, const M: usize>(
    simd: S,
    left: &[u32],
    right: &[u32],
    out: &mut [Sums; M],
    ahead: impl Fetch,
) {
    simd.call(Tile { left, right, out, ahead, dot: PhantomData::<D> });
}

/// Compiled once for all operations.
struct Tile<'a, D, A, const M: usize> {
    left: &'a [u32],
    right: &'a [u32],
    out: &'a mut [Sums; M],
    ahead: A,
    dot: PhantomData<D>,
}

impl<D: Dot, A: Fetch, const M: usize> Work for Tile<'_, D, A, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        assert!(self.left.len() >= self.right.len().div_ceil(DEEP * WIDE) * DEEP * M);
        for first in (0..WIDE).step_by(2 * S::LANES) {
            let mut sums = [[simd.splat(0.0); 2]; M];
            let blocks = self.left.chunks_exact(DEEP * M);
            for (left, right) in blocks.zip(self.right.chunks(DEEP * WIDE)) {
                self.ahead.fetch(simd, left.len());
                for (k, step) in right.chunks_exact(WIDE).enumerate() {
                    let b = right_pair(simd, step, first);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: a block has `DEEP` units for each of `M` rows, and at most `DEEP` steps.
                        let a = simd.splat_unit(unsafe { *left.get_unchecked(row * DEEP + k) });
                        sums[0] = D::step(simd, sums[0], a, b[0]);
                        sums[1] = D::step(simd, sums[1], a, b[1]);
                    }
                }
            }
            for (sums, out) in sums.into_iter().zip(self.out.iter_mut()) {
                simd.store(sums[0], &mut out.0[first..]);
                simd.store(sums[1], &mut out.0[first + S::LANES..]);
            }
        }
    }
}

/// `out = left · right` over int8 groups. Left values are signed, right ones have 128 added; the int32 at the
/// head of a left group takes that away again. The left rows' scales are not applied.
#[inline(always)]
pub(crate) fn tile_int8<S: Simd, const M: usize>(
    simd: S,
    left: &[u32],
    right: &[u32],
    out: &mut [Sums; M],
    ahead: Ahead,
) {
    simd.call(TileInt8 { left, right, out, ahead });
}

/// As [`Tile`].
struct TileInt8<'a, const M: usize> {
    left: &'a [u32],
    right: &'a [u32],
    out: &'a mut [Sums; M],
    ahead: Ahead,
}

impl<const M: usize> Work for TileInt8<'_, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { left, right, out, mut ahead } = self;
        assert!(left.len() / (LEFT_GROUP * M) >= right.len() / RIGHT_GROUP);
        for first in (0..WIDE).step_by(2 * S::LANES) {
            let mut sums = [[simd.splat(0.0); 2]; M];
            let sides = left.chunks_exact(LEFT_GROUP * M).zip(right.chunks_exact(RIGHT_GROUP));
            for (left, right) in sides {
                ahead.fetch(simd, left.len());
                let (heads, left) = left.split_at(M);
                let (scales, right) = right.split_at(WIDE / 2);
                let mut ints = [[simd.splat_unit(0); 2]; M];
                for (ints, head) in ints.iter_mut().zip(heads) {
                    *ints = [simd.splat_unit(*head); 2];
                }
                for (k, step) in right.chunks_exact(WIDE).enumerate() {
                    let b = right_pair(simd, step, first);
                    for (row, ints) in ints.iter_mut().enumerate() {
                        // SAFETY: a group has 8 units for each of `M` rows, and 8 steps.
                        let a = simd.splat_unit(unsafe { *left.get_unchecked(row * 8 + k) });
                        ints[0] = simd.dot_i8(ints[0], b[0], a);
                        ints[1] = simd.dot_i8(ints[1], b[1], a);
                    }
                }
                let scales = [
                    simd.load_f16(&scales[first / 2..]),
                    simd.load_f16(&scales[(first + S::LANES) / 2..]),
                ];
                for (sums, ints) in sums.iter_mut().zip(ints) {
                    sums[0] = simd.fma(simd.int_to_f32(ints[0]), scales[0], sums[0]);
                    sums[1] = simd.fma(simd.int_to_f32(ints[1]), scales[1], sums[1]);
                }
            }
            for (sums, out) in sums.into_iter().zip(out.iter_mut()) {
                simd.store(sums[0], &mut out.0[first..]);
                simd.store(sums[1], &mut out.0[first + S::LANES..]);
            }
        }
    }
}

/// `out = left · right` over one run of int8, whose scales are applied; as [`tile_int8`] otherwise. Left: the rows' heads,
/// then blocks as [`tile`] has them; right: the columns' float32 scales, then their units.
#[inline(always)]
pub(crate) fn tile_int8_run<S: Simd, const M: usize>(
    simd: S,
    left: &[u32],
    right: &[u32],
    out: &mut [Sums; M],
    ahead: impl Fetch,
) {
    simd.call(TileInt8Run { left, right, out, ahead });
}

/// As [`Tile`].
struct TileInt8Run<'a, A, const M: usize> {
    left: &'a [u32],
    right: &'a [u32],
    out: &'a mut [Sums; M],
    ahead: A,
}

impl<A: Fetch, const M: usize> Work for TileInt8Run<'_, A, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Some((heads, left)) = self.left.split_first_chunk::<M>() else {
            return self.out.fill(Sums::ZERO); // nothing to sum
        };
        let (scales, right) = self.right.split_at(WIDE);
        assert!(left.len() >= right.len().div_ceil(DEEP * WIDE) * DEEP * M);
        for first in (0..WIDE).step_by(2 * S::LANES) {
            let mut sums = [[simd.splat_unit(0); 2]; M];
            for (sums, head) in sums.iter_mut().zip(heads) {
                *sums = [simd.splat_unit(*head); 2];
            }
            let blocks = left.chunks_exact(DEEP * M);
            for (left, right) in blocks.zip(right.chunks(DEEP * WIDE)) {
                self.ahead.fetch(simd, left.len());
                for (k, step) in right.chunks_exact(WIDE).enumerate() {
                    let b = right_pair(simd, step, first);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: a block has `DEEP` units for each of `M` rows, and at most `DEEP` steps.
                        let a = simd.splat_unit(unsafe { *left.get_unchecked(row * DEEP + k) });
                        sums[0] = simd.dot_i8(sums[0], b[0], a);
                        sums[1] = simd.dot_i8(sums[1], b[1], a);
                    }
                }
            }
            let zero = simd.splat(0.0);
            for (i, at) in [first, first + S::LANES].into_iter().enumerate() {
                let scale = simd.as_f32(simd.load_units(&scales[at..]));
                for (sums, out) in sums.iter().zip(self.out.iter_mut()) {
                    simd.store(simd.fma(simd.int_to_f32(sums[i]), scale, zero), &mut out.0[at..]);
                }
            }
        }
    }
}

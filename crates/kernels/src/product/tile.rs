//! The innermost loops: a tile of `M` rows times a panel of 32 columns, summed in registers.
//!
//! `unsafe` stands here for one thing: reading left units without a bounds check each, after one check a run.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::WIDE;
use crate::simd::{Simd, Work};

/// Units of depth that are fetched ahead of their use; measured on Zen 5.
const AHEAD: usize = 16;

/// Left units a row of one int8 group: an int32 that undoes the weights' offset, then 8 units of values.
pub(crate) const LEFT_GROUP: usize = 9;
/// Right units a panel of one int8 group: 32 float16 scales, then 8 units a column.
pub(crate) const RIGHT_GROUP: usize = WIDE / 2 + 8 * WIDE;

/// The left side of a tile.
pub(crate) trait Left<const M: usize>: Copy {
    /// Whether `depth` units of `M` rows are there.
    fn holds(self, depth: usize) -> bool;

    /// Unit `k` of `row`.
    ///
    /// # Safety
    /// [`Left::holds`] is true for a depth beyond `k`, and `row < M`.
    unsafe fn unit(self, k: usize, row: usize) -> u32;
}

/// Rows side by side: unit `k` of all of them, then unit `k + 1`.
#[derive(Clone, Copy)]
pub(crate) struct Interleaved<'a>(pub(crate) &'a [u32]);

impl<const M: usize> Left<M> for Interleaved<'_> {
    #[inline(always)]
    fn holds(self, depth: usize) -> bool {
        self.0.len() >= depth * M
    }

    #[inline(always)]
    unsafe fn unit(self, k: usize, row: usize) -> u32 {
        // SAFETY: `holds` was asked.
        unsafe { *self.0.get_unchecked(k * M + row) }
    }
}

/// Rows that begin `stride` units apart: slower, because each row takes a register for its address.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) units: &'a [u32],
    pub(crate) stride: usize,
}

impl<const M: usize> Left<M> for Strided<'_> {
    #[inline(always)]
    fn holds(self, depth: usize) -> bool {
        self.units.len() >= (M - 1) * self.stride + depth
    }

    #[inline(always)]
    unsafe fn unit(self, k: usize, row: usize) -> u32 {
        // SAFETY: `holds` was asked.
        unsafe { *self.units.get_unchecked(row * self.stride + k) }
    }
}

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

/// `out = Σ left · right`, over several runs of `depth` left units, whose right units follow each other in the panel.
#[inline(always)]
pub(crate) fn tile<S: Simd, D: Dot, L: Left<M>, const M: usize>(
    simd: S,
    runs: &[L],
    depth: usize,
    right: &[u32],
    out: &mut [[f32; WIDE]; M],
) {
    simd.call(Tile { runs, depth, right, out, dot: PhantomData::<D> });
}

/// Compiled once for all operations.
struct Tile<'a, D, L, const M: usize> {
    runs: &'a [L],
    depth: usize,
    right: &'a [u32],
    out: &'a mut [[f32; WIDE]; M],
    dot: PhantomData<D>,
}

impl<D: Dot, L: Left<M>, const M: usize> Work for Tile<'_, D, L, M> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        multiply::<S, D, L, M>(simd, self.runs, self.depth, self.right, self.out);
    }
}

#[inline(always)]
fn multiply<S: Simd, D: Dot, L: Left<M>, const M: usize>(
    simd: S,
    runs: &[L],
    depth: usize,
    right: &[u32],
    out: &mut [[f32; WIDE]; M],
) {
    assert!(right.len() >= runs.len() * depth * WIDE);
    for first in (0..WIDE).step_by(2 * S::LANES) {
        let mut sums = [[simd.splat(0.0); 2]; M];
        let mut steps = right.chunks_exact(WIDE);
        for left in runs {
            assert!(left.holds(depth));
            for (k, step) in (0..depth).zip(&mut steps) {
                let b =
                    [simd.load_units(&step[first..]), simd.load_units(&step[first + S::LANES..])];
                let ahead = step.as_ptr().wrapping_add(AHEAD * WIDE + first);
                simd.prefetch(ahead);
                simd.prefetch(ahead.wrapping_add(WIDE / 2));
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: `holds` was asserted, `k < depth` and `row < M`.
                    let a = simd.splat_unit(unsafe { left.unit(k, row) });
                    sums[0] = D::step(simd, sums[0], a, b[0]);
                    sums[1] = D::step(simd, sums[1], a, b[1]);
                }
            }
        }
        for (sums, out) in sums.into_iter().zip(out.iter_mut()) {
            simd.store(sums[0], &mut out[first..]);
            simd.store(sums[1], &mut out[first + S::LANES..]);
        }
    }
}

/// `out = left · right` over `groups` int8 groups. Left values are signed, right ones have 128 added; the int32 at the
/// head of a left group takes that away again. The left rows' scales are not applied.
#[inline(always)]
pub(crate) fn tile_int8<S: Simd, const M: usize>(
    simd: S,
    left: &[u32],
    groups: usize,
    right: &[u32],
    out: &mut [[f32; WIDE]; M],
) {
    assert!(left.len() >= groups * LEFT_GROUP * M && right.len() >= groups * RIGHT_GROUP);
    for first in (0..WIDE).step_by(2 * S::LANES) {
        let mut sums = [[simd.splat(0.0); 2]; M];
        let sides = left.chunks_exact(LEFT_GROUP * M).zip(right.chunks_exact(RIGHT_GROUP));
        for (left, right) in sides.take(groups) {
            let (heads, left) = left.split_at(M);
            let (scales, right) = right.split_at(WIDE / 2);
            let mut ints = [[simd.splat_unit(0); 2]; M];
            for (ints, head) in ints.iter_mut().zip(heads) {
                *ints = [simd.splat_unit(*head); 2];
            }
            for (step, left) in right.chunks_exact(WIDE).zip(left.chunks_exact(M)) {
                let b =
                    [simd.load_units(&step[first..]), simd.load_units(&step[first + S::LANES..])];
                let ahead = step.as_ptr().wrapping_add(AHEAD * WIDE + first);
                simd.prefetch(ahead);
                simd.prefetch(ahead.wrapping_add(WIDE / 2));
                for (ints, a) in ints.iter_mut().zip(left) {
                    let a = simd.splat_unit(*a);
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
            simd.store(sums[0], &mut out[first..]);
            simd.store(sums[1], &mut out[first + S::LANES..]);
        }
    }
}

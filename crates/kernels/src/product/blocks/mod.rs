//! Products with GGML's blocks of four to six bits, whose values are `slope · q − offset` with a small natural number `q`.
//!
//! A panel holds the blocks of 32 columns as files have them, but word by word: the first word of every column, then the
//! second of every column. So vectors hold the same word of many columns, and what a format does to a word it does to all of
//! them at once. With few rows that happens in registers, for every tile anew; with more, once into [`unpacked`] groups,
//! through which all tiles pass. Either way the same numbers are summed in the same order.
//!
//! Groups of 16 or 32 values, each with an offset of its own, cost a fifth of the time: sums leave int32 that often. So with
//! many rows, blocks of 256 values are [`rounded`] to int8 while they are unpacked, in steps of a 127th of the largest value that they
//! can hold. The inputs that they meet are rounded to int8, too, a whole row in the same steps.

mod formats;
mod rounded;
mod unpacked;

use std::marker::PhantomData;

use formats::{Q4_0, Q4K, Q5K, Q6K};
use rounded::Rounded;
pub(crate) use rounded::{BLOCK, ROUNDED, round, rounds};
use unpacked::Unpacked;
pub(crate) use unpacked::{unpack, values};

use super::tile::{Ahead, Fetch, LINE};
use super::{Sums, WIDE};
use crate::simd::{Simd, Work};

/// The formats that have panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// 32 values of 4 bits.
    Q4_0,
    /// 256 values of 4 bits.
    Q4K,
    /// 256 values of 5 bits.
    Q5K,
    /// 256 values of 6 bits.
    Q6K,
}

/// How blocks of a format lie in files, and how much of what else they need.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Bytes of a block of one column.
    pub(crate) bytes: usize,
    /// Values of a block of one column.
    pub(crate) values: usize,
    /// Bytes at which a block has float16 numbers; they come first in a panel, two a unit.
    pub(crate) floats: &'static [usize],
    /// The byte at which its other words begin.
    pub(crate) words: usize,
    /// Values that share a slope: a group.
    pub(crate) group: usize,
    /// The `q` that stands for 0, where that is one number. Where every group has an offset of its own, the left side's heads
    /// are the negative sums of their inputs, in float32.
    pub(crate) zero: Option<i32>,
    /// Units of a group, once it is unpacked.
    unpacked: usize,
}

impl Layout {
    const fn of<G: Groups<N>, const N: usize>(
        bytes: usize,
        floats: &'static [usize],
        words: usize,
        zero: Option<i32>,
    ) -> Self {
        let unpacked = Unpacked::<G, N>::UNITS;
        Self { bytes, values: 4 * N * G::COUNT, floats, words, group: 4 * N, zero, unpacked }
    }

    /// Units of a block of all columns.
    pub(crate) const fn units(&self) -> usize {
        self.bytes * WIDE / 4
    }

    /// Units of `width` unpacked values of all columns.
    pub(crate) fn unpacked_units(&self, width: usize) -> usize {
        width / self.group * self.unpacked
    }
}

/// Calls `$run!(G, N)` for the groups of a format.
macro_rules! for_format {
    ($format:expr, $run:ident) => {
        match $format {
            Blocks::Q4_0 => $run!(Q4_0, 8),
            Blocks::Q4K => $run!(Q4K, 8),
            Blocks::Q5K => $run!(Q5K, 8),
            Blocks::Q6K => $run!(Q6K, 4),
        }
    };
}
use for_format;

impl Blocks {
    /// How its blocks lie.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Self::Q4_0 => const { Layout::of::<Q4_0, 8>(18, &[0], 2, Some(8)) },
            Self::Q4K => const { Layout::of::<Q4K, 8>(144, &[0, 2], 4, None) },
            Self::Q5K => const { Layout::of::<Q5K, 8>(176, &[0, 2], 4, None) },
            Self::Q6K => const { Layout::of::<Q6K, 4>(210, &[208], 0, Some(32)) },
        }
    }
}

/// Groups of `4 · N` values, as they stand in some order of units.
trait Groups<const N: usize> {
    /// Groups of a block.
    const COUNT: usize;
    /// Units of a block.
    const UNITS: usize;
    /// Whether every group has an offset of its own. Where not, the left side's heads take it away.
    const OFFSETS: bool;
    /// The largest `q`.
    const MOST: u8;
    /// The `q` that stands for 0, where no group has an offset of its own.
    const ZERO: u8;

    /// What `q` is multiplied by in group `g`, in the columns from `first` on.
    fn slopes<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F;

    /// What is taken away in group `g`, where [`Groups::OFFSETS`].
    fn offsets<S: Simd>(simd: S, _block: &[u32], _g: usize, _first: usize) -> S::F {
        simd.splat(0.0)
    }

    /// Each `q` a byte: four of group `g`, those from `4 · k` on.
    fn quants<S: Simd>(simd: S, block: &[u32], g: usize, k: usize, first: usize) -> S::U;
}

/// `out = left · right` over blocks in a panel, or over what [`unpack`] made of them. Left values are signed; their rows'
/// scales are not applied.
#[inline(always)]
pub(crate) fn tile_blocks<S: Simd, const M: usize>(
    simd: S,
    (format, unpacked): (Blocks, bool),
    left: &[u32],
    right: &[u32],
    out: &mut [Sums; M],
) {
    macro_rules! run {
        ($groups:ty, $steps:literal) => {
            if unpacked {
                let groups = PhantomData::<Unpacked<$groups, $steps>>;
                simd.call(Tile::<_, _, M, $steps> { left, right, out, ahead: (), groups })
            } else if const { M <= FEW } {
                let groups = PhantomData::<$groups>;
                simd.call(Tile::<_, _, M, $steps> { left, right, out, ahead: (), groups })
            } else {
                unreachable!("tall tiles are not multiplied with blocks as they are")
            }
        };
    }
    for_format!(format, run)
}

/// `out = left · right` over what [`round`] made of blocks.
#[inline(always)]
pub(crate) fn tile_rounded<S: Simd, const M: usize>(
    simd: S,
    left: &[u32],
    right: &[u32],
    out: &mut [Sums; M],
    ahead: Ahead,
) {
    simd.call(Tile::<_, _, M, { BLOCK / 4 }> {
        left,
        right,
        out,
        ahead,
        groups: PhantomData::<Rounded>,
    })
}

/// Units that are fetched ahead of their use: without it, one row reaches half the speed.
const AHEAD: usize = 1024;

/// Rows of the tallest tile that is multiplied with blocks as they are: taller ones are not compiled.
const FEW: usize = 2;

/// Whether blocks are unpacked before they are multiplied with `rows` rows. With fewer than a tall tile has it would cost more
/// memory than it saves work.
pub(crate) fn unpacks(rows: usize) -> bool {
    rows >= 6
}

/// As [`super::tile::tile`].
struct Tile<'a, A, G, const M: usize, const N: usize> {
    left: &'a [u32],
    right: &'a [u32],
    out: &'a mut [Sums; M],
    ahead: A,
    groups: PhantomData<G>,
}

impl<A: Fetch, G: Groups<N>, const M: usize, const N: usize> Work for Tile<'_, A, G, M, N> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { left, right, out, mut ahead, .. } = self;
        let left_units = (1 + N) * M;
        assert!(left.len() / (left_units * G::COUNT) >= right.len() / G::UNITS);
        for first in (0..WIDE).step_by(2 * S::LANES) {
            let mut sums = [[simd.splat(0.0); 2]; M];
            let blocks = left.chunks_exact(left_units * G::COUNT);
            for (left, right) in blocks.zip(right.chunks_exact(G::UNITS)) {
                for (g, left) in left.chunks_exact(left_units).enumerate() {
                    let sides = left.split_first_chunk::<M>();
                    let rows = sides.and_then(|(_, rows)| rows.as_chunks::<N>().0.first_chunk());
                    let (Some((heads, _)), Some(rows)) = (sides, rows) else { return };
                    let rows: &[[u32; N]; M] = rows;
                    ahead.fetch(simd, left_units);
                    // What few rows are multiplied with comes from memory; what was unpacked is near.
                    let part = if M <= FEW { G::UNITS / G::COUNT } else { 0 };
                    for line in (0..part).step_by(LINE) {
                        simd.prefetch(right.as_ptr().wrapping_add(g * part + AHEAD + line));
                    }
                    let mut ints = [[simd.splat_unit(0); 2]; M];
                    if !G::OFFSETS {
                        for (ints, head) in ints.iter_mut().zip(heads) {
                            *ints = [simd.splat_unit(*head); 2];
                        }
                    }
                    for k in 0..N {
                        let b = [
                            G::quants(simd, right, g, k, first),
                            G::quants(simd, right, g, k, first + S::LANES),
                        ];
                        for (ints, row) in ints.iter_mut().zip(rows) {
                            let a = simd.splat_unit(row[k]);
                            ints[0] = simd.dot_i8(ints[0], b[0], a);
                            ints[1] = simd.dot_i8(ints[1], b[1], a);
                        }
                    }
                    for (i, at) in [first, first + S::LANES].into_iter().enumerate() {
                        let slopes = G::slopes(simd, right, g, at);
                        for (sums, ints) in sums.iter_mut().zip(&ints) {
                            sums[i] = simd.fma(simd.int_to_f32(ints[i]), slopes, sums[i]);
                        }
                        if G::OFFSETS {
                            let offsets = G::offsets(simd, right, g, at);
                            for (sums, head) in sums.iter_mut().zip(heads) {
                                let head = simd.splat(f32::from_bits(*head));
                                sums[i] = simd.fma(head, offsets, sums[i]);
                            }
                        }
                    }
                }
            }
            for (sums, out) in sums.into_iter().zip(out.iter_mut()) {
                simd.store(sums[0], &mut out.0[first..]);
                simd.store(sums[1], &mut out.0[first + S::LANES..]);
            }
        }
    }
}

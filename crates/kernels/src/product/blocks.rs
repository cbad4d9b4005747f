//! Products with GGML's blocks of four to six bits, whose values are `slope · q − offset` with a small natural number `q`.
//!
//! A panel holds the blocks of 32 columns as files have them, but word by word: the first word of every column, then the
//! second of every column. So vectors hold the same word of many columns, and what a format does to a word it does to all of
//! them at once. With few rows that happens in registers, for every tile anew; with more, once into [`Unpacked`] groups,
//! through which all tiles pass. Either way the same numbers are summed in the same order.
//!
//! Groups of 16 or 32 values with an offset of their own cost a third of the time: sums leave int32 that often. So with many
//! rows blocks of 256 values are rounded to int8 while they are unpacked, in steps of a 127th of the largest value that they can hold.
//! The inputs that they meet are rounded to int8, too, a whole row in the same steps.

use std::marker::PhantomData;

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

/// Values of a block that is rounded: one of Q4_K's and its kin, or eight of Q4_0's.
pub(crate) const BLOCK: usize = 256;

/// Units of such a block of all columns, rounded: float32 scales, and the values with 128 added.
pub(crate) const ROUNDED: usize = WIDE + BLOCK / 4 * WIDE;

/// So many rows at least are multiplied with rounded blocks. Fewer wait for memory, or come from a few words of a language model, which
/// are to have the same results however many of them come at once.
const ROWS_TO_ROUND: usize = 96;

/// Whether blocks are rounded for `rows` rows of `width` values.
pub(crate) fn rounds(rows: usize, width: usize) -> bool {
    rows >= ROWS_TO_ROUND && width.is_multiple_of(BLOCK)
}

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

/// Groups whose slopes and offsets are float32 and whose values are bytes, of what were groups of `G`.
struct Unpacked<G, const N: usize>(PhantomData<G>);

impl<G: Groups<N>, const N: usize> Unpacked<G, N> {
    const HEAD: usize = if G::OFFSETS { 2 * WIDE } else { WIDE };
}

impl<G: Groups<N>, const N: usize> Groups<N> for Unpacked<G, N> {
    const COUNT: usize = 1;
    const UNITS: usize = Self::HEAD + N * WIDE;
    const OFFSETS: bool = G::OFFSETS;
    const MOST: u8 = G::MOST;
    const ZERO: u8 = G::ZERO;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], _: usize, first: usize) -> S::F {
        simd.as_f32(simd.load_units(&block[first..]))
    }

    #[inline(always)]
    fn offsets<S: Simd>(simd: S, block: &[u32], _: usize, first: usize) -> S::F {
        simd.as_f32(simd.load_units(&block[WIDE + first..]))
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], _: usize, k: usize, first: usize) -> S::U {
        simd.load_units(&block[Self::HEAD + k * WIDE + first..])
    }
}

/// Unpacks blocks of a panel, all or some of them, into as many groups as they have.
#[inline(always)]
pub(crate) fn unpack<S: Simd>(simd: S, format: Blocks, panel: &[u32], to: &mut [u32]) {
    macro_rules! run {
        ($groups:ty, $steps:literal) => {
            simd.call(Unpack::<$groups, $steps> { panel, to, groups: PhantomData })
        };
    }
    for_format!(format, run)
}

struct Unpack<'a, G, const N: usize> {
    panel: &'a [u32],
    to: &'a mut [u32],
    groups: PhantomData<G>,
}

impl<G: Groups<N>, const N: usize> Work for Unpack<'_, G, N> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = Unpacked::<G, N>::UNITS;
        let blocks = self.panel.chunks_exact(G::UNITS);
        for (block, to) in blocks.zip(self.to.chunks_exact_mut(size * G::COUNT)) {
            for (g, to) in to.chunks_exact_mut(size).enumerate() {
                let (head, steps) = to.split_at_mut(Unpacked::<G, N>::HEAD);
                for first in (0..WIDE).step_by(S::LANES) {
                    let slopes = G::slopes(simd, block, g, first);
                    simd.store_units(simd.as_units(slopes), &mut head[first..]);
                    if G::OFFSETS {
                        let offsets = G::offsets(simd, block, g, first);
                        simd.store_units(simd.as_units(offsets), &mut head[WIDE + first..]);
                    }
                    for (k, step) in steps.chunks_exact_mut(WIDE).enumerate() {
                        let quants = G::quants(simd, block, g, k, first);
                        simd.store_units(quants, &mut step[first..]);
                    }
                }
            }
        }
    }
}

/// Blocks of int8, as [`round`] makes them.
struct Rounded;

impl Groups<{ BLOCK / 4 }> for Rounded {
    const COUNT: usize = 1;
    const UNITS: usize = ROUNDED;
    const OFFSETS: bool = false;
    const MOST: u8 = 255;
    const ZERO: u8 = 128;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], _: usize, first: usize) -> S::F {
        simd.as_f32(simd.load_units(&block[first..]))
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], _: usize, k: usize, first: usize) -> S::U {
        simd.load_units(&block[WIDE + k * WIDE + first..])
    }
}

/// Rounds blocks of a panel to int8, all or some of them: [`ROUNDED`] units for each.
#[inline(always)]
pub(crate) fn round<S: Simd>(simd: S, format: Blocks, panel: &[u32], to: &mut [u32]) {
    match format {
        Blocks::Q4_0 => simd.call(Round::<Eight, 8> { panel, to, groups: PhantomData }),
        Blocks::Q4K => simd.call(Round::<Q4K, 8> { panel, to, groups: PhantomData }),
        Blocks::Q5K => simd.call(Round::<Q5K, 8> { panel, to, groups: PhantomData }),
        Blocks::Q6K => simd.call(Round::<Q6K, 4> { panel, to, groups: PhantomData }),
    }
}

struct Round<'a, G, const N: usize> {
    panel: &'a [u32],
    to: &'a mut [u32],
    groups: PhantomData<G>,
}

/// Groups of a block, at most.
const GROUPS: usize = 16;

impl<G: Groups<N>, const N: usize> Work for Round<'_, G, N> {
    type Out = ();

    /// A value is `(a · q + b) / 256` in whole numbers of 16 bits, where `a` and `b` are 256 times what makes steps of quants; so it is
    /// off by less than an eighth of a step before it is rounded.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let none = simd.splat(0.0);
        let bytes = simd.splat_unit(0x00ff_00ff);
        let blocks = self.panel.chunks_exact(G::UNITS);
        for (block, to) in blocks.zip(self.to.chunks_exact_mut(ROUNDED)) {
            let (scales, steps) = to.split_at_mut(WIDE);
            for first in (0..WIDE).step_by(S::LANES) {
                let (mut groups, mut most) = ([[none; 2]; GROUPS], none);
                for (g, group) in groups[..G::COUNT].iter_mut().enumerate() {
                    let slope = G::slopes(simd, block, g, first);
                    let offset = match G::OFFSETS {
                        true => G::offsets(simd, block, g, first),
                        false => times(simd, slope, simd.splat(f32::from(G::ZERO))),
                    };
                    // The ends of a line have its largest value between them.
                    let end =
                        simd.fma(slope, simd.splat(f32::from(G::MOST)), simd.sub(none, offset));
                    for value in [offset, end] {
                        let size = simd.max(simd.sub(none, value), value);
                        most = simd.max(most, size);
                    }
                    *group = [slope, offset];
                }
                let mut sizes = [0f32; 16];
                simd.store(most, &mut sizes);
                let mut factors = [0f32; 16];
                for (size, factor) in sizes.iter_mut().zip(&mut factors) {
                    *factor = if *size > 0.0 { 127.0 * 256.0 / *size } else { 0.0 };
                    *size /= 127.0;
                }
                simd.store_units(simd.as_units(simd.load(&sizes)), &mut scales[first..]);
                let factor = simd.load(&factors);
                for (g, [slope, offset]) in groups[..G::COUNT].iter().enumerate() {
                    let a = whole(simd, times(simd, *slope, factor));
                    // Half a step is what makes dropping bits the same as rounding.
                    let b = if G::OFFSETS {
                        let middle = simd.splat(128.5 * 256.0);
                        whole(simd, simd.fma(simd.sub(none, *offset), factor, middle))
                    } else {
                        let less = u32::from(G::ZERO).wrapping_neg() & 0xffff;
                        simd.fma_u16(
                            a,
                            simd.splat_unit(less << 16 | less),
                            simd.splat_unit(0x8080_8080),
                        )
                    };
                    for k in 0..N {
                        let quants = G::quants(simd, block, g, k, first);
                        let even = simd.fma_u16(simd.and(quants, bytes), a, b);
                        let odd = simd.and(simd.shift_right(quants, 8), bytes);
                        let odd = simd.fma_u16(odd, a, b);
                        let even = simd.and(simd.shift_right(even, 8), bytes);
                        let odd = simd.and(odd, simd.splat_unit(0xff00_ff00));
                        let at = (g * N + k) * WIDE + first;
                        simd.store_units(simd.or(even, odd), &mut steps[at..]);
                    }
                }
            }
        }
    }
}

/// The nearest whole number of each value, its low 16 bits in both halves of a unit; values are between −2¹⁶ and 2¹⁶.
#[inline(always)]
fn whole<S: Simd>(simd: S, values: S::F) -> S::U {
    // A sum with 1.5 · 2²³ has it in its low bits.
    let number = simd.as_units(simd.add(values, simd.splat(12_582_912.0)));
    let low = simd.and(number, simd.splat_unit(0xffff));
    simd.or(low, simd.shift_left(low, 16))
}

/// The values of `column` in unpacked groups of `format`, one after another.
pub(crate) fn values(format: Blocks, column: usize, unpacked: &[u32], to: &mut [f32]) {
    let layout = format.layout();
    let groups = unpacked.chunks_exact(layout.unpacked);
    for (group, to) in groups.zip(to.chunks_exact_mut(layout.group)) {
        let head = layout.unpacked - layout.group / 4 * WIDE;
        let slope = f32::from_bits(group[column]);
        let offset = match layout.zero {
            Some(zero) => slope * zero as f32,
            None => f32::from_bits(group[WIDE + column]),
        };
        let words = group[head + column..].iter().step_by(WIDE);
        for (to, word) in to.chunks_exact_mut(4).zip(words) {
            let quants = word.to_le_bytes();
            to.iter_mut().zip(quants).for_each(|(v, q)| *v = slope * f32::from(q) - offset);
        }
    }
}

/// Word `w` of the columns from `first` on, in a block with `floats` float16 numbers.
#[inline(always)]
fn word<S: Simd>(simd: S, block: &[u32], floats: usize, w: usize, first: usize) -> S::U {
    simd.load_units(&block[(floats * WIDE / 2 + w * WIDE) + first..])
}

/// The float16 numbers `i` of a block.
#[inline(always)]
fn float<S: Simd>(simd: S, block: &[u32], i: usize, first: usize) -> S::F {
    simd.load_f16(&block[(i * WIDE + first) / 2..])
}

/// `bits` of every byte, `shift` bits up from the lowest.
#[inline(always)]
fn bits<S: Simd>(simd: S, units: S::U, shift: usize, bits: u8) -> S::U {
    simd.and(simd.shift_right(units, shift as u32), simd.splat_unit(u32::from_le_bytes([bits; 4])))
}

#[inline(always)]
fn times<S: Simd>(simd: S, a: S::F, b: S::F) -> S::F {
    simd.fma(a, b, simd.splat(0.0))
}

/// `d · (q − 8)`: a float16 and 32 values of 4 bits, those of the second half above those of the first
/// (ggml, `block_q4_0`).
struct Q4_0;

impl Groups<8> for Q4_0 {
    const COUNT: usize = 1;
    const UNITS: usize = WIDE * 18 / 4;
    const OFFSETS: bool = false;
    const MOST: u8 = 15;
    const ZERO: u8 = 8;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], _: usize, first: usize) -> S::F {
        float(simd, block, 0, first)
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], _: usize, k: usize, first: usize) -> S::U {
        bits(simd, word(simd, block, 1, k % 4, first), 4 * (k / 4), 15)
    }
}

/// Eight blocks of [`Q4_0`].
struct Eight;

impl Groups<8> for Eight {
    const COUNT: usize = 8;
    const UNITS: usize = 8 * Q4_0::UNITS;
    const OFFSETS: bool = false;
    const MOST: u8 = Q4_0::MOST;
    const ZERO: u8 = Q4_0::ZERO;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        Q4_0::slopes(simd, &block[g * Q4_0::UNITS..], 0, first)
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], g: usize, k: usize, first: usize) -> S::U {
        Q4_0::quants(simd, &block[g * Q4_0::UNITS..], 0, k, first)
    }
}

/// The 6-bit scale (`which` 0) or minimum (1) of group `g`, from the twelve bytes of them that Q4_K and Q5_K have (ggml,
/// `get_scale_min_k4`).
#[inline(always)]
fn six_bits<S: Simd>(simd: S, block: &[u32], g: usize, which: usize, first: usize) -> S::F {
    let own = word(simd, block, 2, which, first);
    let shift = 8 * (g % 4) as u32;
    let number = if g < 4 {
        simd.and(simd.shift_right(own, shift), simd.splat_unit(63))
    } else {
        let low = simd.shift_right(word(simd, block, 2, 2, first), shift + 4 * which as u32);
        let high = simd.shift_right(own, shift + 2);
        let (low_bits, high_bits) = (simd.splat_unit(0x0f), simd.splat_unit(0x30));
        simd.or(simd.and(low, low_bits), simd.and(high, high_bits))
    };
    simd.int_to_f32(number)
}

/// `d · s · q`
#[inline(always)]
fn slopes_of_pairs<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
    times(simd, float(simd, block, 0, first), six_bits(simd, block, g, 0, first))
}

/// `d_min · m`
#[inline(always)]
fn offsets_of_pairs<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
    times(simd, float(simd, block, 1, first), six_bits(simd, block, g, 1, first))
}

/// Two float16, 8 pairs of 6 bits, and 256 values of 4 bits (ggml, `block_q4_K`).
struct Q4K;

impl Groups<8> for Q4K {
    const COUNT: usize = 8;
    const UNITS: usize = WIDE * 144 / 4;
    const OFFSETS: bool = true;
    const MOST: u8 = 15;
    const ZERO: u8 = 0;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        slopes_of_pairs(simd, block, g, first)
    }

    #[inline(always)]
    fn offsets<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        offsets_of_pairs(simd, block, g, first)
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], g: usize, k: usize, first: usize) -> S::U {
        bits(simd, word(simd, block, 2, 3 + g / 2 * 8 + k, first), 4 * (g % 2), 15)
    }
}

/// As [`Q4K`] with a fifth bit: 32 bytes that have one for each group (ggml, `block_q5_K`).
struct Q5K;

impl Groups<8> for Q5K {
    const COUNT: usize = 8;
    const UNITS: usize = WIDE * 176 / 4;
    const OFFSETS: bool = true;
    const MOST: u8 = 31;
    const ZERO: u8 = 0;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        slopes_of_pairs(simd, block, g, first)
    }

    #[inline(always)]
    fn offsets<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        offsets_of_pairs(simd, block, g, first)
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], g: usize, k: usize, first: usize) -> S::U {
        let low = bits(simd, word(simd, block, 2, 11 + g / 2 * 8 + k, first), 4 * (g % 2), 15);
        let fifth = bits(simd, word(simd, block, 2, 3 + k, first), g, 1);
        simd.or(low, simd.shift_left(fifth, 4))
    }
}

/// `d · s · (q − 32)`, with a signed scale for every 16 values: 128 bytes of the low 4 bits of two values each, 64 of the
/// high 2 bits of four, 16 scales and a float16 (ggml, `block_q6_K`).
struct Q6K;

impl Groups<4> for Q6K {
    const COUNT: usize = 16;
    const UNITS: usize = WIDE * 210 / 4;
    const OFFSETS: bool = false;
    const MOST: u8 = 63;
    const ZERO: u8 = 32;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        // The scale's byte on top is 2²⁴ times the scale.
        let scales =
            simd.shift_left(word(simd, block, 1, 48 + g / 4, first), 24 - 8 * (g as u32 % 4));
        let scale = simd.int_to_f32(simd.and(scales, simd.splat_unit(0xff00_0000)));
        let d = times(simd, float(simd, block, 0, first), simd.splat(1.0 / 16_777_216.0));
        times(simd, d, scale)
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], g: usize, k: usize, first: usize) -> S::U {
        // Halves of 128 values: 32 with low bits at the bottom of the first 32 bytes, 32 of the next 32, then those on top.
        let (half, part, k) = (g / 8, g / 2 % 4, g % 2 * 4 + k);
        let low = word(simd, block, 1, half * 16 + part % 2 * 8 + k, first);
        let high = word(simd, block, 1, 32 + half * 8 + k, first);
        let high = simd.shift_left(bits(simd, high, 2 * part, 3), 4);
        simd.or(bits(simd, low, 4 * (part / 2), 15), high)
    }
}

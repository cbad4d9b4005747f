//! Blocks to int8 with one scale each, for products of many rows.

use std::marker::PhantomData;

use super::formats::{Eight, Q4K, Q5K, Q6K, times};
use super::{Blocks, Groups};
use crate::product::WIDE;
use crate::simd::{Simd, Work};

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

/// Blocks of int8, as [`round`] makes them.
pub(super) struct Rounded;

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

//! How the groups of each format lie in its blocks.

use super::Groups;
use crate::product::WIDE;
use crate::simd::Simd;

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
pub(super) fn times<S: Simd>(simd: S, a: S::F, b: S::F) -> S::F {
    simd.fma(a, b, simd.splat(0.0))
}

/// `d · (q − 8)`: a float16 and 32 values of 4 bits, those of the second half above those of the first
/// (ggml, `block_q4_0`).
pub(super) struct Q4_0;

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
pub(super) struct Eight;

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

/// Blocks of pairs: two float16, 8 pairs of a 6-bit scale and a 6-bit minimum, where `FIFTH` 32 bytes that have a fifth bit of values for
/// each group, and the low 4 bits of 256 values. A value is `d · s · q − d_min · m`.
pub(super) struct Pairs<const FIFTH: bool>;

/// ggml's `block_q4_K`.
pub(super) type Q4K = Pairs<false>;
/// ggml's `block_q5_K`.
pub(super) type Q5K = Pairs<true>;

impl<const FIFTH: bool> Groups<8> for Pairs<FIFTH> {
    const COUNT: usize = 8;
    const UNITS: usize = WIDE * if FIFTH { 176 } else { 144 } / 4;
    const OFFSETS: bool = true;
    const MOST: u8 = if FIFTH { 31 } else { 15 };
    const ZERO: u8 = 0;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        times(simd, float(simd, block, 0, first), six_bits(simd, block, g, 0, first))
    }

    #[inline(always)]
    fn offsets<S: Simd>(simd: S, block: &[u32], g: usize, first: usize) -> S::F {
        times(simd, float(simd, block, 1, first), six_bits(simd, block, g, 1, first))
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], g: usize, k: usize, first: usize) -> S::U {
        let start = if FIFTH { 11 } else { 3 };
        let low = bits(simd, word(simd, block, 2, start + g / 2 * 8 + k, first), 4 * (g % 2), 15);
        if !FIFTH {
            return low;
        }
        let fifth = bits(simd, word(simd, block, 2, 3 + k, first), g, 1);
        simd.or(low, simd.shift_left(fifth, 4))
    }
}

/// `d · s · (q − 32)`, with a signed scale for every 16 values: 128 bytes of the low 4 bits of two values each, 64 of the
/// high 2 bits of four, 16 scales and a float16 (ggml, `block_q6_K`).
pub(super) struct Q6K;

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

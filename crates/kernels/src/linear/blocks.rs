//! Four-bit blocks of GGML's to int8 groups without a detour through float32: a group has at most sixteen different
//! values, so each is rounded once.

use candle_core::quantized::GgmlDType;
use half::f16;

use crate::product::GROUP;
use crate::product::pack::{nearest_i8, set_group};
use crate::product::tile::RIGHT_GROUP;

/// Whether a format is unpacked here.
pub(super) fn knows(kind: GgmlDType) -> bool {
    matches!(kind, GgmlDType::Q4_0 | GgmlDType::Q4K)
}

/// Puts a block, of a format that is known here, into its column of a panel's groups.
#[inline(always)]
pub(super) fn unpack(kind: GgmlDType, block: &[u8], column: usize, groups: &mut [u32]) {
    match kind {
        GgmlDType::Q4_0 => q4_0(block, column, groups),
        _ => q4_k(block, column, groups),
    }
}

#[inline(always)]
fn f16_at(bytes: &[u8]) -> f16 {
    f16::from_le_bytes([bytes[0], bytes[1]])
}

/// `d · (q − 8)`, exactly: a float16 scale and 32 values of 4 bits (ggml, `block_q4_0`).
#[inline(always)]
fn q4_0(block: &[u8], column: usize, group: &mut [u32]) {
    let (scale, nibbles) = block.split_at(2);
    let mut values = [0i8; GROUP];
    let (low, high) = values.split_at_mut(GROUP / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(nibbles) {
        (*low, *high) = ((byte & 15) as i8 - 8, (byte >> 4) as i8 - 8);
    }
    set_group(f16_at(scale), &values, column, group);
}

/// `d · s · q − d_min · m`, with a scale and a minimum for every 32 values: two float16, 8 pairs of 6 bits, and 256 values
/// of 4 bits (ggml, `block_q4_K`).
#[inline(always)]
fn q4_k(block: &[u8], column: usize, groups: &mut [u32]) {
    let (d, d_min) = (f16_at(block).to_f32(), f16_at(&block[2..]).to_f32());
    let (pairs, nibbles) = block[4..].split_at(12);
    let groups = groups.chunks_exact_mut(RIGHT_GROUP);
    for (i, group) in groups.enumerate() {
        let (scale, minimum) = scale_and_minimum(pairs, i);
        let bytes = &nibbles[i / 2 * GROUP..][..GROUP];
        let shift = 4 * (i % 2);
        let mut q = [0u8; GROUP];
        q.iter_mut().zip(bytes).for_each(|(q, byte)| *q = (byte >> shift) & 15);
        quantise(d * scale, d_min * minimum, &q, column, group);
    }
}

/// The 6-bit scale and minimum of group `i` (ggml, `get_scale_min_k4`).
#[inline(always)]
fn scale_and_minimum(pairs: &[u8], i: usize) -> (f32, f32) {
    let (scale, minimum) = if i < 4 {
        (pairs[i] & 63, pairs[i + 4] & 63)
    } else {
        let both = pairs[i + 4];
        ((both & 15) | ((pairs[i - 4] >> 6) << 4), (both >> 4) | ((pairs[i] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

/// `a · q − b` as an int8 group.
#[inline(always)]
fn quantise(a: f32, b: f32, q: &[u8; GROUP], column: usize, group: &mut [u32]) {
    let (low, high) = q.iter().fold((15, 0), |(low, high), q| (low.min(*q), high.max(*q)));
    let peak = (a * f32::from(low) - b).abs().max((a * f32::from(high) - b).abs());
    let scale = f16::from_f32(peak / 127.0);
    let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    // A scale that was rounded down would carry the largest value beyond 127.
    let clamped = |v: f32| nearest_i8((v * inverse).clamp(-127.0, 127.0));
    let mut table = [0i8; 16];
    for (q, entry) in table.iter_mut().enumerate() {
        *entry = clamped(a * q as f32 - b);
    }
    let mut values = [0i8; GROUP];
    values.iter_mut().zip(q).for_each(|(v, q)| *v = table[usize::from(q & 15)]);
    set_group(scale, &values, column, group);
}

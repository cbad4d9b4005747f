//! GGML's blocks of four to six bits to int8 groups without a detour through float32, sixteen columns at a time.
//!
//! In all of these formats a value is `slope · q − offset` with a small natural number `q`; what a group's values can be
//! at most follows from its slopes and offsets, so its int8 scale is known before any value is.

use candle_core::quantized::GgmlDType;

use crate::product::tile::{DEEP, RIGHT_GROUP};
use crate::product::{GROUP, WIDE};
use crate::simd::Simd;

/// Columns that are unpacked together: as many as a transposition takes.
const COLUMNS: usize = 16;

/// One number a column.
type Lanes = [f32; COLUMNS];

/// Whether a format is unpacked here.
pub(super) fn knows(kind: GgmlDType) -> bool {
    matches!(kind, GgmlDType::Q4_0 | GgmlDType::Q4K | GgmlDType::Q5K | GgmlDType::Q6K)
}

/// Puts up to [`WIDE`] rows of blocks, of a format that is known here, into a panel of int8 groups.
#[inline(always)]
pub(super) fn unpack<S: Simd>(
    simd: S,
    kind: GgmlDType,
    rows: &[u8],
    row_bytes: usize,
    panel: &mut [u32],
) {
    match kind {
        GgmlDType::Q4_0 => unpack_as::<S, Q4_0>(simd, rows, row_bytes, panel),
        GgmlDType::Q4K => unpack_as::<S, Q4K>(simd, rows, row_bytes, panel),
        GgmlDType::Q5K => unpack_as::<S, Q5K>(simd, rows, row_bytes, panel),
        _ => unpack_as::<S, Q6K>(simd, rows, row_bytes, panel),
    }
}

/// How a format lays out its blocks.
trait Format {
    /// Bytes of a block.
    const BYTES: usize;
    /// Groups of a block.
    const GROUPS: usize;
    /// What a block's groups have in common, for all columns.
    type Header;

    fn header<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS]) -> Self::Header;

    /// What group `g` is made of.
    fn scales(header: &Self::Header, g: usize) -> Scales;

    /// Group `g` of one column, each `q` a byte.
    fn quants(block: &[u8], g: usize) -> [u8; GROUP];
}

/// A group in all columns.
struct Scales {
    /// For each half of the group.
    slopes: [Lanes; 2],
    offsets: [Lanes; 2],
    /// What int8 values are multiplied by, before it is rounded to float16.
    scale: Lanes,
}

#[inline(always)]
fn unpack_as<S: Simd, F: Format>(simd: S, rows: &[u8], row_bytes: usize, panel: &mut [u32]) {
    let nothing = [0u8; 256];
    for side in 0..WIDE / COLUMNS {
        for block in 0..row_bytes / F::BYTES {
            let mut blocks = [&nothing[..F::BYTES]; COLUMNS];
            let columns = rows.chunks_exact(row_bytes).skip(side * COLUMNS);
            for (to, row) in blocks.iter_mut().zip(columns) {
                *to = &row[block * F::BYTES..][..F::BYTES];
            }
            let header = F::header(simd, &blocks);
            for g in (0..F::GROUPS).step_by(2) {
                let to = &mut panel[(block * F::GROUPS + g) * RIGHT_GROUP..];
                let count = (F::GROUPS - g).min(2);
                groups::<S, F>(simd, &header, &blocks, g..g + count, side, to);
            }
        }
    }
}

/// One group, or two of one block that follow each other, of sixteen columns.
#[inline(always)]
fn groups<S: Simd, F: Format>(
    simd: S,
    header: &F::Header,
    blocks: &[&[u8]; COLUMNS],
    range: std::ops::Range<usize>,
    side: usize,
    to: &mut [u32],
) {
    let mut columns = [[0u32; DEEP]; COLUMNS];
    let first = range.start;
    for g in range.clone() {
        let Scales { mut slopes, mut offsets, scale } = F::scales(header, g);
        let halves = &mut to[(g - first) * RIGHT_GROUP + side * COLUMNS / 2..][..COLUMNS / 2];
        let inverse = inverse_as_f16(simd, &scale, halves);
        for half in slopes.iter_mut().chain(&mut offsets) {
            half.iter_mut().zip(&inverse).for_each(|(v, i)| *v *= i);
        }
        for (c, (column, block)) in columns.iter_mut().zip(blocks).enumerate() {
            let q = F::quants(block, g);
            let mut values = [0u8; GROUP];
            for half in 0..2 {
                let (slope, offset) = (slopes[half][c], offsets[half][c]);
                let at = half * GROUP / 2..(half + 1) * GROUP / 2;
                for (value, q) in values[at.clone()].iter_mut().zip(&q[at]) {
                    *value = int8(slope * f32::from(*q) - offset) ^ 0x80;
                }
            }
            let to = &mut column[(g - first) * GROUP / 4..][..GROUP / 4];
            for (to, four) in to.iter_mut().zip(values.chunks_exact(4)) {
                *to = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
    }
    let mut steps = [0u32; DEEP * COLUMNS];
    simd.transpose(&columns, &mut steps, COLUMNS);
    for (k, step) in steps.chunks_exact(COLUMNS).take(range.len() * GROUP / 4).enumerate() {
        let (group, k) = (k / (GROUP / 4), k % (GROUP / 4));
        let at = group * RIGHT_GROUP + WIDE / 2 + k * WIDE + side * COLUMNS;
        to[at..][..COLUMNS].copy_from_slice(step);
    }
}

/// Rounded to the nearest; a float16 scale that was rounded down would carry the largest beyond 127.
#[inline(always)]
fn int8(value: f32) -> u8 {
    let value = if value < -127.0 { -127.0 } else { value };
    let value = if value > 127.0 { 127.0 } else { value };
    (value + 12_582_912.0).to_bits() as u8
}

/// Writes `scale` as float16; the result is the inverse of what was written, or 0.
#[inline(always)]
fn inverse_as_f16<S: Simd>(simd: S, scale: &Lanes, to: &mut [u32]) -> Lanes {
    for first in (0..COLUMNS).step_by(S::LANES) {
        simd.store_f16(simd.load(&scale[first..]), &mut to[first / 2..]);
    }
    let mut inverse = floats(simd, to);
    for value in &mut inverse {
        *value = if *value == 0.0 { 0.0 } else { 1.0 / *value };
    }
    inverse
}

/// Sixteen float16, two a unit.
#[inline(always)]
fn floats<S: Simd>(simd: S, halves: &[u32]) -> Lanes {
    let mut out = [0f32; COLUMNS];
    for first in (0..COLUMNS).step_by(S::LANES) {
        simd.store(simd.load_f16(&halves[first / 2..]), &mut out[first..]);
    }
    out
}

/// The float16 at byte `at` of each block.
#[inline(always)]
fn floats_at<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS], at: usize) -> Lanes {
    let mut halves = [0u32; COLUMNS / 2];
    for (to, two) in halves.iter_mut().zip(blocks.chunks_exact(2)) {
        *to = u32::from_le_bytes([two[0][at], two[0][at + 1], two[1][at], two[1][at + 1]]);
    }
    floats(simd, &halves)
}

/// `d · (q − 8)`, exactly: a float16 scale and 32 values of 4 bits, those of the second half above those of the first
/// (ggml, `block_q4_0`).
struct Q4_0;

impl Format for Q4_0 {
    const BYTES: usize = 18;
    const GROUPS: usize = 1;
    type Header = Lanes;

    #[inline(always)]
    fn header<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS]) -> Lanes {
        floats_at(simd, blocks, 0)
    }

    #[inline(always)]
    fn scales(d: &Lanes, _: usize) -> Scales {
        let mut offsets = *d;
        offsets.iter_mut().for_each(|v| *v *= 8.0);
        Scales { slopes: [*d; 2], offsets: [offsets; 2], scale: *d }
    }

    #[inline(always)]
    fn quants(block: &[u8], _: usize) -> [u8; GROUP] {
        let mut q = [0u8; GROUP];
        let (low, high) = q.split_at_mut(GROUP / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(&block[2..18]) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
        q
    }
}

/// What the blocks of Q4_K and Q5_K begin with: two float16, and a scale and a minimum of 6 bits for each group.
struct Pairs {
    d: Lanes,
    d_min: Lanes,
    /// Twelve bytes a column.
    bits: [[u32; COLUMNS]; 3],
}

impl Pairs {
    #[inline(always)]
    fn of<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS]) -> Self {
        let mut bits = [[0u32; COLUMNS]; 3];
        for (i, bits) in bits.iter_mut().enumerate() {
            for (bits, block) in bits.iter_mut().zip(blocks) {
                let four = &block[4 + 4 * i..][..4];
                *bits = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        Self { d: floats_at(simd, blocks, 0), d_min: floats_at(simd, blocks, 2), bits }
    }

    /// `d · s · q − d_min · m` with the 6-bit `s` and `m` of group `g` (ggml, `get_scale_min_k4`), and `q` up to `most`.
    #[inline(always)]
    fn scales(&self, g: usize, most: f32) -> Scales {
        let (mut slope, mut offset, mut scale) =
            ([0f32; COLUMNS], [0f32; COLUMNS], [0f32; COLUMNS]);
        let [first, second, third] = &self.bits;
        let shift = 8 * (g % 4) as u32;
        for c in 0..COLUMNS {
            let (s, m) = if g < 4 {
                ((first[c] >> shift) & 63, (second[c] >> shift) & 63)
            } else {
                let (low, high) = ((third[c] >> shift) & 15, (third[c] >> (shift + 4)) & 15);
                let above = |bits: u32| ((bits >> (shift + 6)) & 3) << 4;
                (low | above(first[c]), high | above(second[c]))
            };
            slope[c] = self.d[c] * s as f32;
            offset[c] = self.d_min[c] * m as f32;
            let (zero, full) = (offset[c].abs(), (slope[c] * most - offset[c]).abs());
            scale[c] = if zero > full { zero } else { full } / 127.0;
        }
        Scales { slopes: [slope; 2], offsets: [offset; 2], scale }
    }
}

/// Two float16, 8 pairs of 6 bits, and 256 values of 4 bits (ggml, `block_q4_K`).
struct Q4K;

impl Format for Q4K {
    const BYTES: usize = 144;
    const GROUPS: usize = 8;
    type Header = Pairs;

    #[inline(always)]
    fn header<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS]) -> Pairs {
        Pairs::of(simd, blocks)
    }

    #[inline(always)]
    fn scales(header: &Pairs, g: usize) -> Scales {
        header.scales(g, 15.0)
    }

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        nibbles(&block[16..], g / 2, g % 2)
    }
}

/// The low or high halves of the 32 bytes of `run`.
#[inline(always)]
fn nibbles(bytes: &[u8], run: usize, high: usize) -> [u8; GROUP] {
    let mut q = [0u8; GROUP];
    let bytes = &bytes[run * GROUP..][..GROUP];
    q.iter_mut().zip(bytes).for_each(|(q, byte)| *q = (byte >> (4 * high)) & 15);
    q
}

/// As [`Q4K`] with a fifth bit: 32 bytes that have one for each group (ggml, `block_q5_K`).
struct Q5K;

impl Format for Q5K {
    const BYTES: usize = 176;
    const GROUPS: usize = 8;
    type Header = Pairs;

    #[inline(always)]
    fn header<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS]) -> Pairs {
        Pairs::of(simd, blocks)
    }

    #[inline(always)]
    fn scales(header: &Pairs, g: usize) -> Scales {
        header.scales(g, 31.0)
    }

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        let mut q = nibbles(&block[48..], g / 2, g % 2);
        let fifth = &block[16..48];
        q.iter_mut().zip(fifth).for_each(|(q, bits)| *q |= ((bits >> g) & 1) << 4);
        q
    }
}

/// `d · s · (q − 32)`, with a signed scale for every 16 values: 128 bytes of the low 4 bits of two values each, 64 of the
/// high 2 bits of four, 16 scales and a float16 (ggml, `block_q6_K`).
struct Q6K;

impl Format for Q6K {
    const BYTES: usize = 210;
    const GROUPS: usize = 8;
    /// `d · s`, for each half of each group.
    type Header = [Lanes; 16];

    #[inline(always)]
    fn header<S: Simd>(simd: S, blocks: &[&[u8]; COLUMNS]) -> [Lanes; 16] {
        let d = floats_at(simd, blocks, 208);
        let mut all = [[0f32; COLUMNS]; 16];
        for (c, block) in blocks.iter().enumerate() {
            for (lanes, scale) in all.iter_mut().zip(&block[192..208]) {
                lanes[c] = d[c] * f32::from(*scale as i8);
            }
        }
        all
    }

    #[inline(always)]
    fn scales(all: &[Lanes; 16], g: usize) -> Scales {
        let slopes = [all[2 * g], all[2 * g + 1]];
        let (mut offsets, mut scale) = (slopes, [0f32; COLUMNS]);
        offsets.iter_mut().flatten().for_each(|v| *v *= 32.0);
        for (c, scale) in scale.iter_mut().enumerate() {
            let (first, second) = (offsets[0][c].abs(), offsets[1][c].abs());
            *scale = if first > second { first } else { second } / 127.0;
        }
        Scales { slopes, offsets, scale }
    }

    #[inline(always)]
    fn quants(block: &[u8], g: usize) -> [u8; GROUP] {
        let (half, part) = (g / 4, g % 4);
        let mut q = nibbles(block, 2 * half + part % 2, part / 2);
        let high = &block[128 + half * GROUP..][..GROUP];
        q.iter_mut().zip(high).for_each(|(q, bits)| *q |= ((bits >> (2 * part)) & 3) << 4);
        q
    }
}

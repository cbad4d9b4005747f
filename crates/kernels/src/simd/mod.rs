//! What processors can do: one set of vector operations, and a token for each instruction set that has them.
//!
//! A token exists only where its instructions were found, so that holding one is the proof that they may be used.
//! Kernels are written once over [`Simd`] and compiled for every level; [`Level::run`] enters the right one.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;
use std::sync::OnceLock;

/// Vector operations of one instruction set. A *unit* is 32 bits: one float32, two bfloat16 or four int8.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of float32.
    type F: Copy;
    /// A vector of units, or of int32.
    type U: Copy;
    /// Lanes of either; it divides 16.
    const LANES: usize;
    /// Rows of the tallest tile two vectors wide that stays in registers.
    const ROWS: usize;
    /// The same for tiles that hold int32 sums beside their float32 ones.
    const ROWS_BLOCKS: usize;
    /// Whether [`Simd::dot_bf16`] is an instruction. Where it is not, weights are widened and float32 is as fast.
    const BF16: bool;

    /// One value in every lane.
    fn splat(self, value: f32) -> Self::F;
    /// The first lanes of `from`.
    fn load(self, from: &[f32]) -> Self::F;
    /// To the first lanes of `to`.
    fn store(self, value: Self::F, to: &mut [f32]);
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger of each lane; that of `b` where either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `value · 2ⁿ`, where n stands in the lowest bits of `power`; both must be far from the ends of float32.
    fn raise(self, value: Self::F, power: Self::F) -> Self::F;
    /// `a · b + c`
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// One unit in every lane.
    fn splat_unit(self, unit: u32) -> Self::U;
    /// The first lanes of `from`.
    fn load_units(self, from: &[u32]) -> Self::U;
    /// To the first lanes of `to`.
    fn store_units(self, units: Self::U, to: &mut [u32]);
    /// The bits that both have.
    fn and(self, a: Self::U, b: Self::U) -> Self::U;
    /// The bits that either has.
    fn or(self, a: Self::U, b: Self::U) -> Self::U;
    /// Every unit's bits `by` places up, zeros after them; `by` is below 32.
    fn shift_left(self, units: Self::U, by: u32) -> Self::U;
    /// Every unit's bits `by` places down, zeros before them; `by` is below 32.
    fn shift_right(self, units: Self::U, by: u32) -> Self::U;
    /// `a · b + c` in each half of every unit, of which the low 16 bits are kept.
    fn fma_u16(self, a: Self::U, b: Self::U, c: Self::U) -> Self::U;
    /// Units that hold a float32 each.
    fn as_f32(self, units: Self::U) -> Self::F;
    /// The same bits as units.
    fn as_units(self, values: Self::F) -> Self::U;
    /// int32 to float32.
    fn int_to_f32(self, values: Self::U) -> Self::F;
    /// `LANES` float16 values, two a unit.
    fn load_f16(self, from: &[u32]) -> Self::F;
    /// The lanes of `low`, then those of `high`, rounded to bfloat16: neighbours make a unit. Only where [`Simd::BF16`].
    fn bf16_units(self, _low: Self::F, _high: Self::F) -> Self::U {
        unreachable!("nothing is rounded to bfloat16 where it is not multiplied")
    }
    /// `sum + a₀ · b₀ + a₁ · b₁` over the two bfloat16 of a unit; only where [`Simd::BF16`].
    fn dot_bf16(self, _sum: Self::F, _a: Self::U, _b: Self::U) -> Self::F {
        unreachable!("nothing is rounded to bfloat16 where it is not multiplied")
    }
    /// `sum + Σ a · b` over four bytes, `a` unsigned and `b` signed.
    fn dot_i8(self, sum: Self::U, a: Self::U, b: Self::U) -> Self::U;
    /// `to[k · stride + i] = rows[i][k]`: rows of units to columns.
    #[inline(always)]
    fn transpose(self, rows: &[[u32; 16]; 16], to: &mut [u32], stride: usize) {
        for (k, to) in to.chunks_mut(stride).take(16).enumerate() {
            to.iter_mut().zip(rows).for_each(|(to, row)| *to = row[k]);
        }
    }
    /// Brings what `at` points to near; it may point anywhere.
    fn prefetch(self, at: *const u32);

    /// Does `work` as a function of its own, with this level's instructions: for what is too large to be compiled into
    /// each of its callers.
    fn call<W: Work>(self, work: W) -> W::Out;
}

/// Work that is compiled once for every instruction set. Everything it calls must be inlined into it, or runs without
/// the instructions; that holds for closures, too, so threads are started outside.
pub(crate) trait Work {
    /// What comes out.
    type Out;
    /// Does it.
    fn run<S: Simd>(self, simd: S) -> Self::Out;
}

/// An instruction set of this processor.
#[derive(Clone, Copy)]
pub struct Level(Token);

#[derive(Clone, Copy)]
enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(x86::Avx512Bf16),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "aarch64")]
    NeonBf16(neon::NeonBf16),
    #[cfg(target_arch = "aarch64")]
    NeonDot(neon::NeonDot),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Portable(portable::Portable),
}

impl Level {
    /// The fastest that this processor has.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All that this processor has, fastest first; tests run on each.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let found = [
            x86::Avx512Bf16::detect().map(Token::Avx512Bf16),
            x86::Avx512::detect().map(Token::Avx512),
            x86::Avx2::detect().map(Token::Avx2),
        ];
        #[cfg(target_arch = "aarch64")]
        let found = [
            neon::NeonBf16::detect().map(Token::NeonBf16),
            neon::NeonDot::detect().map(Token::NeonDot),
            neon::Neon::detect().map(Token::Neon),
        ];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let found: [Option<Token>; 0] = [];
        let portable = Some(Token::Portable(portable::Portable));
        found.into_iter().chain([portable]).flatten().map(Self).collect()
    }

    /// Whether products of bfloat16 are an instruction here.
    pub fn has_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(_) => true,
            #[cfg(target_arch = "aarch64")]
            Token::NeonBf16(_) => true,
            _ => false,
        }
    }

    /// Does `work` with this level's instructions.
    pub(crate) fn run<W: Work>(self, work: W) -> W::Out {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(token) => token.call(work),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(token) => token.call(work),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(token) => token.call(work),
            #[cfg(target_arch = "aarch64")]
            Token::NeonBf16(token) => token.call(work),
            #[cfg(target_arch = "aarch64")]
            Token::NeonDot(token) => token.call(work),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(token) => token.call(work),
            Token::Portable(token) => token.call(work),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(_) => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Token::NeonBf16(_) => "neon-bf16",
            #[cfg(target_arch = "aarch64")]
            Token::NeonDot(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => "neon",
            Token::Portable(_) => "portable",
        })
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// Every operation on one vector, against scalar arithmetic.
    struct Every;

    impl Work for Every {
        type Out = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let lanes = S::LANES;
            let stored = |v: S::F| {
                let mut out = vec![0f32; lanes];
                simd.store(v, &mut out);
                out
            };
            let floats: Vec<f32> = (0..16).map(|i| i as f32 * 0.75 - 3.0).collect();
            let halves: Vec<u32> = floats
                .chunks(2)
                .map(|p| pair(f16::from_f32(p[0]).to_bits(), f16::from_f32(p[1]).to_bits()))
                .collect();
            assert_eq!(stored(simd.load_f16(&halves)), floats[..lanes]);

            let bits: Vec<u32> = floats.iter().map(|v| v.to_bits()).collect();
            let x = simd.as_f32(simd.load_units(&bits));
            assert_eq!(stored(x), floats[..lanes]);
            assert_eq!(stored(simd.load(&floats)), floats[..lanes]);
            let mut units = [0u32; 16];
            simd.store_units(simd.load_units(&bits), &mut units);
            assert_eq!(units[..lanes], bits[..lanes]);
            let whole = |u: S::U| {
                let mut out = vec![0u32; lanes];
                simd.store_units(u, &mut out);
                out
            };
            let (a, b) = (simd.load_units(&bits), simd.splat_unit(0x4142_0f37));
            for (bits, got) in bits.iter().zip(whole(simd.and(a, b))) {
                assert_eq!(got, bits & 0x4142_0f37);
            }
            for (bits, got) in bits.iter().zip(whole(simd.or(a, b))) {
                assert_eq!(got, bits | 0x4142_0f37);
            }
            for by in [0, 1, 4, 24, 31] {
                let both =
                    whole(simd.shift_left(a, by)).into_iter().zip(whole(simd.shift_right(a, by)));
                for (bits, (up, down)) in bits.iter().zip(both) {
                    assert_eq!((up, down), (bits << by, bits >> by));
                }
            }
            let (by, plus) = (simd.splat_unit(0x0103_fffe), simd.splat_unit(0x8000_00ff));
            for (bits, got) in bits.iter().zip(whole(simd.fma_u16(a, by, plus))) {
                let half = |unit: u32, at: u32| (unit >> at) as u16;
                let of = |at: u32| {
                    let product = half(*bits, at).wrapping_mul(half(0x0103_fffe, at));
                    product.wrapping_add(half(0x8000_00ff, at))
                };
                assert_eq!(got, pair(of(0), of(16)));
            }
            let y = stored(simd.fma(x, simd.splat(2.0), simd.splat(1.0)));
            assert!(y.iter().zip(&floats).all(|(y, x)| *y == x * 2.0 + 1.0));

            let two = simd.splat(2.0);
            let (more, less) = (stored(simd.add(x, two)), stored(simd.sub(x, two)));
            for ((x, more), less) in floats.iter().zip(more).zip(less) {
                assert_eq!((more, less), (x + 2.0, x - 2.0));
            }
            let mut units = [0u32; 16];
            simd.store_units(simd.as_units(x), &mut units);
            assert_eq!(units[..lanes], bits[..lanes]);

            let larger = stored(simd.max(x, simd.splat(0.5)));
            assert!(larger.iter().zip(&floats).all(|(l, v)| *l == v.max(0.5)));
            assert!(stored(simd.max(x, simd.splat(f32::NAN))).iter().all(|v| v.is_nan()));
            assert_eq!(stored(simd.max(simd.splat(f32::NAN), x)), floats[..lanes]);
            let power = simd.splat(f32::from_bits(12_582_912f32.to_bits() - 3));
            let eighths = stored(simd.raise(x, power));
            assert!(eighths.iter().zip(&floats).all(|(e, v)| *v == 0.0 || *e == v / 8.0));
            let rows: [[u32; 16]; 16] =
                std::array::from_fn(|i| std::array::from_fn(|k| (100 * i + k) as u32));
            let mut columns = vec![7u32; 15 * 20 + 16];
            simd.transpose(&rows, &mut columns, 20);
            for (at, value) in columns.iter().enumerate() {
                let want = if at % 20 < 16 { 100 * (at % 20) + at / 20 } else { 7 };
                assert_eq!(*value as usize, want, "at {at}");
            }
            if S::BF16 {
                let brain = |v: f32| bf16::from_f32(v).to_bits();
                let pairs: Vec<u32> =
                    floats.iter().map(|v| pair(brain(*v), brain(v + 1.0))).collect();
                let twice = simd.splat_unit(pair(brain(2.0), brain(-0.5)));
                let dots = stored(simd.dot_bf16(simd.splat(10.0), simd.load_units(&pairs), twice));
                let (low, high) = (simd.load(&floats), simd.load(&floats[16 - lanes..]));
                let mut units = [0u32; 16];
                simd.store_units(simd.bf16_units(low, high), &mut units);
                let all: Vec<f32> =
                    floats[..lanes].iter().chain(&floats[16 - lanes..]).copied().collect();
                let want = all.chunks(2).map(|p| pair(brain(p[0]), brain(p[1])));
                assert!(units[..lanes].iter().copied().eq(want));
                let want = floats.iter().map(|v| 10.0 + 2.0 * v - 0.5 * (v + 1.0));
                assert!(dots.iter().zip(want).all(|(d, w)| (d - w).abs() < 1e-5), "{dots:?}");
            }

            // The largest bytes: 16-bit sums of products would overflow.
            let bytes: Vec<u32> = (0..16).map(|i| u32::from_le_bytes([255, 255, i, 7])).collect();
            let signed = [-128i8, -127, 3, -4];
            let b = simd.splat_unit(u32::from_le_bytes(signed.map(|v| v as u8)));
            let sums = simd.dot_i8(simd.splat_unit(-5i32 as u32), simd.load_units(&bytes), b);
            let want: Vec<f32> =
                (0..lanes).map(|i| (-5 - 255 * 255 + 3 * i as i32 - 28) as f32).collect();
            assert_eq!(stored(simd.int_to_f32(sums)), want);
        }
    }

    fn pair(low: u16, high: u16) -> u32 {
        u32::from(low) | u32::from(high) << 16
    }

    #[test]
    fn every_level_computes_what_scalars_do() {
        for level in Level::available() {
            eprintln!("{level}");
            level.run(Every);
        }
    }
}

//! What a processor can reach: multiplications in registers, without any memory, and reading memory, without any multiplication.
//! Speeds are given as shares of them.

use std::hint::black_box;

use crate::simd::{Level, Simd, Work};

/// The arithmetic of a peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// float32 multiply-add.
    F32,
    /// Products of bfloat16 pairs, where they are an instruction.
    Bf16,
    /// Products of four int8.
    Int8,
}

/// Sums that run side by side: enough to hide an instruction's latency, few enough for 16 registers.
const SUMS: usize = 12;

/// Multiplies in registers, `steps` times; the result is how many operations that were, a multiply-add being two.
///
/// `None` where the level has no such instruction: there is nothing to be a share of.
pub fn multiply_in_registers(level: Level, arithmetic: Arithmetic, steps: usize) -> Option<f64> {
    // The level that multiplies bfloat16 is the one that multiplies int8.
    if arithmetic != Arithmetic::F32 && !level.has_bf16() {
        return None;
    }
    let lanes = level.run(Multiply { arithmetic, steps });
    let products = match arithmetic {
        Arithmetic::F32 => 1,
        Arithmetic::Bf16 => 2,
        Arithmetic::Int8 => 4,
    };
    Some(2.0 * (steps * SUMS * lanes * products) as f64)
}

struct Multiply {
    arithmetic: Arithmetic,
    steps: usize,
}

impl Work for Multiply {
    /// Lanes of a vector.
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        // What the values are does not matter, so long as the compiler does not know and no sum grows.
        let (a, b) = (simd.splat(black_box(0.5)), simd.splat(black_box(0.0)));
        let (units, zeros) =
            (simd.splat_unit(black_box(0x3f80_3f80)), simd.splat_unit(black_box(0)));
        let mut floats = [simd.splat(black_box(1.0)); SUMS];
        let mut ints = [simd.splat_unit(black_box(1)); SUMS];
        match self.arithmetic {
            Arithmetic::F32 => {
                for _ in 0..self.steps {
                    for sum in &mut floats {
                        *sum = simd.fma(a, b, *sum);
                    }
                }
            }
            Arithmetic::Bf16 if S::BF16 => {
                for _ in 0..self.steps {
                    for sum in &mut floats {
                        *sum = simd.dot_bf16(*sum, units, zeros);
                    }
                }
            }
            _ => {
                for _ in 0..self.steps {
                    for sum in &mut ints {
                        *sum = simd.dot_i8(*sum, units, zeros);
                    }
                }
            }
        }
        let mut out = [0f32; 16];
        for (float, int) in floats.into_iter().zip(ints) {
            simd.store(float, &mut out);
            black_box(out);
            simd.store(simd.int_to_f32(int), &mut out);
            black_box(out);
        }
        S::LANES
    }
}

/// Reads all of `values` once, as fast as the instructions of `level` can; the sum of them, so that nothing is left out.
pub fn read_memory(level: Level, values: &[f32]) -> f32 {
    level.run(Read { values })
}

struct Read<'a> {
    values: &'a [f32],
}

impl Work for Read<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        /// Vectors whose sums run side by side.
        const SIDE: usize = 8;
        let mut sums = [simd.splat(0.0); SIDE];
        for values in self.values.chunks_exact(SIDE * S::LANES) {
            for (sum, values) in sums.iter_mut().zip(values.chunks_exact(S::LANES)) {
                *sum = simd.add(*sum, simd.load(values));
            }
        }
        let mut out = [0f32; 16];
        sums.into_iter()
            .map(|sum| {
                simd.store(sum, &mut out);
                out[..S::LANES].iter().sum::<f32>()
            })
            .sum()
    }
}

//! The level that every processor has: arrays of lanes, which compilers turn into what the target always offers (SSE2,
//! NEON).

use half::f16;

use super::{Simd, Work};

const LANES: usize = 8;

/// Nothing is needed.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// `a · b + c` in one rounding where the target always has the instruction; elsewhere it would be a call.
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

impl Simd for Portable {
    type F = [f32; LANES];
    type U = [u32; LANES];
    const LANES: usize = LANES;
    const ROWS: usize = if cfg!(target_arch = "aarch64") { 6 } else { 2 };
    const ROWS_BLOCKS: usize = 2;
    const BF16: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        std::array::from_fn(|i| from[i])
    }

    #[inline(always)]
    fn store(self, value: Self::F, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&value);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn raise(self, value: Self::F, power: Self::F) -> Self::F {
        std::array::from_fn(|i| {
            f32::from_bits(value[i].to_bits().wrapping_add(power[i].to_bits() << 23))
        })
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| fma(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn splat_unit(self, unit: u32) -> Self::U {
        [unit; LANES]
    }

    #[inline(always)]
    fn load_units(self, from: &[u32]) -> Self::U {
        std::array::from_fn(|i| from[i])
    }

    #[inline(always)]
    fn store_units(self, units: Self::U, to: &mut [u32]) {
        to[..LANES].copy_from_slice(&units);
    }

    #[inline(always)]
    fn and(self, a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn or(self, a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shift_left(self, units: Self::U, by: u32) -> Self::U {
        units.map(|unit| unit << by)
    }

    #[inline(always)]
    fn shift_right(self, units: Self::U, by: u32) -> Self::U {
        units.map(|unit| unit >> by)
    }

    #[inline(always)]
    fn fma_u16(self, a: Self::U, b: Self::U, c: Self::U) -> Self::U {
        let low = |i: usize| (a[i] & 0xffff).wrapping_mul(b[i] & 0xffff).wrapping_add(c[i]);
        let high = |i: usize| (a[i] >> 16).wrapping_mul(b[i] >> 16).wrapping_add(c[i] >> 16);
        std::array::from_fn(|i| low(i) & 0xffff | high(i) << 16)
    }

    #[inline(always)]
    fn as_f32(self, units: Self::U) -> Self::F {
        units.map(f32::from_bits)
    }

    #[inline(always)]
    fn as_units(self, values: Self::F) -> Self::U {
        values.map(f32::to_bits)
    }

    #[inline(always)]
    fn int_to_f32(self, values: Self::U) -> Self::F {
        values.map(|v| v as i32 as f32)
    }

    #[inline(always)]
    fn load_f16(self, from: &[u32]) -> Self::F {
        std::array::from_fn(|i| f16::from_bits((from[i / 2] >> (16 * (i % 2))) as u16).to_f32())
    }

    #[inline(always)]
    fn dot_i8(self, sum: Self::U, a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_le_bytes(), b[i].to_le_bytes());
            let products = (0..4).map(|j| i32::from(a[j]) * i32::from(b[j] as i8));
            (sum[i] as i32 + products.sum::<i32>()) as u32
        })
    }

    #[inline(always)]
    fn prefetch(self, _: *const u32) {}

    #[inline(never)]
    fn call<W: Work>(self, work: W) -> W::Out {
        work.run(self)
    }
}

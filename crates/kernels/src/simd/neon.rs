//! Levels of AArch64: NEON, NEON with int8 dot products, and NEON with products of bfloat16 and of bytes of both kinds.
//!
//! `unsafe` stands here in the roles it has for x86-64, and for instructions that have no stable intrinsics yet.

#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::arch::is_aarch64_feature_detected as has;

use super::{Simd, Work};

/// NEON with bfloat16 products and dot products of unsigned with signed bytes: Neoverse V1, Apple M2 and later.
#[derive(Clone, Copy)]
pub(super) struct NeonBf16(());

/// NEON with dot products of signed bytes: Cortex-A76, Neoverse N1, Apple M1.
#[derive(Clone, Copy)]
pub(super) struct NeonDot(());

/// NEON: every processor of 64 bits.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

impl NeonBf16 {
    pub(super) fn detect() -> Option<Self> {
        NeonDot::detect()?;
        (has!("bf16") && has!("i8mm")).then_some(Self(()))
    }
}

impl NeonDot {
    pub(super) fn detect() -> Option<Self> {
        Neon::detect()?;
        has!("dotprod").then_some(Self(()))
    }
}

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        has!("neon").then_some(Self(()))
    }
}

/// What all levels have in common.
macro_rules! neon {
    () => {
        type F = float32x4_t;
        type U = uint32x4_t;
        const LANES: usize = 4;
        const ROWS: usize = 14;
        const ROWS_BLOCKS: usize = 6;

        #[inline(always)]
        fn splat(self, value: f32) -> float32x4_t {
            // SAFETY: the token proves the feature; so for all intrinsics below.
            unsafe { vdupq_n_f32(value) }
        }

        #[inline(always)]
        fn load(self, from: &[f32]) -> float32x4_t {
            let from = &from[..4];
            unsafe { vld1q_f32(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, value: float32x4_t, to: &mut [f32]) {
            let to = &mut to[..4];
            unsafe { vst1q_f32(to.as_mut_ptr(), value) }
        }

        #[inline(always)]
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vsubq_f32(a, b) }
        }

        #[inline(always)]
        fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // `fmax` would keep what is not a number of `a`.
            unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
        }

        #[inline(always)]
        fn raise(self, value: float32x4_t, power: float32x4_t) -> float32x4_t {
            unsafe {
                let exponents = vshlq_n_u32::<23>(vreinterpretq_u32_f32(power));
                vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(value), exponents))
            }
        }

        #[inline(always)]
        fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }

        #[inline(always)]
        fn splat_unit(self, unit: u32) -> uint32x4_t {
            unsafe { vdupq_n_u32(unit) }
        }

        #[inline(always)]
        fn load_units(self, from: &[u32]) -> uint32x4_t {
            let from = &from[..4];
            unsafe { vld1q_u32(from.as_ptr()) }
        }

        #[inline(always)]
        fn store_units(self, units: uint32x4_t, to: &mut [u32]) {
            let to = &mut to[..4];
            unsafe { vst1q_u32(to.as_mut_ptr(), units) }
        }

        #[inline(always)]
        fn and(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
            unsafe { vandq_u32(a, b) }
        }

        #[inline(always)]
        fn or(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
            unsafe { vorrq_u32(a, b) }
        }

        #[inline(always)]
        fn shift_left(self, units: uint32x4_t, by: u32) -> uint32x4_t {
            unsafe { vshlq_u32(units, vdupq_n_s32(by as i32)) }
        }

        #[inline(always)]
        fn shift_right(self, units: uint32x4_t, by: u32) -> uint32x4_t {
            unsafe { vshlq_u32(units, vdupq_n_s32(-(by as i32))) }
        }

        #[inline(always)]
        fn fma_u16(self, a: uint32x4_t, b: uint32x4_t, c: uint32x4_t) -> uint32x4_t {
            unsafe {
                let [a, b, c] = [a, b, c].map(|units| vreinterpretq_u16_u32(units));
                vreinterpretq_u32_u16(vmlaq_u16(c, a, b))
            }
        }

        #[inline(always)]
        fn as_f32(self, units: uint32x4_t) -> float32x4_t {
            unsafe { vreinterpretq_f32_u32(units) }
        }

        #[inline(always)]
        fn as_units(self, values: float32x4_t) -> uint32x4_t {
            unsafe { vreinterpretq_u32_f32(values) }
        }

        #[inline(always)]
        fn int_to_f32(self, values: uint32x4_t) -> float32x4_t {
            unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(values)) }
        }

        #[inline(always)]
        fn load_f16(self, from: &[u32]) -> float32x4_t {
            let from = &from[..2];
            unsafe { vcvt_f32_f16(vreinterpret_f16_u32(vld1_u32(from.as_ptr()))) }
        }

        #[inline(always)]
        fn prefetch(self, at: *const u32) {
            // SAFETY: an address that cannot be read is passed over.
            unsafe {
                asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, readonly, preserves_flags));
            }
        }
    };
}

/// `sum + Σ a · b` over four bytes, `a` unsigned and `b` signed.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn usdot(mut sum: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    // SAFETY: the instruction reads and writes these registers and nothing else.
    unsafe {
        asm!("usdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum + Σ a · b` over four bytes, both signed.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum + a₀ · b₀ + a₁ · b₁` over the two bfloat16 of a unit.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfdot(mut sum: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!("bfdot {sum:v}.4s, {a:v}.8h, {b:v}.8h", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Both rounded to bfloat16, `low` first.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfcvt(low: float32x4_t, high: float32x4_t) -> uint32x4_t {
    let units: uint32x4_t;
    // SAFETY: as above; the first half is written before `high` is read, so that it must not share its register.
    unsafe {
        asm!(
            "bfcvtn {units:v}.4h, {low:v}.4s",
            "bfcvtn2 {units:v}.8h, {high:v}.4s",
            units = out(vreg) units, low = in(vreg) low, high = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    units
}

/// 128 taken from unsigned bytes, which makes them signed.
#[inline]
#[target_feature(enable = "neon")]
fn signed(a: uint32x4_t) -> uint32x4_t {
    veorq_u32(a, vdupq_n_u32(0x8080_8080))
}

impl Simd for NeonBf16 {
    neon!();
    const BF16: bool = true;

    #[inline(always)]
    fn bf16_units(self, low: float32x4_t, high: float32x4_t) -> uint32x4_t {
        // SAFETY: the token proves the feature; so below.
        unsafe { bfcvt(low, high) }
    }

    #[inline(always)]
    fn dot_bf16(self, sum: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
        unsafe { bfdot(sum, a, b) }
    }

    #[inline(always)]
    fn dot_i8(self, sum: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        unsafe { usdot(sum, a, b) }
    }

    fn call<W: Work>(self, work: W) -> W::Out {
        #[inline(never)]
        #[target_feature(enable = "neon,dotprod,bf16,i8mm")]
        fn inside<W: Work>(token: NeonBf16, work: W) -> W::Out {
            work.run(token)
        }
        // SAFETY: the token exists only where `detect` found these features.
        unsafe { inside(self, work) }
    }
}

impl Simd for NeonDot {
    neon!();
    const BF16: bool = false;

    #[inline(always)]
    fn dot_i8(self, sum: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        // SAFETY: as above. What was taken from `a` is put back 128 times each `b`, which is the same for all that meet one `b`.
        unsafe {
            let taken = sdot(vdupq_n_u32(0), b, vdupq_n_u32(0x8080_8080));
            vsubq_u32(sdot(sum, signed(a), b), taken)
        }
    }

    fn call<W: Work>(self, work: W) -> W::Out {
        #[inline(never)]
        #[target_feature(enable = "neon,dotprod")]
        fn inside<W: Work>(token: NeonDot, work: W) -> W::Out {
            work.run(token)
        }
        // SAFETY: the token exists only where `detect` found these features.
        unsafe { inside(self, work) }
    }
}

impl Simd for Neon {
    neon!();
    const BF16: bool = false;

    #[inline(always)]
    fn dot_i8(self, sum: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        // SAFETY: as above. Products of signed bytes fit 16 bits, and pairs of them are summed in 32.
        unsafe {
            let (a, b) = (vreinterpretq_s8_u32(signed(a)), vreinterpretq_s8_u32(b));
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
            let high = vpaddlq_s16(vmull_high_s8(a, b));
            let taken = vshlq_n_s32::<7>(vpaddlq_s16(vpaddlq_s8(b)));
            let products = vaddq_s32(vpaddq_s32(low, high), taken);
            vaddq_u32(sum, vreinterpretq_u32_s32(products))
        }
    }

    fn call<W: Work>(self, work: W) -> W::Out {
        #[inline(never)]
        #[target_feature(enable = "neon")]
        fn inside<W: Work>(token: Neon, work: W) -> W::Out {
            work.run(token)
        }
        // SAFETY: the token exists only where `detect` found the feature.
        unsafe { inside(self, work) }
    }
}

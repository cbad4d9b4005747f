//! Levels of x86-64: AVX-512 with its bfloat16 and int8 dot products, AVX-512, and AVX2 with FMA and F16C.
//!
//! `unsafe` stands here in two roles: intrinsics that need a processor's feature, which the token proves, and loads and
//! stores through pointers, whose lengths are checked just before.

#![allow(unsafe_code)]

use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::*;

use super::{Simd, Work};

/// AVX-512 with bfloat16 and int8 dot products: Zen 4, Sapphire Rapids and later.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bf16(());

/// AVX-512: Skylake servers and later.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// AVX2, FMA and F16C: nearly every processor since 2013.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx512Bf16 {
    pub(super) fn detect() -> Option<Self> {
        Avx512::detect()?;
        (has!("avx512bf16") && has!("avx512vnni")).then_some(Self(()))
    }
}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        Avx2::detect()?;
        let all = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        all.then_some(Self(()))
    }
}

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (has!("avx2") && has!("fma") && has!("f16c")).then_some(Self(()))
    }
}

/// What the two AVX-512 levels have in common.
macro_rules! avx512 {
    () => {
        type F = __m512;
        type U = __m512i;
        const LANES: usize = 16;
        const ROWS: usize = 14;
        const ROWS_BLOCKS: usize = 6;

        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            // SAFETY: the token proves the feature; so for all intrinsics below.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn load(self, from: &[f32]) -> __m512 {
            let from = &from[..16];
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, value: __m512, to: &mut [f32]) {
            let to = &mut to[..16];
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        fn raise(self, value: __m512, power: __m512) -> __m512 {
            unsafe {
                let exponents = _mm512_slli_epi32::<23>(_mm512_castps_si512(power));
                let raised = _mm512_add_epi32(_mm512_castps_si512(value), exponents);
                _mm512_castsi512_ps(raised)
            }
        }

        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn splat_unit(self, unit: u32) -> __m512i {
            unsafe { _mm512_set1_epi32(unit as i32) }
        }

        #[inline(always)]
        fn load_units(self, from: &[u32]) -> __m512i {
            let from = &from[..16];
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store_units(self, units: __m512i, to: &mut [u32]) {
            let to = &mut to[..16];
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), units) }
        }

        #[inline(always)]
        fn and(self, a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_and_si512(a, b) }
        }

        #[inline(always)]
        fn or(self, a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_or_si512(a, b) }
        }

        #[inline(always)]
        fn shift_left(self, units: __m512i, by: u32) -> __m512i {
            unsafe { _mm512_sll_epi32(units, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        fn shift_right(self, units: __m512i, by: u32) -> __m512i {
            unsafe { _mm512_srl_epi32(units, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        fn fma_u16(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
            unsafe { _mm512_add_epi16(_mm512_mullo_epi16(a, b), c) }
        }

        #[inline(always)]
        fn as_f32(self, units: __m512i) -> __m512 {
            unsafe { _mm512_castsi512_ps(units) }
        }

        #[inline(always)]
        fn as_units(self, values: __m512) -> __m512i {
            unsafe { _mm512_castps_si512(values) }
        }

        #[inline(always)]
        fn int_to_f32(self, values: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(values) }
        }

        #[inline(always)]
        fn load_f16(self, from: &[u32]) -> __m512 {
            let from = &from[..8];
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn transpose(self, rows: &[[u32; 16]; 16], to: &mut [u32], stride: usize) {
            assert!(to.len() >= 15 * stride + 16);
            // SAFETY: as above; the last store ends inside `to`.
            unsafe {
                let mut r = [_mm512_setzero_si512(); 16];
                for (r, row) in r.iter_mut().zip(rows) {
                    *r = _mm512_loadu_si512(row.as_ptr().cast());
                }
                for (k, column) in columns_of(r).into_iter().enumerate() {
                    _mm512_storeu_si512(to.as_mut_ptr().add(k * stride).cast(), column);
                }
            }
        }

        #[inline(always)]
        fn prefetch(self, at: *const u32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    };
}

/// Rows of 16 units to columns: pairs of units, then of pairs, then of quarters.
#[inline]
#[target_feature(enable = "avx512f")]
fn columns_of(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut a = [_mm512_setzero_si512(); 16];
    let mut b = a;
    for i in (0..16).step_by(2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    // Of rows 4 i to 4 i + 3: columns j, 4 + j, 8 + j and 12 + j.
    for i in (0..16).step_by(4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for j in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(b[j], b[4 + j]); // columns j, 8 + j of rows 0 to 7
        let high = _mm512_shuffle_i32x4::<0x88>(b[8 + j], b[12 + j]);
        a[j] = _mm512_shuffle_i32x4::<0x88>(low, high);
        a[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, high);
        let low = _mm512_shuffle_i32x4::<0xdd>(b[j], b[4 + j]);
        let high = _mm512_shuffle_i32x4::<0xdd>(b[8 + j], b[12 + j]);
        a[4 + j] = _mm512_shuffle_i32x4::<0x88>(low, high);
        a[12 + j] = _mm512_shuffle_i32x4::<0xdd>(low, high);
    }
    a
}

impl Simd for Avx512Bf16 {
    avx512!();
    const BF16: bool = true;

    #[inline(always)]
    fn bf16_units(self, low: __m512, high: __m512) -> __m512i {
        // SAFETY: as above; the transmute renames 512 bits.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as above; the transmutes rename the same 512 bits.
        unsafe {
            let (a, b) = (
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            );
            _mm512_dpbf16_ps(sum, a, b)
        }
    }

    #[inline(always)]
    fn dot_i8(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, a, b) }
    }

    fn call<W: Work>(self, work: W) -> W::Out {
        #[inline(never)]
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c"
        )]
        fn inside<W: Work>(token: Avx512Bf16, work: W) -> W::Out {
            work.run(token)
        }
        // SAFETY: the token exists only where `detect` found these features.
        unsafe { inside(self, work) }
    }
}

impl Simd for Avx512 {
    avx512!();
    const BF16: bool = false;

    #[inline(always)]
    fn dot_i8(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above. Bytes become 16-bit pairs, even and odd ones, whose products do not overflow.
        unsafe {
            let even_a = _mm512_and_si512(a, _mm512_set1_epi16(0xff));
            let even_b = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
            let even = _mm512_madd_epi16(even_a, even_b);
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
            _mm512_add_epi32(sum, _mm512_add_epi32(even, odd))
        }
    }

    fn call<W: Work>(self, work: W) -> W::Out {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inside<W: Work>(token: Avx512, work: W) -> W::Out {
            work.run(token)
        }
        // SAFETY: the token exists only where `detect` found these features.
        unsafe { inside(self, work) }
    }
}

impl Simd for Avx2 {
    type F = __m256;
    type U = __m256i;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const ROWS_BLOCKS: usize = 2;
    const BF16: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: the token proves the feature; so for all intrinsics below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let from = &from[..8];
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, value: __m256, to: &mut [f32]) {
        let to = &mut to[..8];
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn raise(self, value: __m256, power: __m256) -> __m256 {
        unsafe {
            let exponents = _mm256_slli_epi32::<23>(_mm256_castps_si256(power));
            let raised = _mm256_add_epi32(_mm256_castps_si256(value), exponents);
            _mm256_castsi256_ps(raised)
        }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn splat_unit(self, unit: u32) -> __m256i {
        unsafe { _mm256_set1_epi32(unit as i32) }
    }

    #[inline(always)]
    fn load_units(self, from: &[u32]) -> __m256i {
        let from = &from[..8];
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_units(self, units: __m256i, to: &mut [u32]) {
        let to = &mut to[..8];
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), units) }
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn shift_left(self, units: __m256i, by: u32) -> __m256i {
        unsafe { _mm256_sll_epi32(units, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    fn shift_right(self, units: __m256i, by: u32) -> __m256i {
        unsafe { _mm256_srl_epi32(units, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    fn fma_u16(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        unsafe { _mm256_add_epi16(_mm256_mullo_epi16(a, b), c) }
    }

    #[inline(always)]
    fn as_f32(self, units: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(units) }
    }

    #[inline(always)]
    fn as_units(self, values: __m256) -> __m256i {
        unsafe { _mm256_castps_si256(values) }
    }

    #[inline(always)]
    fn int_to_f32(self, values: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(values) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u32]) -> __m256 {
        let from = &from[..4];
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn dot_i8(self, sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above. Bytes become 16-bit pairs, even and odd ones, whose products do not overflow.
        unsafe {
            let even_a = _mm256_and_si256(a, _mm256_set1_epi16(0xff));
            let even_b = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b));
            let even = _mm256_madd_epi16(even_a, even_b);
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
            _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    fn call<W: Work>(self, work: W) -> W::Out {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inside<W: Work>(token: Avx2, work: W) -> W::Out {
            work.run(token)
        }
        // SAFETY: the token exists only where `detect` found these features.
        unsafe { inside(self, work) }
    }
}

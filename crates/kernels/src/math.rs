//! Functions of one value that compilers turn into vectors: no branches, no tables, no calls.

use crate::simd::Simd;

/// Adding it leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// 2ˣ on ±½ within 2⁻²³, highest power first: Cephes' `exp2f` (Moshier).
const POWER: [f32; 7] = [
    1.535_336_2e-4,
    1.339_887_5e-3,
    9.618_437e-3,
    5.550_332_5e-2,
    2.402_264_8e-1,
    6.931_472e-1,
    1.0,
];

/// The same within 7.5 · 10⁻⁵ of each value: the cubic whose largest error is least.
const ROUGH_POWER: [f32; 4] = [5.517_166e-2, 2.426_111_2e-1, 6.932_61e-1, 9.999_280_7e-1];

/// 2ˣ, with `x` held between −126 and 127; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    let x = if x > 127.0 { 127.0 } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = POWER[0];
    for c in &POWER[1..] {
        p = p * r + c;
    }
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// How exactly a power is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exactness {
    /// As [`exp2`].
    Full,
    /// Within 8 · 10⁻⁵: a twenty-fifth of bfloat16's rounding.
    Bf16,
}

/// [`exp2`] of a vector of values below 127, which are held above −125: a rough power below 1 needs the room.
#[inline(always)]
pub(crate) fn exp2_vector<S: Simd>(simd: S, exactness: Exactness, x: S::F) -> S::F {
    let x = simd.max(simd.splat(-125.0), x);
    let round = simd.splat(ROUND);
    let shifted = simd.add(x, round);
    let r = simd.sub(x, simd.sub(shifted, round));
    let p = match exactness {
        Exactness::Full => horner(simd, r, &POWER),
        Exactness::Bf16 => horner(simd, r, &ROUGH_POWER),
    };
    simd.raise(p, shifted)
}

#[inline(always)]
fn horner<S: Simd, const N: usize>(simd: S, x: S::F, coefficients: &[f32; N]) -> S::F {
    let mut sum = simd.splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = simd.fma(sum, x, simd.splat(*c));
    }
    sum
}

/// `1 / (1 + e⁻ˣ)`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp2(x * -std::f32::consts::LOG2_E))
}

/// `x / (1 + e⁻ˣ)`
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp2(x * -std::f32::consts::LOG2_E))
}

/// Σ `f(x)`, in lanes so that the order is that of no single running sum, and vectors can do it.
#[inline(always)]
pub(crate) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 32];
    let chunks = values.chunks_exact(32);
    let rest: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += f(*v));
    }
    lanes.iter().sum::<f32>() + rest
}

/// Σ `a · b`, in the same order.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let (left, right) = (a.chunks_exact(32), b.chunks_exact(32));
    let rest = left.remainder().iter().zip(right.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Level, Work};

    #[test]
    fn powers_of_two_are_right_to_the_last_digit_but_one() {
        for i in -12_600..12_700 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(exp2(x)), f64::from(x).exp2());
            assert!((got / want - 1.0).abs() < 2.5e-7, "{x}: {got} is not {want}");
        }
        assert_eq!(exp2(0.0), 1.0);
        assert!(exp2(f32::NAN).is_nan() && exp2(f32::NEG_INFINITY) < 1.2e-38);
    }

    /// Vectors of powers, against the exact ones.
    struct Powers;

    impl Work for Powers {
        type Out = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for (exactness, allowed) in [(Exactness::Full, 2.5e-7), (Exactness::Bf16, 7.6e-5)] {
                let of = |x: f32| {
                    let mut out = [0f32; 16];
                    simd.store(exp2_vector(simd, exactness, simd.splat(x)), &mut out);
                    out[S::LANES - 1]
                };
                for i in -12_500..1_000 {
                    let x = i as f32 / 100.0;
                    let (got, want) = (f64::from(of(x)), f64::from(x).exp2());
                    assert!((got / want - 1.0).abs() < allowed, "{x}: {got} is not {want}");
                }
                assert!(of(f32::NAN).is_nan() && of(f32::NEG_INFINITY) < 2.4e-38);
            }
        }
    }

    #[test]
    fn vectors_of_powers_are_as_right_as_they_say_on_every_level() {
        Level::available().into_iter().for_each(|level| level.run(Powers));
    }

    #[test]
    fn silu_is_right_far_out_too() {
        for i in -2000..2000 {
            let x = i as f32 / 10.0;
            let want = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - want).abs() < 1.5e-6 * want.abs().max(1e-3), "{x}");
        }
        assert!(silu(f32::NAN).is_nan());
    }
}

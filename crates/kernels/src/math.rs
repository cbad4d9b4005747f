//! Functions of one value that compilers turn into vectors: no branches, no tables, no calls.

/// 2ˣ, with `x` held between −126 and 127; NaN stays NaN. The polynomial is Cephes' `exp2f` (Moshier): within 2⁻²³ on
/// ±½.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -126.0 { -126.0 } else { x };
    let x = if x > 127.0 { 127.0 } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let p = 1.535_336_2e-4_f32;
    let p = p * r + 1.339_887_5e-3;
    let p = p * r + 9.618_437e-3;
    let p = p * r + 5.550_332_5e-2;
    let p = p * r + 2.402_264_8e-1;
    let p = p * r + 6.931_472e-1;
    let p = p * r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
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

#[cfg(test)]
mod tests {
    use super::*;

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

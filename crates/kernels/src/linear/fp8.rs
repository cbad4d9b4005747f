//! `fp8_e4m3fn`: its values, and rounding to it.

use std::sync::LazyLock;

/// Value of every `fp8_e4m3fn` bit pattern: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, and all
/// ones is NaN (Micikevicius et al., FP8 Formats for Deep Learning, 2022).
pub static FP8_E4M3FN: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|bits| {
        let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
        let (exponent, mantissa) = ((bits >> 3) & 0xf, (bits & 7) as f32);
        match (exponent, bits & 7) {
            (0xf, 7) => f32::NAN,
            (0, _) => sign * mantissa * 2f32.powi(-9),
            _ => sign * (1.0 + mantissa / 8.0) * 2f32.powi(exponent as i32 - 7),
        }
    })
});

/// The nearest `fp8_e4m3fn` bit pattern, ties to even; beyond 448 the largest.
pub fn fp8_e4m3fn_from_f32(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let size = value.abs().min(448.0);
    if size.is_nan() {
        return sign | 0x7f;
    }
    // Patterns of one sign grow with their values, so the nearest is found between two neighbours.
    let above = FP8_E4M3FN[..0x7f].partition_point(|v| *v < size);
    if above == 0 {
        return sign;
    }
    let (low, high) = (size - FP8_E4M3FN[above - 1], FP8_E4M3FN[above] - size);
    let below = low < high || (low == high && (above - 1) % 2 == 0);
    sign | if below { above - 1 } else { above } as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fp8_patterns_have_the_published_values() {
        for (bits, value) in
            [(0x38, 1.0), (0x7e, 448.0), (0x08, 2f32.powi(-6)), (0x01, 2f32.powi(-9)), (0xb8, -1.0)]
        {
            assert_eq!(FP8_E4M3FN[bits], value, "{bits:#x}");
        }
        assert!(FP8_E4M3FN[0x7f].is_nan() && FP8_E4M3FN[0xff].is_nan());
    }

    #[test]
    fn every_fp8_value_rounds_to_itself_and_ties_to_even() {
        for bits in (0..0x7fu8).chain(0x80..0xff) {
            assert_eq!(fp8_e4m3fn_from_f32(FP8_E4M3FN[bits as usize]), bits);
        }
        assert_eq!(
            (fp8_e4m3fn_from_f32(1.0625), fp8_e4m3fn_from_f32(1.1875), fp8_e4m3fn_from_f32(-1e9)),
            (0x38, 0x3a, 0xfe)
        );
    }
}

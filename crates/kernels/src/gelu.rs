//! GELU, the activation of vision transformers, in the three forms that checkpoints were trained with.

use candle_core::{Result, Tensor};

/// A form of GELU (Hendrycks & Gimpel, 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `x · Φ(x)` by the error function.
    Exact,
    /// Its approximation by a hyperbolic tangent.
    Tanh,
    /// `x / (1 + exp(−1.702 x))`: CLIP's.
    Quick,
}

/// GELU of every value. A network spends a hundredth of its time on it, so that tensor calls are all there is.
pub fn gelu(x: &Tensor, form: Gelu) -> Result<Tensor> {
    match form {
        Gelu::Exact => x.gelu_erf(),
        Gelu::Tanh => x.gelu(),
        Gelu::Quick => x / ((x * -1.702)?.exp()? + 1.0)?,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_form_gives_what_its_formula_says() {
        let x = Tensor::new(&[-3f32, -0.5, 0.0, 1.0, 2.5], &Device::Cpu).unwrap();
        // By torch: `gelu(x)`, `gelu(x, approximate="tanh")` and `x * sigmoid(1.702 * x)`.
        let cases = [
            (Gelu::Exact, [-0.004_049_7, -0.154_268_77, 0.0, 0.841_344_7, 2.484_475_8]),
            (Gelu::Tanh, [-0.003_637_4, -0.154_286, 0.0, 0.841_192, 2.484_915_7]),
            (Gelu::Quick, [-0.018_071_3, -0.149_611_6, 0.0, 0.845_795_8, 2.465_013_8]),
        ];
        for (form, want) in cases {
            let got = gelu(&x, form).unwrap().to_vec1::<f32>().unwrap();
            let near = |(g, w): (&f32, f32)| (g - w).abs() < 2e-6;
            assert!(got.iter().zip(want).all(near), "{form:?}: {got:?}");
        }
    }
}

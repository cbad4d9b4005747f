//! RMS norm and layer norm over the last dimension.

use candle_core::{D, Result, Tensor};

/// `x / √(mean(x²) + eps) · weight` over the last dimension of `x` (Zhang & Sennrich, 2019).
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    candle_nn::ops::rms_norm(&x.contiguous()?, weight, eps as f32)
}

/// `(x − mean) / √(variance + eps)` over the last dimension, without weights.
pub fn layer_norm(x: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_give_what_the_formula_says() {
        let x = Tensor::new(&[[1f32, 2.0, 3.0, 6.0]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[1f32, 1.0, 2.0, 1.0], &Device::Cpu).unwrap();
        let rms = rms_norm(&x, &weight, 0.0).unwrap().to_vec2::<f32>().unwrap();
        let root = 12.5f32.sqrt();
        for (got, want) in rms[0].iter().zip([1.0 / root, 2.0 / root, 6.0 / root, 6.0 / root]) {
            assert!((got - want).abs() < 1e-6);
        }
        let layer = layer_norm(&x, 0.0).unwrap().to_vec2::<f32>().unwrap();
        let deviation = 3.5f32.sqrt();
        for (got, want) in layer[0].iter().zip([-2.0, -1.0, 0.0, 3.0]) {
            assert!((got - want / deviation).abs() < 1e-6);
        }
    }
}

//! What the tests of several operations draw and compare with.

use candle_core::{DType, Device, Shape, Tensor};

/// Normal float32 values.
pub(crate) fn random(shape: impl Into<Shape>) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

/// `x` as bfloat16 has it, in float32.
pub(crate) fn rounded(x: &Tensor) -> Tensor {
    x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap()
}

/// The largest difference of two values at one place.
pub(crate) fn worst(a: &Tensor, b: &Tensor) -> f32 {
    let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    d.max(0).unwrap().to_scalar::<f32>().unwrap()
}

/// The root mean square of the differences, as a share of that of `want`.
pub(crate) fn share(got: &Tensor, want: &Tensor) -> f32 {
    let size = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    (size(&(got - want).unwrap()) / size(want)).sqrt()
}

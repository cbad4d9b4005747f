//! Convolutions over images, and what stands before and after them.

mod direct;

use candle_core::{DType, Result, Tensor};

use crate::Precision;
use crate::group_norm::{self, GroupNorm};
use crate::simd::Level;
use direct::Packed;

/// A convolution's weight, `[out, channels, size, size]`, in the form in which it is kept.
pub struct Filter {
    form: Form,
    dims: [usize; 3],
}

enum Form {
    Dense(Tensor),
    Packed(Packed),
}

impl Filter {
    /// `weight`: `[out, channels, size, size]` float32. With [`Precision::Bf16`] it and what it is multiplied by are
    /// rounded to bfloat16, where the processor multiplies that.
    pub fn new(weight: &Tensor, precision: Precision) -> Result<Self> {
        let (out, channels, size, other) = weight.dims4()?;
        if size != other {
            candle_core::bail!("a filter of {size} x {other} is not square");
        }
        let form = match weight.device().is_cpu() {
            true => Form::Packed(Packed::new(Level::best(), weight, precision)?),
            false => Form::Dense(weight.clone()),
        };
        Ok(Self { form, dims: [out, channels, size] })
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        let [out, channels, size] = self.dims;
        out * channels * size * size
    }

    /// The weight, `[out, channels, size, size]`.
    pub fn to_f32(&self) -> Result<Tensor> {
        match &self.form {
            Form::Dense(weight) => weight.to_dtype(DType::F32),
            Form::Packed(packed) => packed.to_f32(self.dims),
        }
    }
}

/// What is done to an image on its way into a convolution.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// Nothing.
    Nothing,
    /// A group norm, then SiLU.
    NormSilu(&'a GroupNorm),
    /// Every pixel becomes 2 × 2.
    Double,
}

/// How a convolution is applied.
#[derive(Clone, Copy)]
pub struct Conv<'a> {
    /// The weight.
    pub filter: &'a Filter,
    /// `[out]`
    pub bias: &'a Tensor,
    /// Pixels of zeros added at the left and top, and at the right and bottom.
    pub padding: [usize; 2],
    /// Every how many pixels it is computed.
    pub stride: usize,
}

/// `x`: `[batch, channels, height, width]` float32; the result is `[batch, out, …]`, plus `residual` of its shape, and
/// lies in memory with channels last.
pub fn conv2d(x: &Tensor, before: Before, conv: Conv, residual: Option<&Tensor>) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    let [_, wanted, size] = conv.filter.dims;
    let times = if matches!(before, Before::Double) { 2 } else { 1 };
    let padding = conv.padding[0] + conv.padding[1];
    if channels != wanted || times * height + padding < size || times * width + padding < size {
        candle_core::bail!(
            "convolution: an image of {:?} does not fit a filter of {wanted} channels and {size} x {size} pixels",
            x.dims()
        );
    }
    if let Before::NormSilu(norm) = before {
        norm.check(channels)?;
    }
    let tracked = x.track_op() || residual.is_some_and(Tensor::track_op);
    match &conv.filter.form {
        Form::Packed(packed) if !tracked && x.device().is_cpu() => {
            direct::conv2d(Level::best(), (x, before), (conv, packed), residual)
        }
        _ => plain(x, before, conv, residual),
    }
}

/// The plain twin: the path of gradients and of other devices.
fn plain(x: &Tensor, before: Before, conv: Conv, residual: Option<&Tensor>) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let x = match before {
        Before::Nothing => x.contiguous()?,
        Before::NormSilu(norm) => group_norm::plain(x, norm)?.silu()?,
        Before::Double => x.contiguous()?.upsample_nearest2d(2 * height, 2 * width)?,
    };
    let [before, after] = conv.padding;
    let x = x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
    let y = x.conv2d(&conv.filter.to_f32()?, 0, conv.stride, 1, 1)?;
    let y = y.broadcast_add(&conv.bias.reshape((1, (), 1, 1))?)?;
    match residual {
        Some(residual) => y + residual,
        None => Ok(y),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{random, rounded, worst};

    /// Every level, precision and preparation, with and without something added, against the plain twin.
    fn check(x: &Tensor, [out, size, stride]: [usize; 3], padding: [usize; 2], groups: usize) {
        let channels = x.dim(1).unwrap();
        let weight = (random(&[out, channels, size, size]) / (channels as f64).sqrt()).unwrap();
        let bias = random(&[out]);
        let norm =
            GroupNorm { weight: random(&[channels]), bias: random(&[channels]), groups, eps: 1e-6 };
        for before in [Before::Nothing, Before::NormSilu(&norm), Before::Double] {
            for precision in [Precision::F32, Precision::Bf16] {
                for level in Level::available() {
                    let packed = Packed::new(level, &weight, precision).unwrap();
                    let filter = Filter { form: Form::Packed(packed), dims: [out, channels, size] };
                    let conv = Conv { filter: &filter, bias: &bias, padding, stride };
                    let narrow = precision == Precision::Bf16 && level.has_bf16();
                    check_one(level, x, before, conv, narrow);
                }
            }
        }
    }

    /// `narrow`: whether inputs are rounded, which the twin does before, or, inside a norm, does not.
    fn check_one(level: Level, x: &Tensor, before: Before, conv: Conv, narrow: bool) {
        let inside = matches!(before, Before::NormSilu(_));
        let twin = if narrow && !inside { rounded(x) } else { x.clone() };
        let limit = if narrow && inside { 0.12 } else { 3e-5 };
        let want = plain(&twin, before, conv, None).unwrap();
        let Form::Packed(packed) = &conv.filter.form else { panic!("it is on the CPU") };
        let run = |residual| direct::conv2d(level, (x, before), (conv, packed), residual).unwrap();
        let got = run(None);
        assert_eq!(got.dims(), want.dims());
        let error = worst(&got, &want);
        assert!(error < limit, "{level} {narrow} {:?}: {error}", x.dims());
        let residual = random(want.dims());
        assert!(worst(&run(Some(&residual)), &(&got + &residual).unwrap()) < 1e-5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_level_agrees_with_the_plain_twin(
            batch in 1usize..3,
            channels in 1usize..40,
            height in 3usize..14,
            width in 3usize..40,
            out in 1usize..70,
            wide in any::<bool>(),
            stride in 1usize..3,
            left in 0usize..2,
            right in 0usize..2,
            last in any::<bool>(),
        ) {
            let groups = if channels % 2 == 0 { 2 } else { 1 };
            let x = match last {
                true => random(&[batch, height, width, channels]).permute((0, 3, 1, 2)).unwrap(),
                false => random(&[batch, channels, height, width]),
            };
            check(&x, [out, if wide { 3 } else { 1 }, stride], [left, right], groups);
        }
    }

    #[test]
    fn tall_images_are_convolved_strip_by_strip() {
        check(&random(&[1, 64, 300, 5]), [33, 3, 1], [1, 1], 4);
    }

    #[test]
    fn an_image_of_other_channels_is_named() {
        let filter = Filter::new(&random(&[4, 8, 3, 3]), Precision::F32).unwrap();
        let bias = random(&[4]);
        let conv = Conv { filter: &filter, bias: &bias, padding: [1, 1], stride: 1 };
        let error =
            conv2d(&random(&[1, 7, 5, 5]), Before::Nothing, conv, None).unwrap_err().to_string();
        assert!(error.contains("[1, 7, 5, 5]") && error.contains("8 channels"), "{error}");
    }
}

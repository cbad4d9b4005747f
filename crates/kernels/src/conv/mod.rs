//! Convolutions over images, and what stands before and after them.

mod direct;
mod input;
mod winograd;

use candle_core::{DType, Device, Result, Tensor};

use crate::Precision;
use crate::group_norm::{self, Affine, GroupNorm};
use crate::memory::unwritten;
use crate::product::Kind;
use crate::simd::Level;
use crate::values::{Values, channels_last};

/// A convolution's weight, `[out, channels, size, size]`, in the form in which it is kept.
pub struct Filter {
    form: Form,
    dims: [usize; 3],
    stride: usize,
}

enum Form {
    Dense(Tensor),
    #[cfg(feature = "cuda")]
    Taps(crate::cuda::Taps),
    Direct(direct::Packed),
    Winograd(winograd::Packed),
}

impl Filter {
    /// `weight`: `[out, channels, size, size]` float32, applied at every `stride` pixels. With [`Precision::Bf16`] it and
    /// what it is multiplied by are rounded to bfloat16, where the processor multiplies that.
    pub fn new(weight: &Tensor, precision: Precision, stride: usize) -> Result<Self> {
        let (_, _, size, other) = weight.dims4()?;
        if size != other || stride == 0 {
            candle_core::bail!(
                "a filter of {size} x {other} at every {stride} pixels is none: it is square, and moves"
            );
        }
        match weight.device().is_cpu() {
            true => Self::packed(Level::best(), weight, precision, stride),
            false => {
                let dims = [weight.dim(0)?, weight.dim(1)?, size];
                #[cfg(feature = "cuda")]
                if let Some(taps) = crate::cuda::Taps::new(weight, precision)? {
                    return Ok(Self { form: Form::Taps(taps), dims, stride });
                }
                Ok(Self { form: Form::Dense(weight.clone()), dims, stride })
            }
        }
    }

    /// As kernels of `level` take it.
    fn packed(level: Level, weight: &Tensor, precision: Precision, stride: usize) -> Result<Self> {
        let (out, channels, size, _) = weight.dims4()?;
        let kind = match precision {
            Precision::Bf16 | Precision::Int8 if level.has_bf16() => Kind::Bf16,
            _ => Kind::F32,
        };
        let weight = channels_last(weight)?;
        let values = Values::of(&weight);
        let form = match (size, stride) {
            (3, 1) => {
                Form::Winograd(winograd::Packed::new(level, kind, values.f32()?, [out, channels]))
            }
            _ => {
                Form::Direct(direct::Packed::new(level, kind, values.f32()?, [out, channels, size]))
            }
        };
        Ok(Self { form, dims: [out, channels, size], stride })
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        let [out, channels, size] = self.dims;
        out * channels * size * size
    }

    /// The weight, `[out, channels, size, size]`.
    pub fn to_f32(&self) -> Result<Tensor> {
        let [out, channels, size] = self.dims;
        let values = match &self.form {
            Form::Dense(weight) => return weight.to_dtype(DType::F32),
            #[cfg(feature = "cuda")]
            Form::Taps(taps) => return taps.to_f32(size),
            Form::Direct(packed) => packed.to_f32(out),
            Form::Winograd(packed) => packed.to_f32(out),
        };
        Tensor::from_vec(values, (out, size, size, channels), &Device::Cpu)?
            .permute((0, 3, 1, 2))?
            .contiguous()
    }
}

/// What is done to an image on its way into a convolution.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// Nothing.
    Nothing,
    /// A group norm, then SiLU.
    NormSilu(&'a GroupNorm),
    /// A norm whose statistics are known, then SiLU: for an image in pieces.
    AffineSilu(&'a Affine),
    /// Every pixel becomes 2 × 2.
    Double,
}

/// What lies beyond an image's edges: where it wraps, the pixels of the other edge, and zeros elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrap {
    /// Whether top and bottom meet.
    pub rows: bool,
    /// Whether left and right meet.
    pub columns: bool,
}

/// How a convolution is applied.
#[derive(Clone, Copy)]
pub struct Conv<'a> {
    /// The weight.
    pub filter: &'a Filter,
    /// `[out]`
    pub bias: &'a Tensor,
    /// Pixels added at the left and top, and at the right and bottom.
    pub padding: [usize; 2],
    /// Where those are of the other edge; zeros elsewhere.
    pub wrap: Wrap,
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
    if let Before::AffineSilu(affine) = before
        && affine.factors.len() != channels
    {
        let found = affine.factors.len();
        candle_core::bail!("a norm of {found} channels does not fit an image of {:?}", x.dims());
    }
    let tracked = x.track_op() || residual.is_some_and(Tensor::track_op);
    #[cfg(feature = "cuda")]
    if let Form::Taps(taps) = &conv.filter.form {
        let Conv { padding, wrap, .. } = conv;
        let moved = crate::cuda::Moved { size, stride: conv.filter.stride, padding, wrap };
        if let Some(y) = crate::cuda::conv2d(x, before, (taps, conv.bias), &moved, residual)? {
            return Ok(y);
        }
    }
    if tracked || !x.device().is_cpu() || matches!(conv.filter.form, Form::Dense(_)) {
        return plain(x, before, conv, residual);
    }
    conv2d_at(Level::best(), x, before, conv, residual)
}

/// One image on its way through a convolution.
struct Image<'a> {
    /// `[height, width, channels]`
    x: &'a [f32],
    affine: Option<&'a Affine>,
    /// Height, width and channels.
    dims: [usize; 3],
    /// 2 where every pixel becomes 2 × 2.
    times: usize,
    size: usize,
    stride: usize,
    /// At the left and top, and at the right and bottom.
    padding: [usize; 2],
    wrap: Wrap,
    /// Height, width and channels.
    output: [usize; 3],
    bias: &'a [f32],
    /// As the output.
    residual: Option<&'a [f32]>,
}

/// The kernel, with the instructions of `level`.
fn conv2d_at(
    level: Level,
    x: &Tensor,
    before: Before,
    conv: Conv,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let x = channels_last(x)?;
    let residual = residual.map(channels_last).transpose()?;
    let bias = conv.bias.contiguous()?;
    let (batch, height, width, channels) = x.dims4()?;
    let ([out_channels, _, size], stride) = (conv.filter.dims, conv.filter.stride);
    let times = if matches!(before, Before::Double) { 2 } else { 1 };
    let across = |n: usize| (times * n + conv.padding[0] + conv.padding[1] - size) / stride + 1;
    let output = [across(height), across(width), out_channels];
    let (x, bias) = (Values::of(&x), Values::of(&bias));
    let residual = residual.as_ref().map(Values::of);
    let residual = residual.as_ref().map(Values::f32).transpose()?;
    let sizes = [height * width * channels, output.iter().product::<usize>()];
    let mut out = unwritten(batch * sizes[1]);
    for (i, out) in out.chunks_mut(sizes[1].max(1)).enumerate() {
        let x = &x.f32()?[i * sizes[0]..][..sizes[0]];
        let own = match before {
            Before::NormSilu(norm) => Some(norm.affine(level, x)?),
            _ => None,
        };
        let affine = match before {
            Before::AffineSilu(affine) => Some(affine),
            _ => own.as_ref(),
        };
        let image = Image {
            x,
            affine,
            dims: [height, width, channels],
            times,
            size,
            stride,
            padding: conv.padding,
            wrap: conv.wrap,
            output,
            bias: bias.f32()?,
            residual: residual.map(|r| &r[i * sizes[1]..][..sizes[1]]),
        };
        match &conv.filter.form {
            Form::Direct(packed) => packed.run(level, &image, out)?,
            Form::Winograd(packed) => packed.run(level, &image, out),
            _ => candle_core::bail!("a filter on the CPU is packed"),
        }
    }
    Tensor::from_vec(out, (batch, output[0], output[1], out_channels), &Device::Cpu)?
        .permute((0, 3, 1, 2))
}

/// The plain twin: the path of gradients and of other devices.
pub(crate) fn plain(
    x: &Tensor,
    before: Before,
    conv: Conv,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let x = match before {
        Before::Nothing => x.contiguous()?,
        Before::NormSilu(norm) => group_norm::plain(x, norm)?.silu()?,
        Before::AffineSilu(affine) => affine.plain(x)?.silu()?,
        Before::Double => x.contiguous()?.upsample_nearest2d(2 * height, 2 * width)?,
    };
    let x = padded(&x, 2, conv.padding, conv.wrap.rows)?;
    let x = padded(&x, 3, conv.padding, conv.wrap.columns)?;
    let y = x.conv2d(&conv.filter.to_f32()?, 0, conv.filter.stride, 1, 1)?;
    let y = y.broadcast_add(&conv.bias.reshape((1, (), 1, 1))?)?;
    match residual {
        Some(residual) => y + residual,
        None => Ok(y),
    }
}

/// `x` with so many pixels more before and after along `dim`.
fn padded(x: &Tensor, dim: usize, [before, after]: [usize; 2], wraps: bool) -> Result<Tensor> {
    if !wraps {
        return x.pad_with_zeros(dim, before, after);
    }
    let length = x.dim(dim)?;
    let first = x.narrow(dim, 0, after)?;
    Tensor::cat(&[&x.narrow(dim, length - before, before)?, x, &first], dim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group_norm::Statistics;
    use crate::testing::{random, rounded, share, worst};

    /// Every level, precision and preparation, with and without something added, against the plain twin.
    fn check(x: &Tensor, [out, size, stride]: [usize; 3], padding: [usize; 2], groups: usize) {
        let (_, channels, height, _) = x.dims4().unwrap();
        let weight = (random(&[out, channels, size, size]) / (channels as f64).sqrt()).unwrap();
        let bias = random(&[out]);
        let norm =
            GroupNorm { weight: random(&[channels]), bias: random(&[channels]), groups, eps: 1e-6 };
        let mut statistics = Statistics::default();
        let upper = height / 2;
        for (start, rows) in [(0, upper), (upper, height - upper)] {
            let piece = x.narrow(0, 0, 1).unwrap().narrow(2, start, rows).unwrap();
            statistics.add(&piece).unwrap();
        }
        let affine = norm.with(&statistics).unwrap();
        let preparations =
            [Before::Nothing, Before::NormSilu(&norm), Before::AffineSilu(&affine), Before::Double];
        for before in preparations {
            for precision in [Precision::F32, Precision::Bf16] {
                for level in Level::available() {
                    let filter = Filter::packed(level, &weight, precision, stride).unwrap();
                    let narrow = precision == Precision::Bf16 && level.has_bf16();
                    for (rows, columns) in [(false, false), (false, true), (true, false)] {
                        let wrap = Wrap { rows, columns };
                        let conv = Conv { filter: &filter, bias: &bias, padding, wrap };
                        check_one(level, x, before, conv, narrow);
                    }
                }
            }
        }
    }

    fn check_one(level: Level, x: &Tensor, before: Before, conv: Conv, narrow: bool) {
        let run = |residual| conv2d_at(level, x, before, conv, residual).unwrap();
        let got = run(None);
        let want = plain(x, before, conv, None).unwrap();
        assert_eq!(got.dims(), want.dims());
        let of = format!("{level} {:?} {:?}", x.dims(), conv.filter.dims);
        if !narrow {
            assert!(worst(&got, &want) < 3e-5, "{of}: {}", worst(&got, &want));
        } else if matches!((&conv.filter.form, before), (Form::Direct(_), Before::Nothing)) {
            // Rounding the image before is what the kernel does.
            let want = plain(&rounded(x), before, conv, None).unwrap();
            assert!(worst(&got, &want) < 3e-5, "{of}: {}", worst(&got, &want));
        } else {
            // Two roundings by up to 2⁻⁹ of each term, which Winograd's sums and differences make up to twice as large.
            assert!(share(&got, &want) < 5e-3, "{of}: {}", share(&got, &want));
        }
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
    fn an_image_whose_edges_meet_is_shifted_as_its_result_is() {
        let x = random(&[1, 5, 6, 8]);
        let (weight, bias) = (random(&[4, 5, 3, 3]), random(&[4]));
        let filter = Filter::new(&weight, Precision::F32, 1).unwrap();
        let wrap = Wrap { rows: true, columns: true };
        let conv = Conv { filter: &filter, bias: &bias, padding: [1, 1], wrap };
        let run = |x: &Tensor| conv2d(x, Before::Nothing, conv, None).unwrap();
        let shifted = |x: &Tensor| x.roll(2, 2).unwrap().roll(3, 3).unwrap();
        assert!(worst(&run(&shifted(&x)), &shifted(&run(&x))) < 1e-5);
        let plain = Conv { wrap: Wrap::default(), ..conv };
        let unlike = conv2d(&x, Before::Nothing, plain, None).unwrap();
        assert!(worst(&unlike, &run(&x)) > 0.1);
    }

    #[test]
    fn tall_images_are_convolved_strip_by_strip() {
        // Winograd's strips are cut by the memory of 16 points, direct ones by that of 9 pixels.
        check(&random(&[1, 64, 1100, 5]), [33, 3, 1], [1, 1], 4);
        check(&random(&[1, 64, 2100, 5]), [33, 3, 2], [0, 1], 4);
    }

    #[test]
    fn a_filter_gives_back_the_weight_that_it_was_made_of() {
        let weight = random(&[33, 7, 3, 3]);
        for stride in [1, 2] {
            for level in Level::available() {
                let of = |precision| Filter::packed(level, &weight, precision, stride).unwrap();
                let exact = of(Precision::F32).to_f32().unwrap();
                assert!(worst(&exact, &weight) < 2e-6, "{level}");
                let narrow = of(Precision::Bf16).to_f32().unwrap();
                assert!(worst(&narrow, &weight) < 3e-2, "{level}");
            }
        }
    }

    #[test]
    fn an_image_of_other_channels_is_named() {
        let filter = Filter::new(&random(&[4, 8, 3, 3]), Precision::F32, 1).unwrap();
        let bias = random(&[4]);
        let conv = Conv { filter: &filter, bias: &bias, padding: [1, 1], wrap: Wrap::default() };
        let error =
            conv2d(&random(&[1, 7, 5, 5]), Before::Nothing, conv, None).unwrap_err().to_string();
        assert!(error.contains("[1, 7, 5, 5]") && error.contains("8 channels"), "{error}");
    }
}

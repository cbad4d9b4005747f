//! Linear layers: `y = x · Wᵀ + b`, whatever form `W` is kept in.

mod blocks;
mod fp8;
mod matrix;
mod packed;
mod stored;
mod transposed;

use candle_core::{DType, Device, Result, Tensor};

pub use fp8::{FP8_E4M3FN, fp8_e4m3fn_from_f32};
pub use matrix::{Matrix, Precision};
pub use stored::{PACKING, Region, Stored};
pub(crate) use transposed::pull_back;

use crate::gradient::{Path, join};
use crate::memory::unwritten;
use crate::norm::{NormInputs, RmsNorm};
use crate::product::Kind;
use crate::product::multiply::{Finish, Right, multiply};
use crate::product::pack::Rows;
use crate::rows::Plain;
use crate::simd::Level;
use crate::swiglu::with_gated;
use crate::values::Values;
use packed::Weight;

/// What linear layers are applied to. Norms and activations run while their results are packed for the product, and
/// never stand in memory.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// `[…, in]` float32; on a GPU what kernels made may be bfloat16.
    Plain(&'a Tensor),
    /// As [`crate::rms_norm`] makes it.
    Normed {
        /// `[batch, tokens, in]`
        x: &'a Tensor,
        /// Over the last dimension.
        norm: &'a RmsNorm,
        /// `[batch, 1, in]`
        scale: Option<&'a Tensor>,
    },
    /// As [`crate::swiglu`] makes it.
    Gated {
        /// `[…, in]`
        gate: &'a Tensor,
        /// `[…, in]`
        up: &'a Tensor,
    },
}

impl Input<'_> {
    /// The values written out, in float32.
    pub fn tensor(&self) -> Result<Tensor> {
        let values = match self {
            Self::Plain(x) => Ok((*x).clone()),
            Self::Normed { x, norm, scale } => crate::rms_norm(x, norm, *scale),
            Self::Gated { gate, up } => crate::swiglu(gate, up),
        };
        values?.to_dtype(DType::F32)
    }

    /// Where the values are.
    pub fn device(&self) -> &Device {
        match self {
            Self::Plain(x) | Self::Normed { x, .. } | Self::Gated { gate: x, .. } => x.device(),
        }
    }

    fn dims(&self) -> &[usize] {
        match self {
            Self::Plain(x) | Self::Normed { x, .. } | Self::Gated { gate: x, .. } => x.dims(),
        }
    }

    fn path(&self) -> Path {
        match self {
            Self::Plain(x) => Path::of(&[Some(x)]),
            Self::Normed { x, scale, .. } => Path::of(&[Some(x), *scale]),
            Self::Gated { gate, up } => Path::of(&[Some(gate), Some(up)]),
        }
    }

    /// All rows, packed for products of `kind`.
    fn pack(&self, level: Level, kind: Kind) -> Result<Rows> {
        let width = self.dims().last().copied().unwrap_or(0);
        let shape = (self.dims().iter().product::<usize>() / width.max(1), width);
        match self {
            Self::Plain(x) => {
                let x = x.contiguous()?;
                let values = Values::of(&x);
                Ok(Rows::pack(level, kind, shape, &Plain { values: values.f32()? }))
            }
            Self::Normed { x, norm, scale } => NormInputs::new(x, norm, *scale)?
                .with(|source| Ok(Rows::pack(level, kind, shape, source))),
            Self::Gated { gate, up } => {
                with_gated(gate, up, |source| Ok(Rows::pack(level, kind, shape, source)))
            }
        }
    }
}

/// A linear layer's parameters: `[out, in]`, and `[out]` if it has a bias.
pub type Layer<'a> = (&'a Matrix, Option<&'a Tensor>);

/// `x`: `[…, in]` float32; the result is `[…, out]` float32.
pub fn linear(x: &Tensor, weight: &Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
    Ok(linears(Input::Plain(x), &[(weight, bias)])?.remove(0))
}

/// The results of several layers of one input, which is packed once.
///
/// What is rounded follows from a weight's form. Against float32 and float16 weights, inputs stay float32. Against
/// bfloat16 and fp8 ones they are rounded to bfloat16 where the processor multiplies that, and stay float32 where it
/// does not. Against blocks they are rounded to int8 with a scale a row; with 96 rows and more, blocks of four to six bits whose values
/// come in 256s are rounded as well, to int8 with a scale a block. Sums are float32 always.
///
/// On NVIDIA's GPUs inputs are rounded to bfloat16 against every form but float32 and float16, and to fp8 with a scale a row
/// against [`Matrix::to_fp8_rows`]; there the results of more than one layer are bfloat16, which is what kernels take them as.
pub fn linears(input: Input, layers: &[Layer]) -> Result<Vec<Tensor>> {
    for (weight, _) in layers {
        check_width(input.dims(), weight)?;
    }
    match input.path() {
        Path::Kernels => linears_at(Level::best(), input, layers),
        Path::Gradients => linears_with_gradients(&input.tensor()?, layers),
        Path::Plain => {
            #[cfg(feature = "cuda")]
            if let Some(results) = crate::cuda::linears(input, layers)? {
                return Ok(results);
            }
            let x = input.tensor()?;
            layers.iter().map(|(weight, bias)| plain(&x, weight, *bias)).collect()
        }
    }
}

/// The kernel's results for an `x` whose gradient will be wanted. Weights and biases are frozen.
fn linears_with_gradients(x: &Tensor, layers: &[Layer]) -> Result<Vec<Tensor>> {
    let results = linears_at(Level::best(), Input::Plain(&x.detach()), layers)?;
    let joined = results.iter().zip(layers).map(|(y, (weight, _))| {
        let weight = (*weight).clone();
        join(&[x], y, move |gradient| Ok(vec![pull_back(gradient, &weight)?]))
    });
    joined.collect()
}

/// The plain twin: the path of other devices.
fn plain(x: &Tensor, weight: &Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, width) = weight.shape()?;
    let mut shape = x.dims().to_vec();
    shape.pop();
    let flat = x.reshape(((), width))?;
    let y = match weight {
        Matrix::Dense(w) if w.dtype() != DType::F32 && !w.device().is_cpu() => {
            flat.to_dtype(w.dtype())?.matmul(&w.t()?)?.to_dtype(DType::F32)?
        }
        _ => flat.matmul(&weight.to_f32()?.t()?)?,
    };
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    shape.push(out);
    y.reshape(shape)
}

fn check_width(dims: &[usize], weight: &Matrix) -> Result<()> {
    let (out, width) = weight.shape()?;
    if dims.last() != Some(&width) {
        candle_core::bail!("linear: input {dims:?} does not fit a weight of [{out}, {width}]");
    }
    Ok(())
}

/// The kernel, with the instructions of `level`.
fn linears_at(level: Level, input: Input, layers: &[Layer]) -> Result<Vec<Tensor>> {
    let shape = &input.dims()[..input.dims().len() - 1];
    let mut packed: Option<Rows> = None;
    let mut results = Vec::with_capacity(layers.len());
    for (weight, bias) in layers {
        let kind = Weight(weight).kind(level);
        let rows = match packed.take() {
            Some(rows) if rows.kind == kind.left(rows.rows, rows.width) => rows,
            _ => input.pack(level, kind)?,
        };
        results.push(product(level, &rows, (weight, *bias), shape.to_vec())?);
        packed = Some(rows);
    }
    Ok(results)
}

/// Packed rows times a weight; `shape` is that of the rows, without the width.
fn product(
    level: Level,
    left: &Rows,
    (weight, bias): Layer,
    mut shape: Vec<usize>,
) -> Result<Tensor> {
    let (out, _) = weight.shape()?;
    let bias = bias.map(|b| b.contiguous()).transpose()?;
    let bias = bias.as_ref().map(Values::of);
    let bias = bias.as_ref().map(Values::f32).transpose()?;
    let finish = Finish { scale: weight.scale(), bias, residual: None };
    let mut y = unwritten(left.rows * out);
    multiply(level, left, &Weight(weight), finish, (&mut y, out))?;
    shape.push(out);
    Tensor::from_vec(y, shape, &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::quantized::{GgmlDType, QTensor};
    use proptest::prelude::*;

    use super::*;
    use crate::product::blocks::rounds;
    use crate::product::pack::bf16_bits;
    use crate::testing::worst;

    /// Values that differ from call to call and are the same in every run.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..count).map(|_| next() + next()).collect()
    }

    fn linear_at(level: Level, x: &Tensor, w: &Matrix, b: Option<&Tensor>) -> Result<Tensor> {
        Ok(linears_at(level, Input::Plain(x), &[(w, b)])?.remove(0))
    }

    fn tensor(shape: (usize, usize), seed: u32) -> Tensor {
        Tensor::from_vec(values(shape.0 * shape.1, seed), shape, &Device::Cpu).unwrap()
    }

    /// `w` in every form, packed and not.
    fn forms(w: &Tensor) -> Vec<Matrix> {
        use GgmlDType::{Q3K, Q4_0, Q4K, Q5K, Q6K, Q8_0};
        let (out, width) = w.dims2().unwrap();
        let bytes: Vec<u8> =
            (0..out * width).map(|i| ((i * 37 % 0x7f) | ((i % 2) << 7)) as u8).collect();
        let mut forms = vec![
            Matrix::Dense(w.clone()),
            Matrix::Dense(w.to_dtype(DType::BF16).unwrap()),
            Matrix::Dense(w.to_dtype(DType::F16).unwrap()),
            Matrix::Fp8 {
                values: Tensor::from_vec(bytes, (out, width), &Device::Cpu).unwrap(),
                scale: 0.01,
            },
        ];
        for kind in [Q8_0, Q4_0, Q4K, Q5K, Q6K, Q3K] {
            if width % kind.block_size() == 0 {
                forms.push(Matrix::Quantized(Arc::new(QTensor::quantize(w, kind).unwrap())));
            }
        }
        let int8: Vec<Matrix> = forms[..4].iter().map(|f| f.to_int8().unwrap()).collect();
        let packed: Vec<Matrix> = forms.iter().map(|f| f.clone().packed().unwrap()).collect();
        forms.extend(packed.into_iter().filter(|f| matches!(f, Matrix::Packed(_))));
        forms.extend(int8);
        forms
    }

    /// Every form on every level: within what its arithmetic may differ from exact sums, and no more.
    fn check(rows: usize, out: usize, width: usize) {
        let (x, w, b) = (tensor((rows, width), 1), tensor((out, width), 2), tensor((1, out), 3));
        let bias = b.get(0).unwrap();
        let x_rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
        for form in forms(&w) {
            let w_rows: Vec<Vec<f32>> = form.to_f32().unwrap().to_vec2().unwrap();
            for level in Level::available() {
                let y = linear_at(level, &x, &form, Some(&bias)).unwrap();
                let y: Vec<Vec<f32>> = y.to_vec2().unwrap();
                let kind = match Weight(&form).kind(level) {
                    Kind::Blocks(_) if rounds(rows, width) => Kind::Rounded,
                    kind => kind,
                };
                for (i, row) in x_rows.iter().enumerate() {
                    for (o, w) in w_rows.iter().enumerate() {
                        let (want, allowed) = exact(kind, row, w);
                        let want = want + f64::from(values(out, 3)[o]);
                        let error = (f64::from(y[i][o]) - want).abs();
                        assert!(
                            error <= allowed,
                            "{form:?} on {level}, {rows}x{width}x{out} at {i},{o}: {} is not {want} within {allowed}",
                            y[i][o]
                        );
                    }
                }
            }
        }
    }

    /// The product of two rows with the inputs rounded as `kind` rounds them, and how far sums may be off.
    fn exact(kind: Kind, x: &[f32], w: &[f32]) -> (f64, f64) {
        let rounded = |x: f32| match kind {
            Kind::Bf16 => f32::from_bits(bf16_bits(x) << 16),
            _ => x,
        };
        let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(rounded(*x)) * f64::from(*w)).sum();
        let size: f64 = x.iter().zip(w).map(|(x, w)| f64::from((x * w).abs())).sum();
        let weights: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
        let peak = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        // Half a step of the inputs' quantisation, and half a step of weights that are rounded anew in groups of some values.
        let step = f64::from(peak) / 254.0 * weights * 1.01;
        let again = |group: usize, half: f64| -> f64 {
            let groups = w.chunks(group).zip(x.chunks(group));
            let errors = groups.map(|(w, x)| {
                let peak = w.iter().fold(0f32, |m, v| m.max(v.abs()));
                half * f64::from(peak) * x.iter().map(|v| f64::from(v.abs())).sum::<f64>()
            });
            errors.sum()
        };
        let quantised = match kind {
            Kind::Int8Runs | Kind::Blocks(_) => step,
            Kind::Int8 => step + again(32, 1.0 / 253.0),
            // A step is that of the largest value that a block can hold, and values are off by up to an eighth before they are rounded.
            Kind::Rounded => step + again(256, 1.3 * (0.5 + 0.125) / 127.0),
            Kind::F32 | Kind::Bf16 => 0.0,
        };
        (sum, quantised + 2e-6 * size + 1e-6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_form_on_every_level_multiplies_like_exact_sums(
            rows in 0usize..40,
            out in 1usize..150,
            width in 1usize..300,
            blocks in any::<bool>(),
        ) {
            check(rows, out, if blocks { width.next_multiple_of(256) } else { width });
        }
    }

    #[test]
    fn sums_over_many_blocks_of_depth_are_joined() {
        check(17, 33, 2816);
    }

    #[test]
    fn blocks_are_rounded_for_many_rows_and_hardly_differ() {
        check(97, 35, 512);
        let (rows, out, width) = (129, 70, 2304);
        let (x, w) = (tensor((rows, width), 1), tensor((out, width), 2));
        for kind in [GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K] {
            let packed = Matrix::Quantized(Arc::new(QTensor::quantize(&w, kind).unwrap()));
            let packed = packed.packed().unwrap();
            for level in Level::available() {
                let all = linear_at(level, &x, &packed, None).unwrap();
                let part =
                    |first| linear_at(level, &x.narrow(0, first, 43).unwrap(), &packed, None);
                let parts: Vec<_> = (0..rows).step_by(43).map(|i| part(i).unwrap()).collect();
                let exact = Tensor::cat(&parts, 0).unwrap();
                let squares =
                    |y: Tensor| y.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                let error = (squares((&all - &exact).unwrap()) / squares(exact)).sqrt();
                // Half a step on either side of values that are spread as a triangle: 1 / 127 / √12 of √6.
                assert!(error > 0.0 && error < 6.5e-3, "{kind:?} on {level}: {error}");
            }
        }
    }

    #[test]
    fn blocks_give_a_row_the_same_numbers_whatever_stands_beside_it() {
        let (rows, out, width) = (15, 70, 2304);
        let (x, w) = (tensor((rows, width), 1), tensor((out, width), 2));
        for kind in [GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K] {
            let blocks = Matrix::Quantized(Arc::new(QTensor::quantize(&w, kind).unwrap()));
            let packed = blocks.clone().packed().unwrap();
            assert!(matches!(packed, Matrix::Packed(_)));
            for level in Level::available() {
                let all: Vec<Vec<f32>> =
                    linear_at(level, &x, &packed, None).unwrap().to_vec2().unwrap();
                for count in [1, 2, 3, 5] {
                    let x = x.narrow(0, 4, count).unwrap();
                    for form in [&blocks, &packed] {
                        let few = linear_at(level, &x, form, None).unwrap();
                        assert_eq!(
                            few.to_vec2::<f32>().unwrap(),
                            all[4..4 + count],
                            "{kind:?} on {level}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn not_a_number_is_not_hidden_by_rounding() {
        let w = tensor((8, 32), 1);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = values(32, 2);
            row[7] = bad;
            let x = Tensor::from_vec(row, (1, 32), &Device::Cpu).unwrap();
            for form in forms(&w) {
                for level in Level::available() {
                    let y = linear_at(level, &x, &form, None).unwrap();
                    let y: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
                    assert!(y.iter().all(|v| !v.is_finite()), "{form:?} on {level}: {y:?}");
                }
            }
        }
    }

    #[test]
    fn int8_is_as_near_as_its_scale_says() {
        let (out, width) = (37, 4500);
        let w = tensor((out, width), 5);
        let rows: Vec<Vec<f32>> = w.to_vec2().unwrap();
        for form in [Matrix::Dense(w.clone()), Matrix::Dense(w).packed().unwrap()] {
            let int8 = form.to_int8().unwrap();
            assert!(int8.memory_bytes() < 64 * width * 101 / 100, "{}", int8.memory_bytes());
            let got: Vec<Vec<f32>> = int8.to_f32().unwrap().to_vec2().unwrap();
            for (got, row) in got.iter().zip(&rows) {
                for (got, run) in got.chunks(2048).zip(row.chunks(2048)) {
                    let peak = run.iter().fold(0f32, |m, v| m.max(v.abs()));
                    let near = |(g, v): (&f32, &f32)| (g - v).abs() <= peak / 253.9;
                    assert!(got.iter().zip(run).all(near));
                }
            }
        }
    }

    #[test]
    fn packing_keeps_every_value_and_needs_no_more_memory() {
        let w = tensor((64, 256), 5);
        for form in forms(&w) {
            let packed = form.clone().packed().unwrap();
            let same = |a: &Matrix| a.to_f32().unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(same(&form), same(&packed));
            assert_eq!(form.memory_bytes(), packed.memory_bytes(), "{form:?}");
        }
    }

    #[test]
    fn the_kernel_agrees_with_the_plain_twin_in_any_shape() {
        let w = Matrix::Dense(tensor((5, 12), 1));
        let x = tensor((6, 12), 2).reshape((2, 3, 12)).unwrap();
        let across = tensor((12, 6), 4).t().unwrap();
        for x in [x, across] {
            let got = linear(&x, &w, None).unwrap();
            let want = plain(&x, &w, None).unwrap();
            assert_eq!(got.dims(), want.dims());
            assert!(worst(&got, &want) < 1e-5);
        }
    }

    #[test]
    fn what_is_done_while_packing_equals_what_is_written_out() {
        let (x, up) = (tensor((6, 64), 1).reshape((2, 3, 64)).unwrap(), tensor((6, 64), 2));
        let up = up.reshape((2, 3, 64)).unwrap();
        let norm = RmsNorm { weight: tensor((1, 64), 3).get(0).unwrap(), eps: 1e-5 };
        let scale = tensor((2, 64), 4).reshape((2, 1, 64)).unwrap();
        let w = tensor((40, 64), 5);
        let layers = forms(&w);
        let layers: Vec<Layer> = layers.iter().map(|w| (w, None)).collect();
        for input in [
            Input::Normed { x: &x, norm: &norm, scale: Some(&scale) },
            Input::Gated { gate: &x, up: &up },
        ] {
            let written = input.tensor().unwrap();
            for level in Level::available() {
                let got = linears_at(level, input, &layers).unwrap();
                let want = linears_at(level, Input::Plain(&written), &layers).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(got.dims(), [2, 3, 40]);
                    // One input on the edge of rounding may fall to either side.
                    assert!(worst(got, want) < 0.02, "{level}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_weights_sums() {
        let x = candle_core::Var::from_tensor(&tensor((3, 32), 1)).unwrap();
        for form in forms(&tensor((4, 32), 2)) {
            let y = linear(x.as_tensor(), &form, None).unwrap();
            let gradient = y.sum_all().unwrap().backward().unwrap();
            let got: Vec<Vec<f32>> = gradient.get(&x).unwrap().to_vec2().unwrap();
            let want: Vec<f32> = form.to_f32().unwrap().sum(0).unwrap().to_vec1().unwrap();
            // A sum of four weights, each of which may be rounded to bfloat16.
            let near = |(g, w): (&f32, &f32)| (g - w).abs() < 4.0 * 2.0 / 512.0;
            assert!(got.iter().flatten().zip(want.iter().cycle()).all(near), "{form:?}");
        }
    }

    #[test]
    fn an_input_of_another_width_is_an_error_with_both_shapes() {
        let w = Matrix::Dense(tensor((4, 8), 1));
        let message = linear(&tensor((2, 7), 1), &w, None).unwrap_err().to_string();
        assert!(message.contains("[2, 7]") && message.contains("[4, 8]"), "{message}");
    }
}

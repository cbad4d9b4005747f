//! Linear layers: `y = x · Wᵀ + b`, whatever form `W` is kept in.

use std::sync::{Arc, LazyLock};

use candle_core::backend::BackendStorage;
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{CpuStorage, DType, Device, Module, Result, Storage, Tensor};
use rayon::prelude::*;

/// A linear layer's weight, `[out, in]`, in the form in which it is kept.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// float32, bfloat16 or float16 values.
    Dense(Tensor),
    /// `fp8_e4m3fn` bit patterns (`U8`, `[out, in]`) with one scale for the whole matrix.
    Fp8 {
        /// The bytes as the file has them.
        values: Tensor,
        /// What each value is multiplied by; 1 for files without scales.
        scale: f32,
    },
    /// Blocks in one of GGML's formats.
    Quantized(Arc<QTensor>),
}

/// How many weights are widened to float32 at a time: 32 MiB, small against the weights and large enough for a
/// matrix product to run at full speed.
const WIDENED_AT_ONCE: usize = 8 << 20;

impl Matrix {
    /// `[out, in]`.
    pub fn shape(&self) -> Result<(usize, usize)> {
        match self {
            Self::Dense(values) | Self::Fp8 { values, .. } => values.dims2(),
            Self::Quantized(blocks) => blocks.shape().dims2(),
        }
    }

    /// Bytes that the weight occupies.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Dense(values) | Self::Fp8 { values, .. } => {
                values.elem_count() * values.dtype().size_in_bytes()
            }
            Self::Quantized(blocks) => blocks.storage_size_in_bytes(),
        }
    }

    /// The same weight on `device`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Dense(values) => Self::Dense(values.to_device(device)?),
            Self::Fp8 { values, scale } => {
                Self::Fp8 { values: values.to_device(device)?, scale: *scale }
            }
            Self::Quantized(blocks) if device.is_cpu() => Self::Quantized(blocks.clone()),
            Self::Quantized(blocks) => {
                let storage = candle_core::quantized::QStorage::from_data(
                    blocks.data()?,
                    device,
                    blocks.dtype(),
                )?;
                Self::Quantized(Arc::new(QTensor::new(storage, blocks.shape())?))
            }
        })
    }

    /// The weight as float32, `[out, in]`: the plain twin, and what tests compare with.
    pub fn to_f32(&self) -> Result<Tensor> {
        match self {
            Self::Dense(values) => values.to_dtype(DType::F32),
            Self::Fp8 { values, scale } => {
                let (rows, columns) = values.dims2()?;
                let bytes = values.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u8>()?;
                let wide: Vec<f32> =
                    bytes.iter().map(|&b| FP8_E4M3FN[b as usize] * scale).collect();
                Tensor::from_vec(wide, (rows, columns), values.device())
            }
            Self::Quantized(blocks) => blocks.dequantize(&blocks.device()),
        }
    }
}

/// `x`: `[…, in]` float32; the result is `[…, out]` float32.
///
/// Narrow weights are widened tile by tile and multiplied in float32, so that only the weights' own rounding shows.
pub fn linear(x: &Tensor, weight: &Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, width) = weight.shape()?;
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(width) {
        candle_core::bail!(
            "linear: input {:?} does not fit a weight of [{out}, {width}]",
            x.dims()
        );
    }
    let rows = shape.iter().product::<usize>();
    let flat = x.reshape((rows, width))?;
    let y = match weight {
        Matrix::Dense(w) if w.dtype() == DType::F32 => flat.matmul(&w.t()?)?,
        Matrix::Dense(w) if !w.device().is_cpu() => {
            flat.to_dtype(w.dtype())?.matmul(&w.t()?)?.to_dtype(DType::F32)?
        }
        Matrix::Fp8 { values, .. } if !values.device().is_cpu() => {
            flat.matmul(&weight.to_f32()?.t()?)?
        }
        Matrix::Dense(_) | Matrix::Fp8 { .. } => by_widened_tiles(&flat, weight, out, width)?,
        Matrix::Quantized(blocks) => {
            QMatMul::from_arc(blocks.clone())?.forward(&flat.contiguous()?)?
        }
    };
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    shape.push(out);
    y.reshape(shape)
}

fn by_widened_tiles(x: &Tensor, weight: &Matrix, out: usize, width: usize) -> Result<Tensor> {
    let tile = (WIDENED_AT_ONCE / width.max(1)).clamp(1, out);
    let mut parts = Vec::with_capacity(out.div_ceil(tile));
    for start in (0..out).step_by(tile) {
        let rows = tile.min(out - start);
        let wide = widen(weight, start * width, rows * width)?;
        let wide = Tensor::from_vec(wide, (rows, width), x.device())?;
        parts.push(x.matmul(&wide.t()?)?);
    }
    if parts.len() == 1 { Ok(parts.remove(0)) } else { Tensor::cat(&parts, 1) }
}

/// `count` weights from `start` on, as float32, by all threads.
fn widen(weight: &Matrix, start: usize, count: usize) -> Result<Vec<f32>> {
    const CHUNK: usize = 1 << 16;
    let (values, scale) = match weight {
        Matrix::Dense(values) => (values, 1.0),
        Matrix::Fp8 { values, scale } => (values, *scale),
        Matrix::Quantized(_) => candle_core::bail!("blocks are multiplied as they are"),
    };
    let (storage, layout) = values.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("only weights in main memory are widened in tiles")
    };
    if !layout.is_contiguous() {
        candle_core::bail!("weights are kept contiguous")
    }
    let range = layout.start_offset() + start..layout.start_offset() + start + count;
    let mut wide = vec![0f32; count];
    let chunks = wide.par_chunks_mut(CHUNK);
    match storage {
        CpuStorage::BF16(all) => chunks.zip(all[range].par_chunks(CHUNK)).for_each(|(to, from)| {
            to.iter_mut()
                .zip(from)
                .for_each(|(w, v)| *w = f32::from_bits((v.to_bits() as u32) << 16))
        }),
        CpuStorage::F16(all) => chunks
            .zip(all[range].par_chunks(CHUNK))
            .for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(w, v)| *w = v.to_f32())),
        CpuStorage::U8(all) => chunks.zip(all[range].par_chunks(CHUNK)).for_each(|(to, from)| {
            to.iter_mut().zip(from).for_each(|(w, &v)| *w = FP8_E4M3FN[v as usize] * scale)
        }),
        other => candle_core::bail!("no linear layer keeps its weight as {:?}", other.dtype()),
    }
    Ok(wide)
}

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
    use candle_core::quantized::GgmlDType;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        d.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

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

    #[test]
    fn every_form_multiplies_like_its_float32_twin() {
        let device = Device::Cpu;
        // More rows than fit one tile, and a batch in two dimensions.
        let (out, width) = (WIDENED_AT_ONCE / 256 + 3, 256);
        let w = Tensor::randn(0f32, 0.1, (out, width), &device).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 3, width), &device).unwrap();
        let b = Tensor::randn(0f32, 1.0, out, &device).unwrap();
        let bytes: Vec<u8> = (0..out * width).map(|i| (i * 37 % 0x70) as u8).collect();
        let forms = [
            Matrix::Dense(w.clone()),
            Matrix::Dense(w.to_dtype(DType::BF16).unwrap()),
            Matrix::Dense(w.to_dtype(DType::F16).unwrap()),
            Matrix::Fp8 {
                values: Tensor::from_vec(bytes, (out, width), &device).unwrap(),
                scale: 0.01,
            },
        ];
        for form in forms {
            let twin = form.to_f32().unwrap();
            let flat = x.reshape((6, width)).unwrap();
            let want = flat.matmul(&twin.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
            let got = linear(&x, &form, Some(&b)).unwrap();
            assert_eq!(got.dims(), [2, 3, out]);
            let error = largest_difference(&got.reshape((6, out)).unwrap(), &want);
            assert!(error < 1e-4, "{form:?}: {error}");
        }
    }

    #[test]
    fn blocks_multiply_within_their_rounding() {
        let w = Tensor::randn(0f32, 0.1, (64, 512), &Device::Cpu).unwrap();
        let x = Tensor::randn(0f32, 1.0, (5, 512), &Device::Cpu).unwrap();
        let want = x.matmul(&w.t().unwrap()).unwrap();
        for (kind, limit) in [(GgmlDType::Q8_0, 0.02), (GgmlDType::Q4K, 0.15)] {
            let form = Matrix::Quantized(Arc::new(QTensor::quantize(&w, kind).unwrap()));
            let got = linear(&x, &form, None).unwrap();
            let norm =
                |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
            let relative = norm(&(&got - &want).unwrap()) / norm(&want);
            assert!(relative < limit, "{kind:?}: {relative}");
        }
    }

    #[test]
    fn an_input_of_another_width_is_an_error_with_both_shapes() {
        let w = Matrix::Dense(Tensor::zeros((4, 8), DType::F32, &Device::Cpu).unwrap());
        let x = Tensor::zeros((2, 7), DType::F32, &Device::Cpu).unwrap();
        let message = linear(&x, &w, None).unwrap_err().to_string();
        assert!(message.contains("[2, 7]") && message.contains("[4, 8]"), "{message}");
    }
}

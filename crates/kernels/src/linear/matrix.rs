//! The forms that a linear layer's weight is kept in.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Result, Tensor};

use super::packed::Packed;
use super::{FP8_E4M3FN, blocks};
use crate::simd::Level;

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
    /// e4m3 on a GPU with a scale for each output, as [`Matrix::to_fp8_rows`] makes it.
    #[cfg(feature = "cuda")]
    Fp8Rows {
        /// `[out, in]`, as bytes.
        values: Tensor,
        /// `[out]` float32.
        scales: Tensor,
    },
    /// Blocks in one of GGML's formats.
    Quantized(Arc<QTensor>),
    /// float32, bfloat16 or int8 values, or blocks of Q8_0 or four to six bits, in the order in which the processor's kernels read them.
    Packed(Arc<Packed>),
}

/// What a network's products are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// float32 throughout.
    F32,
    /// Inputs rounded to bfloat16, sums in float32.
    Bf16,
    /// Queries and keys of attention rounded to int8, each with a scale; everything else as [`Precision::Bf16`].
    Int8,
}

impl Matrix {
    /// `[out, in]`.
    pub fn shape(&self) -> Result<(usize, usize)> {
        match self {
            Self::Dense(values) | Self::Fp8 { values, .. } => values.dims2(),
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { values, .. } => values.dims2(),
            Self::Quantized(blocks) => blocks.shape().dims2(),
            Self::Packed(packed) => Ok(packed.shape()),
        }
    }

    /// Bytes that the weight occupies.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Dense(values) | Self::Fp8 { values, .. } => {
                values.elem_count() * values.dtype().size_in_bytes()
            }
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { values, scales } => values.elem_count() + 4 * scales.elem_count(),
            Self::Quantized(blocks) => blocks.storage_size_in_bytes(),
            Self::Packed(packed) => packed.memory_bytes(),
        }
    }

    /// What is computed beside this weight on `device`: float32 beside float32 and float16, int8 beside int8 in runs, bfloat16 beside other
    /// narrow forms where the device multiplies it.
    pub fn precision(&self, device: &Device) -> Precision {
        if matches!(self, Self::Packed(packed) if packed.is_int8_runs()) {
            return Precision::Int8;
        }
        let wide = match self {
            Self::Dense(values) => values.dtype() != DType::BF16,
            Self::Packed(packed) => packed.is_f32(),
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { .. } => false,
            Self::Fp8 { .. } | Self::Quantized(_) => false,
        };
        // GPUs multiply bfloat16 whatever the processor does, also where the weight comes from main memory.
        if wide || (device.is_cpu() && !Level::best().has_bf16()) {
            Precision::F32
        } else {
            Precision::Bf16
        }
    }

    /// The same weight on `device`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Dense(values) => Self::Dense(values.to_device(device)?),
            Self::Fp8 { values, scale } => {
                Self::Fp8 { values: values.to_device(device)?, scale: *scale }
            }
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { .. } if device.is_cpu() => Self::Dense(self.to_f32()?),
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { values, scales } => Self::Fp8Rows {
                values: values.to_device(device)?,
                scales: scales.to_device(device)?,
            },
            Self::Quantized(blocks) if device.is_cpu() => Self::Quantized(blocks.clone()),
            Self::Quantized(blocks) => {
                let storage = QStorage::from_data(blocks.data()?, device, blocks.dtype())?;
                Self::Quantized(Arc::new(QTensor::new(storage, blocks.shape())?))
            }
            Self::Packed(packed) if device.is_cpu() => Self::Packed(packed.clone()),
            Self::Packed(packed) => Self::Dense(packed.to_f32()?.to_device(device)?),
        })
    }

    /// The same weight as kernels read it, where it is in main memory and a form has such an order; the others are put in
    /// order slice by slice as they are used. Takes the place of the weight, so that memory does not grow.
    pub fn packed(self) -> Result<Self> {
        let packed = match &self {
            Self::Dense(values) if values.device().is_cpu() && values.dtype() != DType::F16 => {
                Packed::dense(values)?
            }
            Self::Quantized(blocks)
                if blocks.dtype() == GgmlDType::Q8_0 && blocks.device().is_cpu() =>
            {
                Packed::q8_0(blocks)?
            }
            Self::Quantized(blocks) if blocks.device().is_cpu() => {
                match blocks::known(blocks.dtype()) {
                    Some(format) => Packed::blocks(format, blocks)?,
                    None => return Ok(self),
                }
            }
            _ => return Ok(self),
        };
        Ok(Self::Packed(Arc::new(packed)))
    }

    /// The same weight as int8 with a float32 scale for each output and 2048 inputs, in the order in which kernels read it:
    /// a byte a value, and the fastest form there is. Weights are rounded by up to 1/254 of the largest of their run; as
    /// beside blocks, inputs are rounded to int8 with a scale a row.
    pub fn to_int8(&self) -> Result<Self> {
        match self {
            Self::Packed(packed) if packed.is_int8_runs() => Ok(self.clone()),
            Self::Packed(packed) => Self::Dense(packed.to_f32()?).to_int8(),
            _ if !self.is_on_cpu() => self.to_device(&Device::Cpu)?.to_int8(),
            _ => Ok(Self::Packed(Arc::new(Packed::int8(self)?))),
        }
    }

    /// The same weight as e4m3 with a float32 scale for each output, where it is on a device that multiplies these
    /// ([`crate::multiplies_fp8`]); elsewhere as it is. Inputs beside it are rounded to e4m3 with a scale a row.
    pub fn to_fp8_rows(self) -> Result<Self> {
        #[cfg(feature = "cuda")]
        match &self {
            Self::Fp8 { values, scale } if crate::multiplies_fp8(values.device()) => {
                let (out, _) = values.dims2()?;
                let scales = Tensor::full(*scale, out, values.device())?;
                return Ok(Self::Fp8Rows { values: values.contiguous()?, scales });
            }
            Self::Dense(dense) if crate::multiplies_fp8(dense.device()) => {
                if let Some((values, scales)) = crate::cuda::to_fp8_rows(dense)? {
                    return Ok(Self::Fp8Rows { values, scales });
                }
            }
            _ => (),
        }
        Ok(self)
    }

    /// Whether it is in main memory.
    pub fn is_on_cpu(&self) -> bool {
        match self {
            Self::Dense(values) | Self::Fp8 { values, .. } => values.device().is_cpu(),
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { values, .. } => values.device().is_cpu(),
            Self::Quantized(blocks) => blocks.device().is_cpu(),
            Self::Packed(_) => true,
        }
    }

    /// The weight as float32, `[out, in]`: what the plain twin uses, and what tests compare with.
    pub fn to_f32(&self) -> Result<Tensor> {
        match self {
            Self::Dense(values) => values.to_dtype(DType::F32),
            Self::Fp8 { values, scale } => {
                let (rows, columns) = values.dims2()?;
                let bytes = values.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u8>()?;
                let wide: Vec<f32> =
                    bytes.iter().map(|&b| FP8_E4M3FN[b as usize] * scale).collect();
                Tensor::from_vec(wide, (rows, columns), &Device::Cpu)?.to_device(values.device())
            }
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { values, scales } => {
                let plain = Self::Fp8 { values: values.clone(), scale: 1.0 }.to_f32()?;
                plain.broadcast_mul(&scales.unsqueeze(1)?)
            }
            Self::Quantized(blocks) => blocks.dequantize(&blocks.device()),
            Self::Packed(packed) => packed.to_f32(),
        }
    }

    /// The scale of a whole matrix.
    pub(super) fn scale(&self) -> f32 {
        if let Self::Fp8 { scale, .. } = self { *scale } else { 1.0 }
    }
}

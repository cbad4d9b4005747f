//! Values from the form they are stored in to the form they are kept in, in chunks of rows and by all threads, so that
//! a large matrix never stands in float32 as a whole.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use zoetrope_kernels::{FP8_E4M3FN, Matrix, fp8_e4m3fn_from_f32};

use crate::Storage;
use crate::file::Kind;

type Result<T> = candle_core::Result<T>;

/// Values converted at a time by one thread.
const CHUNK: usize = 1 << 20;

/// Stored rows: `bytes` of `kind`, to be multiplied by `scale`.
pub(crate) struct Rows<'a> {
    pub(crate) kind: Kind,
    pub(crate) bytes: &'a [u8],
    pub(crate) shape: [usize; 2],
    pub(crate) scale: f32,
}

impl Rows<'_> {
    /// A matrix kept as `storage`; `None` when a value is not finite.
    pub(crate) fn to_matrix(&self, storage: Storage) -> Result<Option<Matrix>> {
        let [_, width] = self.shape;
        match (self.kind, storage) {
            (Kind::Blocks(blocks), Storage::AsStored) => {
                self.blocks(self.bytes.to_vec(), blocks).map(Some)
            }
            (Kind::Blocks(blocks), _) if storage.blocks() == Some(blocks) => {
                self.blocks(self.bytes.to_vec(), blocks).map(Some)
            }
            (Kind::Fp8, Storage::AsStored | Storage::Fp8) => {
                let finite =
                    self.bytes.par_iter().all(|b| b & 0x7f != 0x7f) && self.scale.is_finite();
                let values = Tensor::from_vec(self.bytes.to_vec(), self.dims(), &Device::Cpu)?;
                Ok(finite.then_some(Matrix::Fp8 { values, scale: self.scale }))
            }
            (_, Storage::AsStored) => self.to_matrix(self.kind.form()),
            _ => match storage.for_width(width) {
                Storage::Bf16 => self.dense(bf16::from_f32),
                Storage::F16 => self.dense(f16::from_f32),
                Storage::Fp8 => self.to_fp8(),
                Storage::Int8 => self.dense(|v| v)?.map(|wide| wide.to_int8()).transpose(),
                other => match other.blocks() {
                    Some(blocks) => self.quantise(blocks),
                    None => self.dense(|v| v),
                },
            },
        }
    }

    fn dims(&self) -> (usize, usize) {
        (self.shape[0], self.shape[1])
    }

    /// All values as float32; `None` when one is not finite.
    pub(crate) fn to_f32(&self) -> Result<Option<Vec<f32>>> {
        let mut out = vec![0f32; self.shape[0] * self.shape[1]];
        let step = self.chunk_rows();
        let width = self.shape[1];
        let ok = out.par_chunks_mut((step * width).max(1)).enumerate().map(|(i, to)| {
            let values = self.decode(i * step, to.len() / width.max(1))?;
            to.copy_from_slice(&values);
            Ok(values.iter().all(|v| v.is_finite()))
        });
        let finite = ok.collect::<Result<Vec<bool>>>()?.into_iter().all(|f| f);
        Ok(finite.then_some(out))
    }

    fn dense<T: candle_core::WithDType + Send + Sync>(
        &self,
        convert: impl Fn(f32) -> T + Sync,
    ) -> Result<Option<Matrix>> {
        let width = self.shape[1];
        let mut out = vec![T::zero(); self.shape[0] * width];
        let step = self.chunk_rows();
        let ok = out.par_chunks_mut((step * width).max(1)).enumerate().map(|(i, to)| {
            let values = self.decode(i * step, to.len() / width.max(1))?;
            to.iter_mut().zip(&values).for_each(|(t, v)| *t = convert(*v));
            Ok(values.iter().all(|v| v.is_finite()))
        });
        if !ok.collect::<Result<Vec<bool>>>()?.into_iter().all(|f| f) {
            return Ok(None);
        }
        Ok(Some(Matrix::Dense(Tensor::from_vec(out, self.dims(), &Device::Cpu)?)))
    }

    /// One scale for the matrix, so that its largest value is fp8's largest, 448.
    fn to_fp8(&self) -> Result<Option<Matrix>> {
        let step = self.chunk_rows();
        let chunks = self.shape[0].div_ceil(step);
        let largest = |i: usize| {
            let values = self.decode(i * step, step.min(self.shape[0] - i * step))?;
            Ok(values
                .iter()
                .fold(0f32, |m, v| if v.is_finite() { m.max(v.abs()) } else { f32::INFINITY }))
        };
        let peak = (0..chunks).into_par_iter().map(largest).collect::<Result<Vec<f32>>>()?;
        let peak = peak.into_iter().fold(0f32, f32::max);
        if !peak.is_finite() {
            return Ok(None);
        }
        let scale = if peak > 0.0 { peak / 448.0 } else { 1.0 };
        let encode = |i: usize| {
            let values = self.decode(i * step, step.min(self.shape[0] - i * step))?;
            Ok(values.iter().map(|v| fp8_e4m3fn_from_f32(v / scale)).collect::<Vec<u8>>())
        };
        let bytes = (0..chunks).into_par_iter().map(encode).collect::<Result<Vec<_>>>()?.concat();
        Ok(Some(Matrix::Fp8 { values: Tensor::from_vec(bytes, self.dims(), &Device::Cpu)?, scale }))
    }

    fn quantise(&self, blocks: GgmlDType) -> Result<Option<Matrix>> {
        let (step, width) = (self.chunk_rows(), self.shape[1]);
        let chunk = |i: usize| {
            let rows = step.min(self.shape[0] - i * step);
            let values = self.decode(i * step, rows)?;
            if !values.iter().all(|v| v.is_finite()) {
                return Ok(None);
            }
            let dense = Tensor::from_vec(values, (rows, width), &Device::Cpu)?;
            Ok(Some(QTensor::quantize(&dense, blocks)?.data()?.into_owned()))
        };
        let parts = (0..self.shape[0].div_ceil(step))
            .into_par_iter()
            .map(chunk)
            .collect::<Result<Option<Vec<_>>>>()?;
        parts.map(|parts| self.blocks(parts.concat(), blocks)).transpose()
    }

    fn blocks(&self, bytes: Vec<u8>, blocks: GgmlDType) -> Result<Matrix> {
        let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, blocks)?;
        Ok(Matrix::Quantized(Arc::new(QTensor::new(storage, self.dims())?)))
    }

    fn chunk_rows(&self) -> usize {
        (CHUNK / self.shape[1].max(1)).clamp(1, self.shape[0].max(1))
    }

    /// `rows` rows from `first` on as float32.
    fn decode(&self, first: usize, rows: usize) -> Result<Vec<f32>> {
        let (from, count) = (self.kind.bytes(first * self.shape[1]), rows * self.shape[1]);
        let bytes = &self.bytes[from..from + self.kind.bytes(count)];
        let two = |f: fn([u8; 2]) -> f32| bytes.chunks_exact(2).map(|b| f([b[0], b[1]])).collect();
        let mut values: Vec<f32> = match self.kind {
            Kind::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Kind::Bf16 => two(|b| bf16::from_le_bytes(b).to_f32()),
            Kind::F16 => two(|b| f16::from_le_bytes(b).to_f32()),
            Kind::Fp8 => bytes.iter().map(|b| FP8_E4M3FN[*b as usize]).collect(),
            Kind::Blocks(blocks) => {
                let storage =
                    QStorage::from_data(Cow::Owned(bytes.to_vec()), &Device::Cpu, blocks)?;
                QTensor::new(storage, count)?.dequantize(&Device::Cpu)?.to_vec1()?
            }
            Kind::Other => candle_core::bail!("values of this dtype are no weights"),
        };
        if self.scale != 1.0 {
            values.iter_mut().for_each(|v| *v *= self.scale);
        }
        Ok(values)
    }
}

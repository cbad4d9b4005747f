//! A linear layer: a weight in any form, and the adapters that stand beside it.

use candle_core::{Device, Tensor};
use zoetrope_checkpoint::{self as checkpoint, Storage, Weights};
use zoetrope_kernels::{Input, Layer, Matrix, Precision, linears, multiplies_fp8};

use super::{Home, Parameters};
use crate::Result;

/// `y = W x + b + Σ Δ x`.
pub struct Linear {
    weight: Matrix,
    bias: Option<Tensor>,
    shape: [usize; 2],
    deltas: Vec<Delta>,
}

impl Linear {
    /// A layer of `[out, in]` with `weight` and `bias`.
    pub fn load(parameters: &Parameters, out: usize, width: usize) -> Result<Self> {
        let bias = parameters.tensor("bias", &[out])?;
        Ok(Self { bias: Some(bias), ..Self::load_without_bias(parameters, out, width)? })
    }

    /// As [`Linear::load`], but in float32 whatever the other layers are kept in: for the few small layers through
    /// which everything passes, where rounding shows most and memory counts least.
    pub fn load_precise(parameters: &Parameters, out: usize, width: usize) -> Result<Self> {
        let weight = Matrix::Dense(parameters.tensor("weight", &[out, width])?).packed()?;
        let bias = Some(parameters.tensor("bias", &[out])?);
        Ok(Self { weight, bias, shape: [out, width], deltas: Vec::new() })
    }

    /// A convolution of `size` × `size` at every `size`-th pixel, whose `weight` is `[out, channels, size, size]`: a layer of
    /// patches, `[out, channels · size²]`. In float32, as [`Linear::load_precise`].
    pub fn load_patches(
        parameters: &Parameters,
        [out, channels, size]: [usize; 3],
        biased: bool,
    ) -> Result<Self> {
        let (weight, width) = ([out, channels, size, size], channels * size * size);
        let weight = parameters.tensor("weight", &weight)?.reshape((out, width))?;
        let bias = if biased { Some(parameters.tensor("bias", &[out])?) } else { None };
        let weight = Matrix::Dense(weight).packed()?;
        Ok(Self { weight, bias, shape: [out, width], deltas: Vec::new() })
    }

    /// A transposed convolution of `size` × `size` at every `size`-th pixel, whose `weight` is `[channels, out, size, size]`: a layer
    /// from a pixel to a patch, `[size² · out, channels]`, rows and columns before channels. In float32, as [`Linear::load_precise`].
    pub fn load_spreading(
        parameters: &Parameters,
        [out, channels, size]: [usize; 3],
    ) -> Result<Self> {
        let (weight, width) = ([channels, out, size, size], size * size * out);
        let weight = parameters.tensor("weight", &weight)?.permute((2, 3, 1, 0))?;
        let weight = weight.reshape((width, channels))?;
        let bias = parameters.tensor("bias", &[out])?.repeat(size * size)?;
        let weight = Matrix::Dense(weight).packed()?;
        Ok(Self { weight, bias: Some(bias), shape: [width, channels], deltas: Vec::new() })
    }

    /// A layer of `[out, in]` with `weight` alone.
    pub fn load_without_bias(parameters: &Parameters, out: usize, width: usize) -> Result<Self> {
        let Parameters { weights, device, home } = parameters;
        let weight = match home {
            _ if device.is_cpu() => weights.packed_matrix("weight", [out, width])?,
            Home::MainMemory => weights.matrix("weight", [out, width])?,
            Home::Device => on_device(weights, [out, width], device)?,
        };
        Ok(Self { weight, bias: None, shape: [out, width], deltas: Vec::new() })
    }

    /// `x`: `[…, in]`; the result is `[…, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_input(Input::Plain(x))
    }

    /// The result for an input that is made on the way.
    pub fn forward_input(&self, input: Input) -> Result<Tensor> {
        let [y] = Self::forward_all(input, [self])?;
        Ok(y)
    }

    /// The results of several layers for one input.
    pub fn forward_all<const N: usize>(input: Input, layers: [&Self; N]) -> Result<[Tensor; N]> {
        // Adapters need the input written out.
        let adapted = layers.iter().any(|layer| !layer.deltas.is_empty());
        let written = if adapted { Some(input.tensor()?) } else { None };
        let input = written.as_ref().map_or(input, Input::Plain);
        let device = input.device();
        let sent: Vec<Option<Matrix>> =
            layers.iter().map(|layer| layer.sent_to(device)).collect::<Result<_>>()?;
        let mut parameters: [Layer; N] = layers.map(|layer| (&layer.weight, layer.bias.as_ref()));
        for ((weight, _), sent) in parameters.iter_mut().zip(&sent) {
            *weight = sent.as_ref().unwrap_or(*weight);
        }
        let mut results = linears(input, &parameters)?;
        if let Some(x) = &written {
            for (y, layer) in results.iter_mut().zip(layers) {
                for delta in &layer.deltas {
                    *y = (&*y + delta.forward(x)?.to_dtype(y.dtype())?)?;
                }
            }
        }
        Ok(results.try_into().expect("every layer has a result"))
    }

    /// The weight on `device`, where it stays in main memory and is sent for every use.
    fn sent_to(&self, device: &Device) -> Result<Option<Matrix>> {
        match self.weight.is_on_cpu() && !device.is_cpu() {
            true => Ok(Some(self.weight.to_device(device)?)),
            false => Ok(None),
        }
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Operations for one token, a multiply-add being two.
    pub fn operations_a_token(&self) -> f64 {
        2.0 * self.shape[0] as f64 * self.shape[1] as f64
    }

    /// Bytes of its weight.
    pub fn memory_bytes(&self) -> usize {
        self.weight.memory_bytes()
    }

    /// What is computed beside this layer.
    pub fn precision(&self) -> Precision {
        self.weight.precision()
    }

    /// Puts `deltas` beside the weight, in place of those that stood there.
    pub fn set_deltas(&mut self, deltas: Vec<Delta>) {
        self.deltas = deltas;
    }
}

/// A weight in the memory of `device`. fp8 is made there from the wide values, with a scale for each output, where the device multiplies it.
fn on_device(weights: &Weights, shape: [usize; 2], device: &Device) -> Result<Matrix> {
    let eight = weights.storage() == Storage::Fp8 && multiplies_fp8(device);
    let wide = eight && weights.form() != Storage::Fp8;
    let source = if wide { weights.clone().with_storage(Storage::Bf16) } else { weights.clone() };
    let matrix = source.matrix("weight", shape)?.to_device(device)?;
    Ok(if eight { matrix.to_fp8_rows()? } else { matrix })
}

/// A change of a linear layer's weight, applied beside it and never merged.
#[derive(Clone)]
pub enum Delta {
    /// `scale · up · down`.
    LowRank {
        /// `[rank, in]`
        down: Tensor,
        /// `[out, rank]`
        up: Tensor,
        /// The file's alpha / rank, times the caller's scale.
        scale: f64,
    },
    /// `scale · left ⊗ right`.
    Kronecker {
        /// `[a, b]`
        left: Tensor,
        /// `[c, d]` with `a · c = out` and `b · d = in`
        right: Tensor,
        /// As above.
        scale: f64,
    },
    /// `scale · delta`.
    Dense {
        /// `[out, in]`
        delta: Tensor,
        /// As above.
        scale: f64,
    },
}

impl Delta {
    /// What a file holds, on `device`, times the caller's `scale`.
    pub fn new(file: &checkpoint::Delta, scale: f64, device: &Device) -> Result<Self> {
        Ok(match file {
            checkpoint::Delta::LowRank { down, up, scale: own } => Self::LowRank {
                down: down.to_device(device)?,
                up: up.to_device(device)?,
                scale: scale * f64::from(*own),
            },
            checkpoint::Delta::Kronecker { left, right, scale: own } => Self::Kronecker {
                left: left.to_device(device)?,
                right: right.to_device(device)?,
                scale: scale * f64::from(*own),
            },
            checkpoint::Delta::Dense { delta, scale: own } => {
                Self::Dense { delta: delta.to_device(device)?, scale: scale * f64::from(*own) }
            }
        })
    }

    /// `Δ x` for `x`: `[…, in]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let width = shape.pop().unwrap_or(0);
        let rows = shape.iter().product::<usize>();
        let x = x.reshape((rows, width))?;
        let (y, scale) = match self {
            Self::LowRank { down, up, scale } => (x.matmul(&down.t()?)?.matmul(&up.t()?)?, scale),
            Self::Dense { delta, scale } => (x.matmul(&delta.t()?)?, scale),
            Self::Kronecker { left, right, scale } => (kronecker(&x, left, right)?, scale),
        };
        shape.push(y.dim(1)?);
        Ok((y * *scale)?.reshape(shape)?)
    }
}

/// `(left ⊗ right) x` without forming the product: `y[i, k] = Σ left[i, j] · right[k, l] · x[j, l]`.
fn kronecker(x: &Tensor, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (rows, _) = x.dims2()?;
    let ((a, b), (c, d)) = (left.dims2()?, right.dims2()?);
    let inner = x.reshape((rows * b, d))?.matmul(&right.t()?)?; // [rows · b, c]
    let inner = inner.reshape((rows, b, c))?.transpose(1, 2)?.contiguous()?; // [rows, c, b]
    let outer = inner.reshape((rows * c, b))?.matmul(&left.t()?)?; // [rows · c, a]
    Ok(outer.reshape((rows, c, a))?.transpose(1, 2)?.reshape((rows, a * c))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kronecker_delta_equals_the_product_written_out() {
        let device = Device::Cpu;
        let left = Tensor::randn(0f32, 1.0, (2, 3), &device).unwrap();
        let right = Tensor::randn(0f32, 1.0, (5, 4), &device).unwrap();
        let (l, r) = (left.to_vec2::<f32>().unwrap(), right.to_vec2::<f32>().unwrap());
        let dense: Vec<f32> = (0..10)
            .flat_map(|row| (0..12).map(move |column| (row, column)))
            .map(|(row, column)| l[row / 5][column / 4] * r[row % 5][column % 4])
            .collect();
        let dense = Tensor::from_vec(dense, (10, 12), &device).unwrap();
        let x = Tensor::randn(0f32, 1.0, (2, 7, 12), &device).unwrap();
        let got = Delta::Kronecker { left, right, scale: -0.5 }.forward(&x).unwrap();
        let want = Delta::Dense { delta: dense, scale: -0.5 }.forward(&x).unwrap();
        let error = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
    }
}

//! A weight from its other side: what a gradient is multiplied by on its way back.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use super::Matrix;
use super::packed::{Packed, Weight};
use crate::memory::{Units, unwritten};
use crate::product::multiply::{Finish, Right, multiply};
use crate::product::pack::{Rows, bf16_bits};
use crate::product::{Kind, WIDE};
use crate::rows::Plain;
use crate::simd::Level;
use crate::values::Values;

/// `gradient · W`: from the gradient of a linear layer's result, `[…, out]`, to that of its input, `[…, in]`. Beside float32 and float16 weights all is
/// float32; beside others both sides are rounded to bfloat16, where the processor multiplies that.
pub(crate) fn pull_back(gradient: &Tensor, weight: &Matrix) -> Result<Tensor> {
    pull_back_at(Level::best(), gradient, weight)
}

pub(super) fn pull_back_at(level: Level, gradient: &Tensor, weight: &Matrix) -> Result<Tensor> {
    let (out, width) = weight.shape()?;
    let mut shape = gradient.dims().to_vec();
    if shape.pop() != Some(out) {
        candle_core::bail!(
            "a gradient {:?} does not fit a weight of [{out}, {width}]",
            gradient.dims()
        );
    }
    let right = Transposed::new(level, weight)?;
    let count = shape.iter().product();
    let gradient = gradient.contiguous()?;
    let values = Values::of(&gradient);
    let left = Rows::pack(level, right.kind, (count, out), &Plain { values: values.f32()? });
    let mut y = unwritten(count * width);
    let finish = Finish { scale: 1.0, bias: None, residual: None };
    multiply(level, &left, &right, finish, (&mut y, width))?;
    shape.push(width);
    Tensor::from_vec(y, shape, &Device::Cpu)
}

/// `Wᵀ` as a product's right side, turned a slice at a time: a second copy of all weights would not fit beside the first.
struct Transposed<'a> {
    kind: Kind,
    out: usize,
    width: usize,
    values: Stored<'a>,
}

enum Stored<'a> {
    /// As kernels read it forwards.
    Packed(&'a Packed),
    /// `[out, in]`
    Rows(Cow<'a, [f32]>),
}

impl<'a> Transposed<'a> {
    fn new(level: Level, weight: &'a Matrix) -> Result<Self> {
        let (out, width) = weight.shape()?;
        let kind = match Weight(weight).kind(level) {
            Kind::F32 => Kind::F32,
            _ if level.has_bf16() => Kind::Bf16,
            _ => Kind::F32,
        };
        let values = match weight {
            Matrix::Packed(packed) if !packed.is_blocks() => Stored::Packed(packed),
            // To unpack blocks for every 32 of their values would be most of the work.
            _ => Stored::Rows(Cow::Owned(weight.to_f32()?.flatten_all()?.to_vec1()?)),
        };
        Ok(Self { kind, out, width, values })
    }

    /// The values of output `row` at the inputs of panel `panel`; what lies beyond the last is 0.
    fn row(&self, row: usize, panel: usize, to: &mut [f32; WIDE]) {
        let columns = panel * WIDE..((panel + 1) * WIDE).min(self.width);
        let to = &mut to[..columns.len()];
        match &self.values {
            Stored::Packed(packed) => packed.part_of_row(row, columns, to),
            Stored::Rows(values) => {
                to.copy_from_slice(&values[row * self.width..][columns]);
            }
        }
    }
}

impl Right for Transposed<'_> {
    fn kind(&self, _: Level) -> Kind {
        self.kind
    }

    fn panels<'b>(
        &'b self,
        _: Level,
        range: Range<usize>,
        scratch: &'b mut Units,
    ) -> Result<&'b [u32]> {
        let size = self.kind.right_units(self.out);
        scratch.resize(0);
        scratch.resize(range.len() * size);
        let mut values = [0f32; WIDE];
        for (panel, to) in range.zip(scratch.chunks_exact_mut(size.max(1))) {
            for row in 0..self.out {
                self.row(row, panel, &mut values);
                match self.kind {
                    Kind::F32 => {
                        let units = to[row * WIDE..][..WIDE].iter_mut();
                        units.zip(&values).for_each(|(unit, v)| *unit = v.to_bits());
                    }
                    _ => {
                        let units = to[row / 2 * WIDE..][..WIDE].iter_mut();
                        let shift = 16 * (row % 2);
                        let bits = |v: &f32| bf16_bits(*v) << shift;
                        units.zip(&values).for_each(|(unit, v)| *unit |= bits(v));
                    }
                }
            }
        }
        Ok(scratch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::DType;
    use candle_core::quantized::{GgmlDType, QTensor};

    use super::*;
    use crate::testing::{random, rounded, worst};

    #[test]
    fn every_form_on_every_level_is_multiplied_from_its_other_side() {
        for (rows, out, width) in [(1, 1, 1), (5, 33, 64), (40, 130, 256), (17, 64, 70)] {
            let (w, gradient) = (random((out, width)), random((2, rows, out)));
            let dense = Matrix::Dense(w.clone());
            let narrow = Matrix::Dense(w.to_dtype(DType::BF16).unwrap());
            let mut forms = vec![dense.clone(), narrow.clone(), dense.to_int8().unwrap()];
            forms.push(dense.packed().unwrap());
            forms.push(narrow.packed().unwrap());
            for kind in [GgmlDType::Q8_0, GgmlDType::Q4K] {
                if width % kind.block_size() == 0 {
                    let blocks = Matrix::Quantized(Arc::new(QTensor::quantize(&w, kind).unwrap()));
                    forms.extend([blocks.clone(), blocks.packed().unwrap()]);
                }
            }
            for form in forms {
                for level in Level::available() {
                    let got = pull_back_at(level, &gradient, &form).unwrap();
                    let values = form.to_f32().unwrap();
                    let narrow = Transposed::new(level, &form).unwrap().kind == Kind::Bf16;
                    let (gradient, values) = match narrow {
                        true => (rounded(&gradient), rounded(&values)),
                        false => (gradient.clone(), values),
                    };
                    let want = gradient.broadcast_matmul(&values).unwrap();
                    let off = worst(&got, &want);
                    assert!(off < 1e-4 * (out as f32).sqrt(), "{form:?} on {level}: {off}");
                }
            }
        }
    }
}

//! Weights as bytes, in the order in which kernels read them, so that a file can hold them between two runs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{CpuStorage, DType, Device, Result, Tensor};

use super::Matrix;
use super::packed::{Packed, Place};
use crate::product::Kind;
use crate::product::blocks::Blocks;
use crate::values::Values;

/// Counts the orders in which weights were packed: whoever changes one, counts on, and files of the older order are no
/// longer read.
pub const PACKING: u32 = 2;

/// Bytes that stay where they are, as those of a mapped file.
pub trait Region: Send + Sync {
    /// All of them. They begin at a multiple of 4 bytes in memory; at one of 64, vectors of weights load twice as fast.
    fn bytes(&self) -> &[u8];
}

/// A weight as bytes, and what these mean.
#[derive(Clone, PartialEq)]
pub struct Stored<B> {
    /// The name of the form.
    pub form: String,
    /// `[out, in]`
    pub shape: [usize; 2],
    /// What each value is multiplied by.
    pub scale: f32,
    /// In the machine's own order of bytes.
    pub bytes: B,
}

/// The forms that have names here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Packed(Kind),
    F16,
    Fp8,
    Blocks(GgmlDType),
}

const FORMS: &[(&str, Form)] = &[
    ("packed f32", Form::Packed(Kind::F32)),
    ("packed bf16", Form::Packed(Kind::Bf16)),
    ("packed int8", Form::Packed(Kind::Int8)),
    ("packed int8 runs", Form::Packed(Kind::Int8Runs)),
    ("packed q4_0", Form::Packed(Kind::Blocks(Blocks::Q4_0))),
    ("packed q4_k", Form::Packed(Kind::Blocks(Blocks::Q4K))),
    ("packed q5_k", Form::Packed(Kind::Blocks(Blocks::Q5K))),
    ("packed q6_k", Form::Packed(Kind::Blocks(Blocks::Q6K))),
    ("f16", Form::F16),
    ("fp8", Form::Fp8),
    ("q4_0", Form::Blocks(GgmlDType::Q4_0)),
    ("q4_1", Form::Blocks(GgmlDType::Q4_1)),
    ("q5_0", Form::Blocks(GgmlDType::Q5_0)),
    ("q5_1", Form::Blocks(GgmlDType::Q5_1)),
    ("q8_0", Form::Blocks(GgmlDType::Q8_0)),
    ("q2_k", Form::Blocks(GgmlDType::Q2K)),
    ("q3_k", Form::Blocks(GgmlDType::Q3K)),
    ("q4_k", Form::Blocks(GgmlDType::Q4K)),
    ("q5_k", Form::Blocks(GgmlDType::Q5K)),
    ("q6_k", Form::Blocks(GgmlDType::Q6K)),
];

impl Matrix {
    /// The weight as bytes; `None` for one that is not in main memory, or in a form that has no name here.
    pub fn stored(&self) -> Result<Option<Stored<Cow<'_, [u8]>>>> {
        let (form, bytes) = match self {
            Self::Packed(packed) => {
                (Form::Packed(packed.kind()), Cow::Borrowed(bytemuck::cast_slice(packed.units())))
            }
            Self::Quantized(blocks) if blocks.device().is_cpu() => {
                (Form::Blocks(blocks.dtype()), blocks.data()?)
            }
            Self::Dense(values) if values.device().is_cpu() && values.dtype() == DType::F16 => {
                let values = values.flatten_all()?.to_vec1::<half::f16>()?;
                (Form::F16, Cow::Owned(bytemuck::cast_slice(&values).to_vec()))
            }
            Self::Fp8 { values, .. } if values.device().is_cpu() => {
                let found = Values::of(values);
                let (CpuStorage::U8(all), range) = found.cpu()? else { return Ok(None) };
                (Form::Fp8, Cow::Owned(all[range].to_vec()))
            }
            Self::Dense(_) | Self::Quantized(_) | Self::Fp8 { .. } => return Ok(None),
            #[cfg(feature = "cuda")]
            Self::Fp8Rows { .. } => return Ok(None),
        };
        let Some((name, _)) = FORMS.iter().find(|(_, known)| *known == form) else {
            return Ok(None);
        };
        let (out, width) = self.shape()?;
        Ok(Some(Stored { form: (*name).into(), shape: [out, width], scale: self.scale(), bytes }))
    }

    /// The weight that [`Matrix::stored`] told; `None` when the bytes are not that. Packed weights stay in the region, the
    /// other forms are copied.
    pub fn from_stored(stored: Stored<Arc<dyn Region>>) -> Result<Option<Self>> {
        let Stored { form, shape: [out, width], scale, bytes } = stored;
        let Some((_, form)) = FORMS.iter().find(|(name, _)| *name == form) else {
            return Ok(None);
        };
        let count = out * width;
        let size = bytes.bytes().len();
        Ok(match form {
            Form::Packed(kind) => Packed::in_region(*kind, (out, width), bytes)
                .map(|packed| Self::Packed(Arc::new(packed))),
            Form::F16 if size == 2 * count => {
                let values = Tensor::from_raw_buffer(
                    bytes.bytes(),
                    DType::F16,
                    &[out, width],
                    &Device::Cpu,
                )?;
                Some(Self::Dense(values))
            }
            Form::Fp8 if size == count => {
                let values = Tensor::from_slice(bytes.bytes(), (out, width), &Device::Cpu)?;
                Some(Self::Fp8 { values, scale })
            }
            Form::Blocks(kind)
                if width % kind.block_size() == 0
                    && size == count / kind.block_size() * kind.type_size() =>
            {
                let data = Cow::Borrowed(bytes.bytes());
                let storage = QStorage::from_data(data, &Device::Cpu, *kind)?;
                Some(Self::Quantized(Arc::new(QTensor::new(storage, (out, width))?)))
            }
            _ => None,
        })
    }
}

impl Packed {
    /// A weight whose units lie in `region`; `None` when they are not so many.
    fn in_region(kind: Kind, shape: (usize, usize), region: Arc<dyn Region>) -> Option<Self> {
        let units = bytemuck::try_cast_slice::<u8, u32>(region.bytes()).ok()?.len();
        let whole = match kind {
            Kind::Blocks(format) => shape.1.is_multiple_of(format.layout().values),
            _ => true,
        };
        (whole && units == Self::units_of(kind, shape))
            .then(|| Self::new(kind, shape, Place::There(region)))
    }
}

impl<B> fmt::Debug for Stored<B> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Stored({}, {:?})", self.form, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at a multiple of 4.
    struct Words(Vec<u32>, usize);

    impl Region for Words {
        fn bytes(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[..self.1]
        }
    }

    fn region(bytes: &[u8]) -> Arc<dyn Region> {
        let mut words = vec![0u32; bytes.len().div_ceil(4)];
        bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Arc::new(Words(words, bytes.len()))
    }

    /// 35 x 256: a panel that is not full, and whole blocks of every format.
    fn forms() -> Vec<Matrix> {
        let values: Vec<f32> =
            (0..35 * 256).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 250.0).collect();
        let dense = Tensor::from_vec(values, (35, 256), &Device::Cpu).unwrap();
        let narrow = |kind| Matrix::Dense(dense.to_dtype(kind).unwrap());
        let blocks = |kind| Matrix::Quantized(Arc::new(QTensor::quantize(&dense, kind).unwrap()));
        let bytes: Vec<u8> = (0..35 * 256).map(|i| (i * 37 % 0x7f) as u8).collect();
        let values = Tensor::from_vec(bytes, (35, 256), &Device::Cpu).unwrap();
        let mut all = vec![narrow(DType::F32), narrow(DType::BF16), narrow(DType::F16)];
        all.push(Matrix::Fp8 { values, scale: 0.01 });
        all.extend(
            [GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::Q5K, GgmlDType::Q4K, GgmlDType::Q4_0]
                .map(blocks),
        );
        let int8 = Matrix::Dense(dense.clone()).to_int8().unwrap();
        all.into_iter().map(|form| form.packed().unwrap()).chain([int8]).collect()
    }

    #[test]
    fn every_form_comes_back_as_it_was() {
        for form in forms() {
            let stored = form.stored().unwrap().unwrap();
            let (name, shape) = (stored.form.clone(), stored.shape);
            let again = |bytes: &[u8]| {
                let (scale, bytes) = (stored.scale, region(bytes));
                Matrix::from_stored(Stored { form: name.clone(), shape, scale, bytes }).unwrap()
            };
            let back = again(&stored.bytes).unwrap();
            let values = |m: &Matrix| m.to_f32().unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(values(&back), values(&form), "{name}");
            assert_eq!(back.stored().unwrap().unwrap(), stored, "{name}");
            assert!(again(&stored.bytes[4..]).is_none(), "{name} cut short");
        }
    }

    #[test]
    fn blocks_that_are_not_whole_are_refused() {
        for (form, width) in [("packed q4_k", 100), ("packed q6_k", 300), ("packed q4_0", 40)] {
            let known = FORMS.iter().find(|(name, _)| *name == form);
            let Some((_, Form::Packed(kind))) = known else { panic!("{form}") };
            let bytes = region(&vec![0; 4 * Packed::units_of(*kind, (32, width))]);
            let stored = Stored { form: form.into(), shape: [32, width], scale: 1.0, bytes };
            assert!(Matrix::from_stored(stored).unwrap().is_none(), "{form} {width}");
        }
    }

    /// Fails when an order changes and [`PACKING`] does not: then both are to be changed here together.
    #[test]
    fn the_orders_are_those_that_packing_counts() {
        let sum = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            })
        };
        let found: Vec<_> = forms()
            .iter()
            .map(|form| form.stored().unwrap().unwrap())
            .filter(|stored| stored.form.starts_with("packed"))
            .map(|stored| (stored.form.clone(), sum(&stored.bytes)))
            .collect();
        let known = [
            ("packed f32", 8974383804843820640),
            ("packed bf16", 8070763580949044946),
            ("packed int8", 4919945762164064161),
            ("packed q6_k", 8431904325021424105),
            ("packed q5_k", 11203592051239380732),
            ("packed q4_k", 6928526343874479090),
            ("packed q4_0", 3532560567644105629),
            ("packed int8 runs", 5607399965117259975),
        ];
        let known: Vec<_> = known.map(|(form, sum)| (form.to_string(), sum)).into();
        assert_eq!((PACKING, found), (2, known));
    }
}

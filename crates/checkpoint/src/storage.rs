//! The forms in which matrices are kept in memory.

use std::fmt;
use std::str::FromStr;

use candle_core::quantized::GgmlDType;

use crate::Error;

/// The form in which matrices are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field's own names")]
pub enum Storage {
    /// As the file has them.
    AsStored,
    F32,
    Bf16,
    F16,
    /// fp8_e4m3fn with a scale for each matrix.
    Fp8,
    /// int8 with a float32 scale for each output and 2048 inputs: the fastest on processors that multiply it.
    Int8,
    Q8_0,
    Q6K,
    Q5K,
    Q4K,
    Q4_0,
}

const NAMES: &[(&str, Storage)] = &[
    ("auto", Storage::AsStored),
    ("f32", Storage::F32),
    ("bf16", Storage::Bf16),
    ("f16", Storage::F16),
    ("fp8", Storage::Fp8),
    ("int8", Storage::Int8),
    ("q8_0", Storage::Q8_0),
    ("q6_k", Storage::Q6K),
    ("q5_k", Storage::Q5K),
    ("q4_k", Storage::Q4K),
    ("q4_0", Storage::Q4_0),
];

impl Storage {
    /// The block format, for those that are one.
    pub(crate) fn blocks(self) -> Option<GgmlDType> {
        Some(match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q4_0 => GgmlDType::Q4_0,
            _ => return None,
        })
    }

    /// What a matrix with rows of `width` values is kept in: block formats need whole blocks, so that narrow or odd
    /// matrices fall back to smaller blocks, and those that fit none to bfloat16.
    pub(crate) fn for_width(self, width: usize) -> Self {
        match self.blocks() {
            Some(blocks) if width % blocks.block_size() == 0 => self,
            Some(_) if width % GgmlDType::Q8_0.block_size() == 0 => Self::Q8_0,
            Some(_) => Self::Bf16,
            None => self,
        }
    }

    /// Bytes that `count` values take.
    pub(crate) fn bytes(self, count: usize) -> u64 {
        let count = count as u64;
        match self {
            Self::AsStored | Self::F32 => 4 * count,
            Self::Bf16 | Self::F16 => 2 * count,
            Self::Fp8 => count,
            Self::Int8 => count + count / 512,
            _ => self.blocks().map_or(0, |b| count / b.block_size() as u64 * b.type_size() as u64),
        }
    }
}

impl FromStr for Storage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = NAMES.iter().find(|(name, _)| *name == text.to_ascii_lowercase());
        found.map(|(_, storage)| *storage).ok_or_else(|| Error::Storage(text.into()))
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, storage)| storage == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

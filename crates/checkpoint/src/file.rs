//! One file of weights: a directory of its tensors, from safetensors or GGUF.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::catch_unwind;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use safetensors::tensor::{Dtype, SafeTensors};

use crate::blob::{Blob, Bytes};
use crate::{Error, Result, Storage};

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Bf16,
    F16,
    /// fp8_e4m3fn
    Fp8,
    Blocks(GgmlDType),
    /// Something else, of which only markers and counters are made.
    Other,
}

impl Kind {
    /// What values of this kind are kept as where they stay as they are; blocks are [`Storage::AsStored`].
    pub(crate) fn form(self) -> Storage {
        match self {
            Self::F32 | Self::Other => Storage::F32,
            Self::Bf16 => Storage::Bf16,
            Self::F16 => Storage::F16,
            Self::Fp8 => Storage::Fp8,
            Self::Blocks(_) => Storage::AsStored,
        }
    }

    /// Bytes of `count` values, which are whole blocks.
    pub(crate) fn bytes(self, count: usize) -> usize {
        match self {
            Self::F32 => 4 * count,
            Self::Bf16 | Self::F16 => 2 * count,
            Self::Fp8 | Self::Other => count,
            Self::Blocks(b) => count / b.block_size() * b.type_size(),
        }
    }
}

/// Where a tensor's bytes are.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A file with its directory.
pub(crate) struct WeightFile {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
    /// Bytes before the tensors'.
    pub(crate) header: usize,
    pub(crate) entries: BTreeMap<String, Entry>,
    /// `__metadata__` of safetensors.
    pub(crate) metadata: BTreeMap<String, String>,
}

impl WeightFile {
    /// Reads the header and checks it against the file.
    pub(crate) fn open(blob: &Blob) -> Result<Self> {
        let bytes = blob.map()?;
        let name = blob.name();
        let is_gguf = bytes.all().starts_with(b"GGUF");
        if blob.ends_with("gguf") && !is_gguf {
            return Err(Error::broken(
                name,
                "is named .gguf but is not a GGUF file: download it again",
            ));
        }
        let file = if is_gguf { gguf(name, bytes)? } else { safetensors(name, bytes)? };
        match file.entries.iter().find(|(_, entry)| !is_countable(&entry.shape)) {
            None => Ok(file),
            Some((tensor, Entry { shape, .. })) => {
                let problem = format!("`{tensor}` {shape:?} has sides that no tensor can have");
                Err(Error::broken(&file.name, problem))
            }
        }
    }
}

/// Whether sides can be multiplied in any order, also where one of them is 0 and hides how large the others are.
fn is_countable(shape: &[usize]) -> bool {
    let values = shape.iter().try_fold(1usize, |all, side| all.checked_mul((*side).max(1)));
    values.is_some_and(|values| values.checked_mul(4).is_some())
}

fn safetensors(name: String, bytes: Bytes) -> Result<WeightFile> {
    let (header, metadata) = SafeTensors::read_metadata(bytes.all()).map_err(|e| {
        Error::broken(
            &name,
            format!(
                "is no whole safetensors file ({e}). It is cut short or damaged: download it again."
            ),
        )
    })?;
    let first = header + 8;
    let entry = |name: String, info: &safetensors::tensor::TensorInfo| {
        let kind = match info.dtype {
            Dtype::F32 => Kind::F32,
            Dtype::BF16 => Kind::Bf16,
            Dtype::F16 => Kind::F16,
            Dtype::F8_E4M3 => Kind::Fp8,
            _ => Kind::Other,
        };
        let (start, end) = info.data_offsets;
        (name, Entry { kind, shape: info.shape.clone(), start: first + start, end: first + end })
    };
    let entries = metadata.tensors().into_iter().map(|(name, info)| entry(name, info)).collect();
    let extra = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(WeightFile { name, bytes, header: first, entries, metadata: extra })
}

/// Reads a GGUF header. The reader divides by an alignment that the file chooses, so a panic counts as damage.
pub(crate) fn gguf_content(name: &str, bytes: &[u8]) -> Result<Content> {
    let damaged = |why: String| {
        Error::broken(name, format!("is no whole GGUF file ({why}): download it again"))
    };
    catch_unwind(|| Content::read(&mut Cursor::new(bytes)))
        .map_err(|_| damaged("its header contradicts itself".into()))?
        .map_err(|e| damaged(e.to_string()))
}

fn gguf(name: String, bytes: Bytes) -> Result<WeightFile> {
    let content = gguf_content(&name, bytes.all())?;
    let mut entries = BTreeMap::new();
    for (tensor, info) in &content.tensor_infos {
        let kind = match info.ggml_dtype {
            GgmlDType::F32 => Kind::F32,
            GgmlDType::F16 => Kind::F16,
            GgmlDType::BF16 => Kind::Bf16,
            blocks => Kind::Blocks(blocks),
        };
        let shape = info.shape.dims().to_vec();
        let cut = || {
            Error::broken(
                &name,
                format!("`{tensor}` reaches beyond the file's end: download it again"),
            )
        };
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(cut)?;
        if let Kind::Blocks(blocks) = kind
            && shape.last().is_none_or(|width| width % blocks.block_size() != 0)
        {
            return Err(Error::broken(
                &name,
                format!("`{tensor}` {shape:?} is not made of whole blocks"),
            ));
        }
        let place = content
            .tensor_data_offset
            .checked_add(info.offset)
            .and_then(|s| usize::try_from(s).ok());
        let start = place.ok_or_else(cut)?;
        let size = count.checked_mul(4).map(|_| kind.bytes(count)).ok_or_else(cut)?;
        let end =
            start.checked_add(size).filter(|end| *end <= bytes.all().len()).ok_or_else(cut)?;
        entries.insert(tensor.clone(), Entry { kind, shape, start, end });
    }
    let header = usize::try_from(content.tensor_data_offset).unwrap_or(usize::MAX);
    let header = header.min(bytes.all().len());
    Ok(WeightFile { name, bytes, header, entries, metadata: BTreeMap::new() })
}

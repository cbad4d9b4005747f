//! A tensor's values as a slice.

use candle_core::{CpuStorage, Layout, Result, Storage, StorageRef, Tensor};

/// Holds a tensor's storage while its values are read.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Values<'a> {
    /// `tensor` must lie in main memory, without gaps.
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The storage and the range of it that the tensor is.
    pub(crate) fn cpu(&self) -> Result<(&CpuStorage, std::ops::Range<usize>)> {
        match (&*self.storage, self.layout.contiguous_offsets()) {
            (Storage::Cpu(storage), Some((start, end))) => Ok((storage, start..end)),
            _ => candle_core::bail!("a kernel of the CPU takes contiguous tensors in main memory"),
        }
    }

    /// All values, float32.
    pub(crate) fn f32(&self) -> Result<&[f32]> {
        match self.cpu()? {
            (CpuStorage::F32(values), range) => Ok(&values[range]),
            (other, _) => {
                candle_core::bail!("a kernel takes float32 values and got {:?}", dtype(other))
            }
        }
    }

    /// The storage and how the tensor lies in it.
    pub(crate) fn f32_strided(&self) -> Result<(&[f32], &Layout)> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => Ok((values, self.layout)),
            _ => candle_core::bail!("a kernel of the CPU takes float32 values in main memory"),
        }
    }
}

fn dtype(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// `[batch, channels, height, width]` as `[batch, height, width, channels]` without gaps: a view where it lies so already.
pub(crate) fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

//! What there is to compute on beside the processor.

use candle_core::{Device, Result};

/// Opens NVIDIA's GPU `index`. The error says which library or GPU is missing.
pub fn open_cuda(index: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    {
        use crate::cuda::gpu;
        let shown = gpu::shown()?;
        match shown.get(index) {
            None if shown.is_empty() => candle_core::bail!("the driver shows no GPU"),
            None => candle_core::bail!(
                "there is no GPU {index}: the driver shows {}, counted from 0",
                shown.len()
            ),
            Some(Some(why)) => candle_core::bail!("{why}"),
            Some(None) => gpu::open(index),
        }
    }
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!(
        "GPU {index} is out of reach: this program was built without the feature `cuda`"
    )
}

/// NVIDIA's GPUs that this program can use here, by the driver's numbers: none where it was built without the feature `cuda`, where a library is
/// missing, and where all are too old.
pub fn cuda_devices() -> Vec<usize> {
    #[cfg(feature = "cuda")]
    let shown = crate::cuda::gpu::shown().unwrap_or_default();
    #[cfg(not(feature = "cuda"))]
    let shown: Vec<Option<String>> = Vec::new();
    let usable = shown.iter().enumerate().filter(|(_, why)| why.is_none());
    usable.map(|(index, _)| index).collect()
}

/// Free and all bytes of `device`'s own memory, after giving back what kernels keep for their next results; `None` where it computes in
/// main memory, or does not tell.
pub fn device_memory(device: &Device) -> Option<(u64, u64)> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => crate::cuda::gpu::memory(cuda).ok(),
        _ => None,
    }
}

/// What `device` calls itself; `None` for a processor.
pub fn device_name(device: &Device) -> Option<String> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => crate::cuda::gpu::name(cuda).ok(),
        _ => None,
    }
}

/// Whether `device` multiplies 8-bit floats, which [`crate::Matrix::to_fp8_rows`] then makes of weights.
pub fn multiplies_fp8(device: &Device) -> bool {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::gpu::multiplies_fp8(device).unwrap_or(false),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_no_memory_of_its_own_and_no_eight_bit_floats() {
        assert_eq!(device_memory(&Device::Cpu), None);
        assert_eq!(device_name(&Device::Cpu), None);
        assert!(!multiplies_fp8(&Device::Cpu));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_that_says_why() {
        let beyond = cuda_devices().len() + 99;
        let error = open_cuda(beyond).unwrap_err().to_string();
        let why = ["cannot be opened", "no GPU", "counted from 0", "without the feature"];
        assert!(why.iter().any(|why| error.contains(why)), "{error}");
    }
}

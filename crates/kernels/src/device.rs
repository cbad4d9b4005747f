//! What there is to compute on beside the processor.

use candle_core::{Device, Result};

/// Opens NVIDIA's GPU `index`. The error says which library or GPU is missing.
pub fn open_cuda(index: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    {
        use crate::cuda::gpu;
        let missing = gpu::missing();
        if !missing.is_empty() {
            candle_core::bail!("{} cannot be opened on this machine", missing.join(", "));
        }
        match gpu::count() {
            0 => candle_core::bail!("the driver shows no GPU"),
            count if index >= count => candle_core::bail!(
                "the driver shows {count} GPUs, the last of which is {}",
                count - 1
            ),
            _ => gpu::open(index),
        }
    }
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!(
        "GPU {index} is out of reach: this program was built without the feature `cuda`"
    )
}

/// How many GPUs of NVIDIA's this program can use here: 0 where it was built without the feature `cuda`, or where a library is missing.
pub fn cuda_devices() -> usize {
    #[cfg(feature = "cuda")]
    let count = crate::cuda::gpu::count();
    #[cfg(not(feature = "cuda"))]
    let count = 0;
    count
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
        let count = cuda_devices();
        let error = open_cuda(count).unwrap_err().to_string();
        let why = ["cannot be opened", "no GPU", "the last of which", "without the feature"];
        assert!(why.iter().any(|why| error.contains(why)), "{error}");
    }
}

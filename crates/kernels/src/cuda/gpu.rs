//! NVIDIA's GPUs: what each has beside candle's own device, and launches on it.
//!
//! `unsafe` stands here for what the driver takes on trust: addresses of memory on the GPU, and that arguments are those of the kernel. A
//! device opened by [`open`] has one stream, on which everything happens in the order in which it was asked for, so that memory may be given
//! back as soon as its last use is asked for.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::error::Error as _;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::sys as lt;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
    result, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, CudaStorage, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Device, Error, Result, Shape, Storage, Tensor};

use super::call::{Arg, Call, Kind};
use super::product::Library;
use super::wanted::{self, OLDEST};

/// All kernels for all generations.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// The oldest that multiplies 8-bit floats.
const OLDEST_FP8: (i32, i32) = (8, 9);

/// A GPU as kernels see it.
pub(crate) struct Gpu {
    pub(crate) device: CudaDevice,
    pub(super) library: Library,
    capability: (i32, i32),
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
}

/// The GPUs that the driver shows, in its order, and of each why it is of no use here, if it is not. The error says what keeps this program from
/// all of them. Asked once: opening the libraries takes time.
pub(crate) fn shown() -> Result<Vec<Option<String>>> {
    static SHOWN: OnceLock<std::result::Result<Vec<Option<String>>, String>> = OnceLock::new();
    SHOWN.get_or_init(look).clone().map_err(Error::Msg)
}

fn look() -> std::result::Result<Vec<Option<String>>, String> {
    // SAFETY: this opens libraries of the system, whose start-up code is trusted as much as that of every program that uses them.
    let open = |file: &str| match unsafe { libloading::Library::new(file) } {
        Ok(_) => Ok(()),
        // The system's own words, as of a library that this one needs.
        Err(why) => Err(why.source().map_or(why.to_string(), ToString::to_string)),
    };
    let mut version = 0;
    let wanting = wanted::missing(open).or_else(|| {
        // SAFETY: both are there, and any version of them has these calls, which need no GPU.
        unsafe { sys::cuDriverGetVersion(&raw mut version) };
        wanted::of_driver(version)
            .or_else(|| wanted::of_library(unsafe { lt::cublasLtGetVersion() }))
    });
    if let Some(wanting) = wanting {
        return Err(wanting);
    }
    let failed = |why: result::DriverError| {
        format!(
            "NVIDIA's driver fails with {:?}; `nvidia-smi` tells whether it works at all",
            why.0
        )
    };
    match result::init() {
        Err(result::DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(Vec::new()),
        started => started.map_err(failed)?,
    }
    let count = result::device::get_count().map_err(failed)?;
    (0..count).map(|index| of_no_use(index).map_err(failed)).collect()
}

/// Why the driver's GPU `index` is of no use here, if it is not.
fn of_no_use(index: i32) -> std::result::Result<Option<String>, result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(index)?;
    // SAFETY: the driver gave the device just now.
    let capability = unsafe {
        let attribute = |which| result::device::get_attribute(device, which);
        (attribute(MAJOR)?, attribute(MINOR)?)
    };
    Ok(wanted::of_gpu(&result::device::get_name(device)?, capability))
}

/// GPU `index`, with one stream, and memory that stays with the program once it has it. Opened again it is the same.
pub(crate) fn open(index: usize) -> Result<Device> {
    static OPEN: Mutex<Vec<(usize, Device)>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = open.iter().find(|(known, _)| *known == index) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(index)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: there is one stream, so that nothing runs beside what was asked for before.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda)?;
    open.push((index, device.clone()));
    Ok(device)
}

/// Otherwise the driver gives all memory back to the system whenever the program waits for the GPU.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let mut most = u64::MAX;
    let context = device.cuda_stream().context().clone();
    // SAFETY: the device is open, and the attribute is a number of 64 bits.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let value = (&raw mut most).cast::<c_void>();
        result::mem_pool::set_attribute(pool, attribute, value).w()
    }
}

/// Gives memory that nothing uses back to the system.
pub(crate) fn give_back_memory(device: &CudaDevice) -> Result<()> {
    let context = device.cuda_stream().context().clone();
    device.cuda_stream().synchronize().w()?;
    // SAFETY: the device is open.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        result::mem_pool::trim_to(pool, 0).w()
    }
}

/// Free and all bytes of a GPU's memory.
pub(crate) fn memory(device: &CudaDevice) -> Result<(u64, u64)> {
    give_back_memory(device)?;
    let (free, all) = device.cuda_stream().context().mem_get_info().w()?;
    Ok((free as u64, all as u64))
}

/// `NVIDIA H200, compute capability 9.0`.
pub(crate) fn name(device: &CudaDevice) -> Result<String> {
    let stream = device.cuda_stream();
    let (major, minor) = stream.context().compute_capability().w()?;
    Ok(format!("{}, compute capability {major}.{minor}", stream.context().name().w()?))
}

/// What kernels need of `device`; `None` where it is no GPU of NVIDIA's, or an older one than they are for. It is made when it is
/// first asked for and kept as long as the program runs, as the driver keeps the device.
pub(crate) fn of(device: &Device) -> Result<Option<Arc<Gpu>>> {
    type Known = Vec<(DeviceId, Option<Arc<Gpu>>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let Device::Cuda(cuda) = device else { return Ok(None) };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, gpu)) = known.iter().find(|(id, _)| *id == cuda.id()) {
        return Ok(gpu.clone());
    }
    let gpu = Gpu::new(cuda)?.map(Arc::new);
    known.push((cuda.id(), gpu.clone()));
    Ok(gpu)
}

/// Whether `device` multiplies 8-bit floats.
pub(crate) fn multiplies_fp8(device: &Device) -> Result<bool> {
    Ok(of(device)?.is_some_and(|gpu| gpu.capability >= OLDEST_FP8))
}

impl Gpu {
    fn new(device: &CudaDevice) -> Result<Option<Self>> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let capability = context.compute_capability().w()?;
        if capability < OLDEST {
            return Ok(None);
        }
        let module = context.load_module(Ptx::from_binary(KERNELS.to_vec())).w()?;
        let (functions, library) = (Mutex::default(), Library::new(device)?);
        Ok(Some(Self { device: device.clone(), library, capability, module, functions }))
    }

    /// Whether it multiplies 8-bit floats.
    pub(crate) fn multiplies_fp8(&self) -> bool {
        self.capability >= OLDEST_FP8
    }

    /// Asks for a launch. Buffers are addresses from [`Gpu::address`] and [`Room::address`].
    pub(crate) fn launch(&self, call: &Call<u64>) -> Result<()> {
        let function = self.function(call)?;
        let stream = self.device.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        for arg in &call.args {
            match arg {
                Arg::Buffer(address) => launch.arg(address),
                Arg::Null => launch.arg(&0u64),
                Arg::I32(number) => launch.arg(number),
                Arg::I64(number) => launch.arg(number),
                Arg::F32(number) => launch.arg(number),
            };
        }
        let [x, y, z] = call.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (call.threads, 1, 1),
            shared_mem_bytes: call.shared_bytes,
        };
        // SAFETY: the arguments are those that the call's maker lists for this kernel, which tests hold against the kernel's
        // own parameters; buffers were allocated for as many values as it writes.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }

    fn function(&self, call: &Call<u64>) -> Result<CudaFunction> {
        /// Shared memory that a kernel may have without asking.
        const UNASKED_BYTES: u32 = 48 << 10;
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&call.kernel) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(&call.kernel).w()?;
        if call.shared_bytes > UNASKED_BYTES {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, call.shared_bytes as i32).w()?;
        }
        functions.insert(call.kernel.clone(), function.clone());
        Ok(function)
    }

    /// Where the values of `x` begin, and their kind; `x` must be contiguous, or its strides are the caller's to follow.
    pub(crate) fn address(&self, x: &Tensor) -> Result<(u64, Kind)> {
        Ok(match x.dtype() {
            DType::F32 => (self.address_of::<f32>(x)?, Kind::F32),
            DType::BF16 => (self.address_of::<half::bf16>(x)?, Kind::Bf16),
            other => {
                candle_core::bail!("a GPU's kernel takes float32 or bfloat16 and got {other:?}")
            }
        })
    }

    /// The same for float32 alone.
    pub(crate) fn address_f32(&self, x: &Tensor) -> Result<u64> {
        self.address_of::<f32>(x)
    }

    /// The same for any values.
    pub(crate) fn address_of<T: CudaDType>(&self, x: &Tensor) -> Result<u64> {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("a GPU's kernel got a tensor that is not on the GPU")
        };
        let stream = self.device.cuda_stream();
        let (start, _used) = storage.as_cuda_slice::<T>()?.device_ptr(&stream);
        Ok(start + (layout.start_offset() * size_of::<T>()) as u64)
    }

    /// Memory for a result of `shape`, which is written before it is read.
    pub(crate) fn room<T: CudaDType + DeviceRepr>(
        &self,
        shape: impl Into<Shape>,
    ) -> Result<Room<T>> {
        let shape = shape.into();
        // SAFETY: whoever asks has every value written by the next launch.
        let values = unsafe { self.device.alloc::<T>(shape.elem_count())? };
        Ok(Room { values, shape, device: self.device.clone() })
    }
}

/// Memory of a result.
pub(crate) struct Room<T> {
    values: CudaSlice<T>,
    shape: Shape,
    device: CudaDevice,
}

impl<T: CudaDType> Room<T> {
    pub(crate) fn address(&self) -> u64 {
        let stream = self.device.cuda_stream();
        self.values.device_ptr(&stream).0
    }

    /// The result, once its writing was asked for.
    pub(crate) fn tensor(self) -> Tensor {
        let storage = CudaStorage::wrap_cuda_slice(self.values, self.device);
        Tensor::from_storage(Storage::Cuda(storage), self.shape, BackpropOp::none(), false)
    }
}

//! Products of rows and weights by cuBLASLt: bfloat16, and 8-bit floats with a scale for each row and each output.
//!
//! `unsafe` stands here for a library of C: handles that live as long as this one's owner, and addresses of memory on the GPU.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, Error, Result};

use super::call::Kind;

/// What NVIDIA advises for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// The library on one GPU.
pub(super) struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    device: CudaDevice,
    /// What was chosen for products asked for before; nothing where the library has no way.
    algorithms: Mutex<HashMap<Form, Option<sys::cublasLtMatmulAlgo_t>>>,
}

// SAFETY: the library allows a handle to be used from several threads; the workspace is used on one stream only.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// How the values of a product are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Values {
    Bf16,
    /// e4m3; the library multiplies by a float32 for each row and each output, at these addresses.
    Scaled,
    /// e4m3, and nobody multiplies.
    Unscaled,
}

/// What an algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    rows: usize,
    outputs: usize,
    depth: usize,
    values: Values,
    result: Kind,
    /// Bytes that the addresses of weight, inputs and result are multiples of.
    alignments: [u32; 3],
}

/// Bytes that `address` is a multiple of, as far as any algorithm cares.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// `y = x · wᵀ` for `x`: `[rows, depth]`, `w`: `[outputs, depth]`, `y`: `[rows, outputs]`.
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) outputs: usize,
    pub(super) depth: usize,
    pub(super) values: Values,
    pub(super) x: u64,
    pub(super) w: u64,
    /// Of rows and outputs, for [`Values::Scaled`].
    pub(super) scales: Option<(u64, u64)>,
    pub(super) y: (u64, Kind),
}

impl Library {
    pub(super) fn new(device: &CudaDevice) -> Result<Self> {
        let handle = told(result::create_handle())?;
        // SAFETY: what is in the workspace matters to nobody.
        let workspace = unsafe { device.alloc::<u8>(WORKSPACE_BYTES)? };
        Ok(Self { handle, workspace, device: device.clone(), algorithms: Mutex::default() })
    }

    /// Asks for a product; `false` where the library has no way for it on this GPU, and nothing was done.
    pub(super) fn multiply(&self, product: &Product) -> Result<bool> {
        let Product { rows, outputs, depth, values, x, w, scales, y: (y, kind) } = *product;
        let alignments = [w, x, y].map(alignment);
        let form = Form { rows, outputs, depth, values, result: kind, alignments };
        // The library counts columns first: there the weight is [depth, outputs], to be turned, and the inputs are [depth, rows].
        let (narrow, wide) = (
            match values {
                Values::Bf16 => sys::cudaDataType::CUDA_R_16BF,
                Values::Scaled | Values::Unscaled => sys::cudaDataType::CUDA_R_8F_E4M3,
            },
            match kind {
                Kind::F32 => sys::cudaDataType::CUDA_R_32F,
                Kind::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            },
        );
        let descriptor = Descriptor::new(values, scales)?;
        let of_w = Matrix::new(narrow, depth, outputs)?;
        let of_x = Matrix::new(narrow, depth, rows)?;
        let of_y = Matrix::new(wide, outputs, rows)?;
        let Some(algorithm) = self.algorithm(form, &descriptor, [&of_w, &of_x, &of_y]) else {
            return Ok(false);
        };
        let (one, zero) = (1f32, 0f32);
        let stream = self.device.cuda_stream();
        let (workspace, _used) = self.workspace.device_ptr(&stream);
        // SAFETY: every description is of the memory at its address, which lives until the stream has come to its release.
        unsafe {
            told(result::matmul(
                self.handle,
                descriptor.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                w as *const c_void,
                of_w.0,
                x as *const c_void,
                of_x.0,
                y as *const c_void,
                of_y.0,
                y as *mut c_void,
                of_y.0,
                &raw const algorithm,
                workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cu_stream().cast(),
            ))?;
        }
        Ok(true)
    }

    fn algorithm(
        &self,
        form: Form,
        descriptor: &Descriptor,
        [w, x, y]: [&Matrix; 3],
    ) -> Option<sys::cublasLtMatmulAlgo_t> {
        let mut known = self.algorithms.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(form).or_insert_with(|| {
            let preference = Preference::new(form.alignments).ok()?;
            // SAFETY: all of them are alive.
            let found = unsafe {
                result::get_matmul_algo_heuristic(
                    self.handle,
                    descriptor.0,
                    w.0,
                    x.0,
                    y.0,
                    y.0,
                    preference.0,
                )
            };
            found.ok().map(|found| found.algo)
        })
    }
}

fn told<T>(result: std::result::Result<T, result::CublasError>) -> Result<T> {
    result.map_err(|why| Error::Msg(format!("cuBLASLt: {why:?}")))
}

/// A description of the operation.
struct Descriptor(sys::cublasLtMatmulDesc_t);

impl Descriptor {
    fn new(values: Values, scales: Option<(u64, u64)>) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let created = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F);
        let descriptor = Self(told(created)?);
        // CUBLAS_OP_T, which these bindings do not name.
        descriptor.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        if values != Values::Bf16 {
            // Sums of a few products in fewer bits than float32: twice the speed on Hopper.
            descriptor.set(Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, &1i8)?;
        }
        if let (Values::Scaled, Some((of_rows, of_outputs))) = (values, scales) {
            let each = sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
            descriptor.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &each)?;
            descriptor.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &each)?;
            descriptor.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &of_outputs)?;
            descriptor.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &of_rows)?;
        }
        Ok(descriptor)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<()> {
        let value: *const T = value;
        // SAFETY: each attribute is given a value of the size that the library's manual says.
        told(unsafe {
            result::set_matmul_desc_attribute(self.0, attribute, value.cast(), size_of::<T>())
        })
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it is released once. A failure would leave a few bytes behind.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A description of a matrix without gaps, columns first.
struct Matrix(sys::cublasLtMatrixLayout_t);

impl Matrix {
    fn new(kind: sys::cudaDataType, rows: usize, columns: usize) -> Result<Self> {
        let created = result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64);
        Ok(Self(told(created)?))
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// How much workspace an algorithm may take, and what it may rely on.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    /// `alignments` of weight, inputs and result; untold, the library takes 256 bytes for granted.
    fn new([w, x, y]: [u32; 3]) -> Result<Self> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(told(result::create_matmul_pref())?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &w)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &x)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &y)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &y)?;
        Ok(preference)
    }

    fn set<T>(&self, name: sys::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Result<()> {
        let value: *const T = value;
        // SAFETY: each attribute is given a value of the size that the library's manual says.
        told(unsafe {
            result::set_matmul_pref_attribute(self.0, name, value.cast(), size_of::<T>())
        })
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

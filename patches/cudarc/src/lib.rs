//! [cudarc](https://docs.rs/cudarc) with one difference: NVIDIA's libraries are opened when they are first used.
//!
//! candle asks for `dynamic-linking`, and a program linked to libraries does not start where they are missing. Here that
//! word means `dynamic-loading`, so that one program serves machines with and without CUDA. `scripts/build_cuda` puts it in place.

pub use real::*;

/// candle has a generator of random numbers for every device it opens, and nobody asks it for any: here cuRAND is opened when somebody
/// does, so that it need not be there, nor CUDA's runtime, which it is linked to.
pub mod curand {
    use std::sync::{Arc, OnceLock};

    pub use real::curand::{result, safe, sys};
    use real::driver::{CudaStream, DevicePtrMut};
    use result::CurandError;

    /// A generator that is made when it is first asked for numbers.
    pub struct CudaRng {
        seed: u64,
        stream: Arc<CudaStream>,
        made: OnceLock<safe::CudaRng>,
    }

    impl CudaRng {
        /// As the real one's.
        pub fn new(seed: u64, stream: Arc<CudaStream>) -> Result<Self, CurandError> {
            Ok(Self { seed, stream, made: OnceLock::new() })
        }

        fn made(&self) -> Result<&safe::CudaRng, CurandError> {
            if let Some(made) = self.made.get() {
                return Ok(made);
            }
            let made = safe::CudaRng::new(self.seed, self.stream.clone())?;
            Ok(self.made.get_or_init(|| made))
        }

        /// As the real one's.
        pub fn fill_with_uniform<T, Dst: DevicePtrMut<T>>(
            &self,
            to: &mut Dst,
        ) -> Result<(), CurandError>
        where
            sys::curandGenerator_t: result::UniformFill<T>,
        {
            self.made()?.fill_with_uniform(to)
        }

        /// As the real one's.
        pub fn fill_with_normal<T, Dst: DevicePtrMut<T>>(
            &self,
            to: &mut Dst,
            mean: T,
            deviation: T,
        ) -> Result<(), CurandError>
        where
            sys::curandGenerator_t: result::NormalFill<T>,
        {
            self.made()?.fill_with_normal(to, mean, deviation)
        }
    }
}

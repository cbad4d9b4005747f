//! Operations that make each row of their result from a few rows of their inputs: norms, SwiGLU, rotations. They run
//! over all rows at once, or inside the packing of a product that takes their result.

use candle_core::{Device, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::memory::unwritten;
use crate::simd::{Level, Simd, Work};

/// Makes rows of float32.
pub(crate) trait Source: Sync {
    /// Writes row `index` to `to`; runs with the instructions of `simd`.
    fn row<S: Simd>(&self, simd: S, index: usize, to: &mut [f32]);
}

/// Rows as they are.
pub(crate) struct Plain<'a> {
    pub(crate) values: &'a [f32],
}

impl Source for Plain<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.values[index * to.len()..][..to.len()]);
    }
}

/// Values that a thread makes before it looks for other work.
const AT_ONCE: usize = 1 << 14;

/// All rows of `source` as a tensor of `shape`, whose last dimension is a row.
pub(crate) fn collect(
    level: Level,
    source: &impl Source,
    shape: impl Into<Shape>,
) -> Result<Tensor> {
    let shape = shape.into();
    let width = shape.dims().last().copied().unwrap_or(1).max(1);
    let mut out = unwritten(shape.elem_count());
    let rows = AT_ONCE.div_ceil(width);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, out)| {
        level.run(Run { source, first: i * rows, width, out });
    });
    Tensor::from_vec(out, shape, &Device::Cpu)
}

/// Some rows.
struct Run<'a, T> {
    source: &'a T,
    first: usize,
    width: usize,
    out: &'a mut [f32],
}

impl<T: Source> Work for Run<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (i, row) in self.out.chunks_exact_mut(self.width).enumerate() {
            self.source.row(simd, self.first + i, row);
        }
    }
}

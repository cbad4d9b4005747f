//! The pixels of an image on their way into a convolution: normed and through SiLU, doubled, with zeros around them or
//! those of the other edge.

use std::ops::Range;

use super::Wrap;
use crate::group_norm::Affine;
use crate::math::silu;

/// An image, `[height, width, channels]`, and what is done to it.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) x: &'a [f32],
    pub(super) affine: Option<&'a Affine>,
    /// Height, width and channels.
    pub(super) dims: [usize; 3],
    /// 2 where every pixel becomes 2 × 2.
    pub(super) times: usize,
    /// Pixels added at the left and top; there are as many as are asked for at the right and bottom.
    pub(super) padding: usize,
    /// Where those are the other edge's; zeros elsewhere.
    pub(super) wrap: Wrap,
    /// Values that a prepared pixel takes; those beyond the channels are zero.
    pub(super) pixel: usize,
}

impl Input<'_> {
    /// Pixels `xs` of `row`, both counted in the padded image.
    #[inline(always)]
    pub(super) fn prepare(&self, row: usize, xs: Range<usize>, to: &mut [f32]) {
        let [height, width, channels] = self.dims;
        let Some(row) = self.place(row, self.times * height, self.wrap.rows) else {
            to.fill(0.0);
            return;
        };
        let from = &self.x[row / self.times * width * channels..][..width * channels];
        for (i, x) in xs.enumerate() {
            let (before, to) = to[..(i + 1) * self.pixel].split_at_mut(i * self.pixel);
            match self.place(x, self.times * width, self.wrap.columns) {
                None => to.fill(0.0),
                Some(x) if i > 0 && self.times == 2 && x % 2 == 1 => {
                    to.copy_from_slice(&before[(i - 1) * self.pixel..]);
                }
                Some(x) => self.pixel(&from[x / self.times * channels..][..channels], to),
            }
        }
    }

    /// Where position `at` of the padded image lies in the image's `length`; `None` where there are zeros.
    #[inline(always)]
    fn place(&self, at: usize, length: usize, wraps: bool) -> Option<usize> {
        let at = at.wrapping_sub(self.padding);
        match at < length {
            true => Some(at),
            // Before the first one the difference has wrapped around, and does so again.
            false => wraps.then(|| at.wrapping_add(length) % length),
        }
    }

    #[inline(always)]
    fn pixel(&self, from: &[f32], to: &mut [f32]) {
        let (values, rest) = to.split_at_mut(from.len());
        match self.affine {
            Some(Affine { factors, offsets }) => {
                let affine = factors.iter().zip(offsets);
                let values = values.iter_mut().zip(from.iter().zip(affine));
                values.for_each(|(v, (x, (f, o)))| *v = silu(x * f + o));
            }
            None => values.copy_from_slice(from),
        }
        rest.fill(0.0);
    }
}

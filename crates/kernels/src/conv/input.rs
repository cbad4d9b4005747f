//! The pixels of an image on their way into a convolution: normed and through SiLU, doubled, with zeros around them.

use std::ops::Range;

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
    /// Pixels of zeros at the left and top; there are as many as are asked for at the right and bottom.
    pub(super) padding: usize,
    /// Values that a prepared pixel takes; those beyond the channels are zero.
    pub(super) pixel: usize,
}

impl Input<'_> {
    /// Pixels `xs` of `row`, both counted in the padded image.
    #[inline(always)]
    pub(super) fn prepare(&self, row: usize, xs: Range<usize>, to: &mut [f32]) {
        let [height, width, channels] = self.dims;
        let row = row.wrapping_sub(self.padding);
        if row >= self.times * height {
            to.fill(0.0);
            return;
        }
        let from = &self.x[row / self.times * width * channels..][..width * channels];
        for (i, x) in xs.enumerate() {
            let x = x.wrapping_sub(self.padding);
            let (before, to) = to[..(i + 1) * self.pixel].split_at_mut(i * self.pixel);
            if x >= self.times * width {
                to.fill(0.0);
            } else if i > 0 && self.times == 2 && x % 2 == 1 {
                to.copy_from_slice(&before[(i - 1) * self.pixel..]);
            } else {
                self.pixel(&from[x / self.times * channels..][..channels], to);
            }
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

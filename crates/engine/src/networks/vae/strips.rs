//! Decoding in strips: the same numbers in less memory.
//!
//! The widest levels are computed in strips of rows that overlap by what their convolutions see. A group norm is over the
//! whole picture: its statistics are gathered from all strips before any is normed, for which strips are computed again.
//! Nothing is blended, and there are no seams.

use std::ops::Range;

use candle_core::{Device, Tensor};
use zoetrope_kernels::{Affine, Statistics};

use super::{Decoder, Resnet, UpBlock};
use crate::layers::{Conv2d, GroupNorm};
use crate::{Result, Watch};

/// A picture of which any rows can be had.
enum Rows<'a> {
    There(&'a Tensor),
    /// Twice its size, through a convolution.
    Doubled(&'a Tensor, &'a Conv2d),
}

impl Rows<'_> {
    /// Channels, rows and columns.
    fn shape(&self) -> Result<[usize; 3]> {
        let (Self::There(x) | Self::Doubled(x, _)) = self;
        let (_, channels, height, width) = x.dims4()?;
        let times = if matches!(self, Self::There(_)) { 1 } else { 2 };
        Ok([channels, times * height, times * width])
    }

    /// These rows, `[1, channels, rows, width]`.
    fn get(&self, rows: Range<usize>) -> Result<Tensor> {
        match self {
            Self::There(x) => Ok(x.narrow(2, rows.start, rows.len())?),
            Self::Doubled(x, conv) => {
                let seen = around(&rows, 1, 2 * x.dim(2)?);
                let from = seen.start / 2..seen.end.div_ceil(2);
                let y = conv.forward_doubled(&x.narrow(2, from.start, from.len())?)?;
                Ok(y.narrow(2, rows.start - 2 * from.start, rows.len())?)
            }
        }
    }

    /// The statistics of all rows, and the norm with them.
    fn normed(&self, norm: &GroupNorm, cut: &Cut) -> Result<Affine> {
        Ok(norm.kernel().with(&cut.statistics(|rows| self.get(rows))?)?)
    }
}

/// `rows` and so many more on each side, as far as there are any.
fn around(rows: &Range<usize>, more: usize, height: usize) -> Range<usize> {
    rows.start.saturating_sub(more)..(rows.end + more).min(height)
}

/// How a level is cut.
struct Cut<'a> {
    height: usize,
    rows: usize,
    watch: &'a dyn Watch,
}

impl Cut<'_> {
    /// Makes every strip; between two of them the work may be stopped.
    fn each(&self, mut strip: impl FnMut(Range<usize>) -> Result<Tensor>) -> Result<()> {
        (0..self.height).step_by(self.rows).try_for_each(|start| {
            let strip = strip(start..(start + self.rows).min(self.height))?;
            self.watch.stage(&"strip", &strip)
        })
    }

    /// The statistics of all strips.
    fn statistics(
        &self,
        mut strip: impl FnMut(Range<usize>) -> Result<Tensor>,
    ) -> Result<Statistics> {
        let mut statistics = Statistics::default();
        self.each(|rows| {
            let strip = strip(rows)?;
            statistics.add(&strip)?;
            Ok(strip)
        })?;
        Ok(statistics)
    }

    /// A picture of `channels` and `width` from its strips.
    fn gather(
        &self,
        (channels, width): (usize, usize),
        mut strip: impl FnMut(Range<usize>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut values: Vec<f32> = Vec::with_capacity(self.height * width * channels);
        self.each(|rows| {
            let strip = strip(rows)?;
            let last = strip.permute((0, 2, 3, 1))?; // [1, rows, width, channels]
            values.extend(last.flatten_all()?.to_vec1::<f32>()?);
            Ok(strip)
        })?;
        let shape = (1, self.height, width, channels);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.permute((0, 3, 1, 2))?)
    }
}

/// The convolution, which keeps the size, of rows `rows` of what `get` gives, normed.
fn convolved(
    conv: &Conv2d,
    (norm, height): (&Affine, usize),
    rows: &Range<usize>,
    residual: Option<&Tensor>,
    get: impl FnOnce(Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    let seen = around(rows, 1, height);
    let (from, length) = (rows.start - seen.start, rows.len());
    let y = conv.forward_affine(norm, &get(seen)?)?.narrow(2, from, length)?;
    Ok(match residual {
        Some(residual) => (y + residual)?,
        None => y,
    })
}

impl Resnet {
    fn in_strips(&self, x: &Rows, cut: &Cut) -> Result<Tensor> {
        let [_, height, width] = x.shape()?;
        let norm1 = x.normed(&self.norm1, cut)?;
        let inner = |rows: Range<usize>| {
            convolved(&self.conv1, (&norm1, height), &rows, None, |rows| x.get(rows))
        };
        let norm2 = self.norm2.kernel().with(&cut.statistics(inner)?)?;
        cut.gather((self.conv2.outputs(), width), |rows| {
            let x = x.get(rows.clone())?;
            let shortcut = match &self.conv_shortcut {
                Some(shortcut) => shortcut.forward(&x)?,
                None => x,
            };
            convolved(&self.conv2, (&norm2, height), &rows, Some(&shortcut), inner)
        })
    }
}

impl UpBlock {
    /// The block's result before it is doubled.
    fn in_strips(&self, x: &Rows, most: usize, watch: &dyn Watch) -> Result<Tensor> {
        let mut done: Option<Tensor> = None;
        for resnet in &self.resnets {
            let here = done.as_ref().map(Rows::There);
            let x = here.as_ref().unwrap_or(x);
            let [channels, height, width] = x.shape()?;
            let row = width * channels.max(resnet.conv2.outputs());
            let next = match x {
                // Five pictures stand in memory at once where a level is not cut.
                Rows::There(x) if 5 * height * row <= most => resnet.forward(x)?,
                _ => {
                    let rows = (most / 16 / row).clamp(8, height.max(8));
                    resnet.in_strips(x, &Cut { height, rows, watch })?
                }
            };
            done = Some(next);
        }
        Ok(done.expect("a block has layers"))
    }
}

impl Decoder {
    /// As [`Decoder::forward`] for one picture, with at most about `most` values beside two pictures of the widest level.
    pub(super) fn in_strips(&self, z: &Tensor, most: usize, watch: &dyn Watch) -> Result<Tensor> {
        let mut x = self.mid_block.forward(&self.conv_in.forward(z)?, watch)?;
        let mut doubling: Option<&Conv2d> = None;
        for (i, block) in self.up_blocks.iter().enumerate() {
            let rows = match doubling {
                Some(conv) => Rows::Doubled(&x, conv),
                None => Rows::There(&x),
            };
            let next = block.in_strips(&rows, most, watch)?;
            x = next;
            watch.stage(&format_args!("up.{i}"), &x)?;
            doubling = block.upsampler.as_ref();
        }
        let x = Rows::There(&x);
        let [channels, height, width] = x.shape()?;
        let rows = (most / 16 / (width * channels)).clamp(8, height.max(8));
        let cut = Cut { height, rows, watch };
        let norm = x.normed(&self.conv_norm_out, &cut)?;
        cut.gather((self.conv_out.outputs(), width), |rows| {
            convolved(&self.conv_out, (&norm, height), &rows, None, |rows| x.get(rows))
        })
    }
}

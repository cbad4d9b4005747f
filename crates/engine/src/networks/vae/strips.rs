//! Encoding and decoding in strips: the same numbers in less memory.
//!
//! The widest levels are computed in strips of rows that overlap by what their convolutions see. A group norm is over the
//! whole picture: its statistics are gathered from all strips before any is normed, for which strips are computed again.
//! Nothing is blended, and there are no seams.

use std::ops::Range;

use candle_core::Tensor;
use zoetrope_kernels::{Affine, Statistics, Wrap};

use super::{Decoder, DownBlock, Encoder, Resnet, UpBlock};
use crate::layers::{Conv2d, GroupNorm};
use crate::{Result, Watch};

/// A picture of which any rows can be had.
enum Rows<'a> {
    There(&'a Tensor),
    /// Through a convolution that keeps its size.
    Convolved(&'a Tensor, &'a Conv2d),
    /// Twice its size, through a convolution.
    Doubled(&'a Tensor, &'a Conv2d),
}

/// Rows of a picture; where its top and bottom meet, they may begin before the first and end after the last.
type Span = Range<isize>;

impl Rows<'_> {
    /// Channels, rows and columns.
    fn shape(&self) -> Result<[usize; 3]> {
        let (Self::There(x) | Self::Convolved(x, _) | Self::Doubled(x, _)) = self;
        let (_, channels, height, width) = x.dims4()?;
        Ok(match self {
            Self::There(_) => [channels, height, width],
            Self::Convolved(_, conv) => [conv.outputs(), height, width],
            Self::Doubled(..) => [channels, 2 * height, 2 * width],
        })
    }

    /// These rows, `[1, channels, rows, width]`.
    fn get(&self, rows: &Span, wrap: Wrap) -> Result<Tensor> {
        let length = rows.len();
        match self {
            Self::There(x) => around_edges(x, rows),
            Self::Convolved(x, conv) => {
                let seen = seen(rows, x.dim(2)?, wrap);
                let y = conv.forward(&around_edges(x, &seen)?, across(wrap))?;
                Ok(y.narrow(2, (rows.start - seen.start) as usize, length)?)
            }
            Self::Doubled(x, conv) => {
                let seen = seen(rows, 2 * x.dim(2)?, wrap);
                let from = seen.start.div_euclid(2)..(seen.end + 1).div_euclid(2);
                let y = conv.forward_doubled(&around_edges(x, &from)?, across(wrap))?;
                Ok(y.narrow(2, (rows.start - 2 * from.start) as usize, length)?)
            }
        }
    }

    /// The statistics of all rows, and the norm with them.
    fn normed(&self, norm: &GroupNorm, cut: &Cut) -> Result<Affine> {
        Ok(norm.kernel().with(&cut.statistics(|rows| self.get(&rows, cut.wrap))?)?)
    }
}

/// `rows` and one more on each side, as far as there are any: without end where top and bottom meet.
fn seen(rows: &Span, height: usize, wrap: Wrap) -> Span {
    match wrap.rows {
        true => rows.start - 1..rows.end + 1,
        false => (rows.start - 1).max(0)..(rows.end + 1).min(height as isize),
    }
}

/// A strip is no whole picture: its own first and last rows never meet.
fn across(wrap: Wrap) -> Wrap {
    Wrap { rows: false, ..wrap }
}

/// Rows of `x`, of which some may lie beyond its edges and then are those of the other one.
fn around_edges(x: &Tensor, rows: &Span) -> Result<Tensor> {
    let height = x.dim(2)? as isize;
    let (mut parts, mut at) = (Vec::new(), rows.start);
    while at < rows.end {
        let first = at.rem_euclid(height);
        let length = (height - first).min(rows.end - at);
        parts.push(x.narrow(2, first as usize, length as usize)?);
        at += length;
    }
    match &parts[..] {
        [one] => Ok(one.clone()),
        parts => Ok(Tensor::cat(parts, 2)?),
    }
}

/// How a level is cut.
struct Cut<'a> {
    height: usize,
    rows: usize,
    wrap: Wrap,
    watch: &'a dyn Watch,
}

impl<'a> Cut<'a> {
    /// Strips of rows of `row` values, which take a sixteenth of `most` each.
    fn new(height: usize, row: usize, (most, wrap): (usize, Wrap), watch: &'a dyn Watch) -> Self {
        Self { height, rows: (most / 16 / row.max(1)).clamp(8, height.max(8)), wrap, watch }
    }

    /// Makes every strip; between two of them the work may be stopped.
    fn each(&self, mut strip: impl FnMut(Span) -> Result<Tensor>) -> Result<()> {
        (0..self.height).step_by(self.rows).try_for_each(|start| {
            let end = (start + self.rows).min(self.height);
            let strip = strip(start as isize..end as isize)?;
            self.watch.stage(&"strip", &strip)
        })
    }

    /// The statistics of all strips.
    fn statistics(&self, mut strip: impl FnMut(Span) -> Result<Tensor>) -> Result<Statistics> {
        let mut statistics = Statistics::default();
        self.each(|rows| {
            let strip = strip(rows)?;
            statistics.add(&strip)?;
            Ok(strip)
        })?;
        Ok(statistics)
    }

    /// A picture of `channels` and `width` from its strips, on their device.
    fn gather(
        &self,
        (channels, width): (usize, usize),
        mut strip: impl FnMut(Span) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut whole: Option<Tensor> = None;
        self.each(|rows| {
            let strip = strip(rows.clone())?;
            let last = strip.permute((0, 2, 3, 1))?.contiguous()?; // [1, rows, width, channels]
            if whole.is_none() {
                let shape = (1, self.height, width, channels);
                whole = Some(Tensor::zeros(shape, last.dtype(), last.device())?);
            }
            let whole = whole.as_ref().expect("it was made just now");
            whole.slice_set(&last, 1, rows.start as usize)?;
            Ok(strip)
        })?;
        let whole = whole.expect("a picture has rows");
        Ok(whole.permute((0, 3, 1, 2))?)
    }

    /// The convolution, which keeps the size, of rows `rows` of what `get` gives, normed.
    fn convolved(
        &self,
        conv: &Conv2d,
        norm: &Affine,
        rows: &Span,
        get: impl FnOnce(&Span) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let seen = seen(rows, self.height, self.wrap);
        let y = conv.forward_affine(norm, &get(&seen)?, across(self.wrap))?;
        Ok(y.narrow(2, (rows.start - seen.start) as usize, rows.len())?)
    }
}

impl Resnet {
    fn in_strips(&self, x: &Rows, cut: &Cut) -> Result<Tensor> {
        let [_, _, width] = x.shape()?;
        let norm1 = x.normed(&self.norm1, cut)?;
        let inner =
            |rows: &Span| cut.convolved(&self.conv1, &norm1, rows, |rows| x.get(rows, cut.wrap));
        let norm2 = self.norm2.kernel().with(&cut.statistics(|rows| inner(&rows))?)?;
        cut.gather((self.conv2.outputs(), width), |rows| {
            let x = x.get(&rows, cut.wrap)?;
            let shortcut = match &self.conv_shortcut {
                Some(shortcut) => shortcut.forward(&x, across(cut.wrap))?,
                None => x,
            };
            Ok((cut.convolved(&self.conv2, &norm2, &rows, inner)? + shortcut)?)
        })
    }
}

/// What `resnets` make of `x`, one after the other, each in strips where its level is too large for one piece.
fn through(
    resnets: &[Resnet],
    x: &Rows,
    (most, wrap): (usize, Wrap),
    watch: &dyn Watch,
) -> Result<Tensor> {
    let mut done: Option<Tensor> = None;
    for resnet in resnets {
        let here = done.as_ref().map(Rows::There);
        let x = here.as_ref().unwrap_or(x);
        let [channels, height, width] = x.shape()?;
        let row = width * channels.max(resnet.conv2.outputs());
        let next = match x {
            // Five pictures stand in memory at once where a level is not cut.
            Rows::There(x) if 5 * height * row <= most => resnet.forward(x, wrap)?,
            _ => resnet.in_strips(x, &Cut::new(height, row, (most, wrap), watch))?,
        };
        done = Some(next);
    }
    Ok(done.expect("a block has layers"))
}

impl DownBlock {
    fn in_strips(
        &self,
        x: &Rows,
        (most, wrap): (usize, Wrap),
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let x = through(&self.resnets, x, (most, wrap), watch)?;
        let Some(conv) = &self.downsampler else { return Ok(x) };
        let (_, channels, height, width) = x.dims4()?;
        let cut = Cut::new(height / 2, width * channels, (most, wrap), watch);
        cut.gather((conv.outputs(), width / 2), |rows| {
            // Three rows for each, of which the last is the next one's first.
            let end = 2 * rows.end + 1;
            let end = if wrap.rows { end } else { end.min(height as isize) };
            conv.forward(&around_edges(&x, &(2 * rows.start..end))?, across(wrap))
        })
    }
}

impl Encoder {
    /// As [`Encoder::forward`] for one picture, with at most about `most` values beside two pictures of the widest level.
    pub(super) fn in_strips(
        &self,
        image: &Tensor,
        (most, wrap): (usize, Wrap),
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let mut done: Option<Tensor> = None;
        for (i, block) in self.down_blocks.iter().enumerate() {
            let x = match &done {
                Some(x) => Rows::There(x),
                None => Rows::Convolved(image, &self.conv_in),
            };
            let next = block.in_strips(&x, (most, wrap), watch)?;
            watch.stage(&format_args!("down.{i}"), &next)?;
            done = Some(next);
        }
        let x = done.expect("an encoder has blocks");
        let x = self.mid_block.forward(&x, wrap, watch)?;
        self.conv_out.forward_normed(&self.conv_norm_out, &x, None, wrap)
    }
}

impl Decoder {
    /// As [`Decoder::forward`] for one picture, with at most about `most` values beside two pictures of the widest level.
    pub(super) fn in_strips(
        &self,
        z: &Tensor,
        (most, wrap): (usize, Wrap),
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let mut x = self.mid_block.forward(&self.conv_in.forward(z, wrap)?, wrap, watch)?;
        let mut doubling: Option<&Conv2d> = None;
        for (i, block) in self.up_blocks.iter().enumerate() {
            let next = block.in_strips(&here(&x, doubling), (most, wrap), watch)?;
            x = next;
            watch.stage(&format_args!("up.{i}"), &x)?;
            doubling = block.upsampler.as_ref();
        }
        let x = Rows::There(&x);
        let [channels, height, width] = x.shape()?;
        let cut = Cut::new(height, width * channels, (most, wrap), watch);
        let norm = x.normed(&self.conv_norm_out, &cut)?;
        cut.gather((self.conv_out.outputs(), width), |rows| {
            cut.convolved(&self.conv_out, &norm, &rows, |rows| x.get(rows, wrap))
        })
    }
}

/// `x`, or twice its size where the block before ends in a doubling.
fn here<'a>(x: &'a Tensor, doubling: Option<&'a Conv2d>) -> Rows<'a> {
    match doubling {
        Some(conv) => Rows::Doubled(x, conv),
        None => Rows::There(x),
    }
}

impl UpBlock {
    /// The block's result before it is doubled.
    fn in_strips(
        &self,
        x: &Rows,
        (most, wrap): (usize, Wrap),
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        through(&self.resnets, x, (most, wrap), watch)
    }
}

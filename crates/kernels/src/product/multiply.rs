//! The walk over a product: slices of panels that stay in the second cache, through which all tiles pass.

use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

use super::blocks::{BLOCK, Blocks, ROUNDED, round, tile_blocks, tile_rounded, unpack, unpacks};
use super::output::{Rectangle, rectangles};
use super::pack::Rows;
use super::tile::{
    Ahead, DEEP, DotBf16, DotF32, LEFT_GROUP, LINE, RIGHT_GROUP, tile, tile_int8, tile_int8_run,
};
use super::{Kind, RUN, Sums, WIDE, for_height};
use crate::memory::Units;
use crate::simd::{Level, Simd, Work};

/// Panels that a task takes at once. With [`RUN`] they fill a quarter of a second cache of 1 MiB, and the left side
/// is read from further away once for all of them.
const PANELS: usize = 4;

/// Bytes of the left side that all slices pass before the next ones come: they stay in the third cache, from which every
/// slice reads them again.
const BAND_BYTES: usize = 8 << 20;

/// Tasks for each thread, at least, where there is that much to do: threads that are held up elsewhere then cost little.
const TASKS_A_THREAD: usize = 8;

/// So many tiles at least fetch the next piece of a right side on their way.
const TILES_TO_FETCH: usize = 8;

/// The right side of a product.
pub(crate) trait Right: Sync {
    /// The arithmetic that it is made for.
    fn kind(&self, level: Level) -> Kind;

    /// The panels of `range`, each [`Kind::right_units`] long: from where they are kept, or unpacked into `scratch`.
    fn panels<'a>(
        &'a self,
        level: Level,
        range: Range<usize>,
        scratch: &'a mut Units,
    ) -> Result<&'a [u32]>;
}

/// What is done to sums on their way out.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// A factor of all of them.
    pub(crate) scale: f32,
    /// One value a column, added.
    pub(crate) bias: Option<&'a [f32]>,
    /// As the output, added.
    pub(crate) residual: Option<&'a [f32]>,
}

/// `out = left · right · scale + bias + residual`; `out`: `[rows, columns]`.
pub(crate) fn multiply(
    level: Level,
    left: &Rows,
    right: &impl Right,
    finish: Finish,
    (out, columns): (&mut [f32], usize),
) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let kind = right.kind(level);
    let tallest = left.tallest();
    let tiles = left.rows.div_ceil(tallest);
    let tile_bytes = size_of::<u32>() * left.kind.left_units(left.width) * tallest;
    let bands = tiles.div_ceil((BAND_BYTES / tile_bytes.max(1)).max(1));
    let tiles = tiles.div_ceil(bands);
    let slices = columns.div_ceil(WIDE).div_ceil(PANELS);
    let wanted = (TASKS_A_THREAD * rayon::current_num_threads()).div_ceil(slices);
    // Unpacking a slice pays only over many rows; so rows are cut only where slices are too few.
    let span = tiles.div_ceil(wanted.min(tiles)) * tallest;
    for first in (0..left.rows).step_by(tiles * tallest) {
        let rows = first..(first + tiles * tallest).min(left.rows);
        rectangles(out, columns, rows, (span, PANELS * WIDE)).with_max_len(1).try_for_each_init(
            || (Units::default(), Units::default()),
            |(scratch, unpacked), out| {
                let panels = out.columns.start / WIDE..out.columns.end.div_ceil(WIDE);
                let right = right.panels(level, panels, scratch)?;
                level.run(Block { left, right: (kind, right), unpacked, finish, out });
                Ok::<_, candle_core::Error>(())
            },
        )?;
    }
    Ok(())
}

/// One task: some rows times some panels.
struct Block<'a> {
    left: &'a Rows,
    /// Panels, and what they are.
    right: (Kind, &'a [u32]),
    /// Room for blocks that are unpacked before they are multiplied.
    unpacked: &'a mut Units,
    finish: Finish<'a>,
    out: Rectangle<'a>,
}

impl Work for Block<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let ((kind, panels), width) = (self.right, self.left.width);
        let rounds = self.left.kind == Kind::Rounded;
        let unpacks = rounds || unpacks(self.out.rows.len());
        // Left units of a row and right units of a panel in the pieces of depth that both are cut into.
        let (left_piece, right_piece) = match kind {
            Kind::Int8 => (RUN / 8 * LEFT_GROUP, RUN / 8 * RIGHT_GROUP),
            Kind::Int8Runs => (RUN + 1, (RUN + 1) * WIDE),
            Kind::Blocks(_) => (self.left.kind.left_units(4 * RUN), kind.right_units(4 * RUN)),
            _ => (RUN, RUN * WIDE),
        };
        let (left_units, right_units) = (self.left.kind.left_units(width), kind.right_units(width));
        let tiles = self.left.tiles(self.out.rows.clone()).count();
        for piece in 0..right_units.div_ceil(right_piece).max(1) {
            let left_range = piece * left_piece..left_units.min((piece + 1) * left_piece);
            let right_range = piece * right_piece..right_units.min((piece + 1) * right_piece);
            let unpacked_units = match kind {
                Kind::Blocks(format) if unpacks => {
                    self.unpack(simd, format, right_units, right_range.clone())
                }
                _ => 0,
            };
            let sizes = (right_units, right_piece);
            let next = Next::of(panels, right_range.clone(), sizes, tiles);
            for (t, (first, height, units)) in self.left.tiles(self.out.rows.clone()).enumerate() {
                let left = &units[left_range.start * height..left_range.end * height];
                for (i, column) in self.out.columns.clone().step_by(WIDE).enumerate() {
                    let right = &panels[i * right_units..][right_range.clone()];
                    let last = column + WIDE >= self.out.columns.end && t + 1 < tiles;
                    let next_left = if last { next_tile(units, left) } else { std::ptr::null() };
                    let blocks = match rounds {
                        true => left.len() / (height * (1 + BLOCK / 4)),
                        false => right.len().div_ceil(DEEP * WIDE),
                    };
                    let ahead = next.ahead(next_left, (i, t), blocks);
                    self.fetch_out(simd, first..first + height, column);
                    let right = match unpacks && matches!(kind, Kind::Blocks(_)) {
                        true => &self.unpacked[i * unpacked_units..][..unpacked_units],
                        false => right,
                    };
                    macro_rules! blocks {
                        ($rows:literal) => {{
                            let mut sums = [Sums::ZERO; $rows];
                            match kind {
                                Kind::Blocks(_) if rounds => {
                                    tile_rounded::<_, $rows>(simd, left, right, &mut sums, ahead)
                                }
                                Kind::Blocks(format) => tile_blocks::<_, $rows>(
                                    simd,
                                    (format, unpacks),
                                    left,
                                    right,
                                    &mut sums,
                                ),
                                _ => tile_int8::<_, $rows>(simd, left, right, &mut sums, ahead),
                            }
                            self.put(simd, &sums, first, column, piece == 0);
                        }};
                    }
                    macro_rules! values {
                        ($rows:literal) => {{
                            let mut sums = [Sums::ZERO; $rows];
                            match kind {
                                Kind::Int8Runs => {
                                    tile_int8_run::<_, $rows>(simd, left, right, &mut sums, ahead)
                                }
                                Kind::Bf16 if S::BF16 => {
                                    tile::<_, DotBf16, $rows>(simd, left, right, &mut sums, ahead)
                                }
                                _ => tile::<_, DotF32, $rows>(simd, left, right, &mut sums, ahead),
                            }
                            self.put(simd, &sums, first, column, piece == 0);
                        }};
                    }
                    match kind {
                        Kind::Int8 | Kind::Blocks(_) => for_height!(height, S::ROWS_BLOCKS, blocks),
                        _ => for_height!(height, S::ROWS, values),
                    }
                }
            }
        }
    }
}

/// Where the piece of depth `of` of the tile after that of `units` begins, if it is as tall.
#[inline(always)]
fn next_tile(units: &[u32], of: &[u32]) -> *const u32 {
    of.as_ptr().wrapping_add(units.len())
}

/// The piece of the right side that comes after the one that tiles pass: of the same panels the next in depth, or of the next panels the first.
/// Each tile fetches a share of it, so that the first one does not wait for memory.
struct Next {
    /// Where it begins for the first panel.
    start: *const u32,
    /// From one panel to the next.
    stride: usize,
    /// Lines of a panel.
    lines: usize,
    /// Those that a tile fetches.
    share: usize,
}

impl Next {
    /// After the piece `range` of panels that are `stride` long, cut into pieces of `piece`, with so many tiles to pass it.
    fn of(
        right: &[u32],
        range: Range<usize>,
        (stride, piece): (usize, usize),
        tiles: usize,
    ) -> Self {
        let (start, left) = match stride - range.end {
            // What lies behind all of them are the next panels, where weights are kept in this order.
            0 => (right.len(), stride),
            left => (range.end, left),
        };
        // Fewer tiles read the right side about as fast as memory gives it, and in order.
        let lines = if tiles < TILES_TO_FETCH { 0 } else { left.min(piece).div_ceil(LINE) };
        let share = lines.div_ceil(tiles.max(1));
        Self { start: right.as_ptr().wrapping_add(start), stride, lines, share }
    }

    /// What tile `t` fetches while it multiplies panel `i`, in so many blocks, beside the next tile.
    #[inline(always)]
    fn ahead(&self, left: *const u32, (i, t): (usize, usize), blocks: usize) -> Ahead {
        let first = self.share * t;
        let lines = self.share.min(self.lines.saturating_sub(first));
        let right = self.start.wrapping_add(i * self.stride + first * LINE);
        Ahead::new(left, right, lines, blocks)
    }
}

impl Block<'_> {
    /// Unpacks a piece of every panel, or rounds it, where that is what the left side is for; the result is how many units each has then.
    #[inline(always)]
    fn unpack<S: Simd>(
        &mut self,
        simd: S,
        format: Blocks,
        panel_units: usize,
        piece: Range<usize>,
    ) -> usize {
        let layout = format.layout();
        let values = piece.len() / layout.units() * layout.values;
        let rounds = self.left.kind == Kind::Rounded;
        let units = match rounds {
            true => values / BLOCK * ROUNDED,
            false => layout.unpacked_units(values),
        };
        self.unpacked.resize(self.out.columns.len().div_ceil(WIDE) * units);
        for (i, to) in self.unpacked.chunks_exact_mut(units.max(1)).enumerate() {
            let from = &self.right.1[i * panel_units..][piece.clone()];
            match rounds {
                true => round(simd, format, from, to),
                false => unpack(simd, format, from, to),
            }
        }
        units
    }

    /// Fetches a tile's place in the output, which is written when the tile is done.
    #[inline(always)]
    fn fetch_out<S: Simd>(&mut self, simd: S, rows: Range<usize>, column: usize) {
        let columns = column..(column + WIDE).min(self.out.columns.end);
        for row in rows {
            let at = self.out.row(row, columns.clone()).as_ptr().cast();
            simd.prefetch(at);
            simd.prefetch(at.wrapping_add(LINE));
        }
    }

    /// Adds a tile's sums to the output, or sets it, `afresh`.
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, sums: &[Sums], first: usize, column: usize, afresh: bool) {
        let columns = column..(column + WIDE).min(self.out.columns.end);
        for (i, sums) in sums.iter().enumerate() {
            let own = if self.left.kind.is_int8() { self.left.scales[first + i] } else { 1.0 };
            let factor = own * self.finish.scale;
            let out = self.out.row(first + i, columns.clone());
            match <&mut [f32; WIDE]>::try_from(&mut *out) {
                Ok(out) => put_row(simd, sums, factor, out, afresh),
                Err(_) if afresh => out.iter_mut().zip(&sums.0).for_each(|(o, s)| *o = s * factor),
                Err(_) => out.iter_mut().zip(&sums.0).for_each(|(o, s)| *o += s * factor),
            }
            if !afresh {
                continue;
            }
            if let Some(bias) = self.finish.bias {
                out.iter_mut().zip(&bias[columns.clone()]).for_each(|(o, b)| *o += b);
            }
            if let Some(residual) = self.finish.residual {
                let residual = &residual[(first + i) * self.out.stride..][columns.clone()];
                let out = self.out.row(first + i, columns.clone());
                out.iter_mut().zip(residual).for_each(|(o, r)| *o += r);
            }
        }
    }
}

/// A row of whole vectors: in plain loops, bounds would be looked at for each.
#[inline(always)]
fn put_row<S: Simd>(simd: S, sums: &Sums, factor: f32, out: &mut [f32; WIDE], afresh: bool) {
    let factor = simd.splat(factor);
    for at in (0..WIDE).step_by(S::LANES) {
        let so_far = if afresh { simd.splat(0.0) } else { simd.load(&out[at..]) };
        simd.store(simd.fma(simd.load(&sums.0[at..]), factor, so_far), &mut out[at..]);
    }
}

//! Matrix products over packed operands: what linear layers, attention and convolutions have in common.
//!
//! The right side (weights, keys, values) lies in *panels* of [`WIDE`] columns, unit after unit of depth; the left side
//! in *tiles* of a few rows. [`tile`] and [`blocks`] hold the loops that do all the work, [`pack`] brings values into either
//! form, [`multiply`] walks over both.

pub(crate) mod blocks;
pub(crate) mod multiply;
pub(crate) mod output;
pub(crate) mod pack;
pub(crate) mod tile;

use blocks::Blocks;

/// Columns of a panel: two vectors of AVX-512, four of AVX2.
pub(crate) const WIDE: usize = 32;

/// The sums of one row for one panel, from the start of a line on.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [f32; WIDE]);

impl Sums {
    /// Nothing summed yet.
    pub(crate) const ZERO: Self = Self([0.0; WIDE]);
}

/// int8 values that share a scale.
pub(crate) const GROUP: usize = 32;

/// Units of depth that products take at once: a tile's rows stay in the first cache.
pub(crate) const RUN: usize = 512;

/// The arithmetic of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// float32, one value a unit.
    F32,
    /// bfloat16, two values a unit, summed in float32.
    Bf16,
    /// int8 in groups of [`GROUP`]: the left side has a scale a row, the right side one a group and column.
    Int8,
    /// int8 in runs of [`RUN`] units: as [`Kind::Int8`], with a scale a run and column.
    Int8Runs,
    /// Blocks of GGML's; the left side as for [`Kind::Int8`], with heads and groups that suit the format.
    Blocks(Blocks),
    /// int8 in groups of [`blocks::BLOCK`], as long as the blocks that they were: the right side's scales are float32. The left side
    /// that many rows have against [`Kind::Blocks`]; weights are not kept like this.
    Rounded,
}

impl Kind {
    /// Whether the left side is rounded to int8 with a scale a row.
    pub(crate) fn is_int8(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8Runs | Self::Blocks(_) | Self::Rounded)
    }

    /// The kind whose left side this one takes with so many rows of `width` values.
    pub(crate) fn left(self, rows: usize, width: usize) -> Self {
        match self {
            Self::Blocks(_) if blocks::rounds(rows, width) => Self::Rounded,
            // Both have groups of 32 with offsets.
            Self::Blocks(Blocks::Q5K) => Self::Blocks(Blocks::Q4K),
            other => other,
        }
    }

    /// Left units a row that `width` values take, whole blocks of them.
    pub(crate) fn left_units(self, width: usize) -> usize {
        match self {
            Self::F32 => width.next_multiple_of(tile::DEEP),
            Self::Bf16 => width.div_ceil(2).next_multiple_of(tile::DEEP),
            Self::Int8 => width.div_ceil(GROUP) * tile::LEFT_GROUP,
            Self::Rounded => width.div_ceil(blocks::BLOCK) * (1 + blocks::BLOCK / 4),
            Self::Int8Runs => {
                let units = width.div_ceil(4);
                units.next_multiple_of(tile::DEEP) + units.div_ceil(RUN)
            }
            Self::Blocks(format) => {
                let group = format.layout().group;
                width / group * (1 + group / 4)
            }
        }
    }

    /// Right units a panel that `width` values a column take.
    pub(crate) fn right_units(self, width: usize) -> usize {
        match self {
            Self::F32 => width * WIDE,
            Self::Bf16 => width.div_ceil(2) * WIDE,
            Self::Int8 => width.div_ceil(GROUP) * tile::RIGHT_GROUP,
            Self::Rounded => width.div_ceil(blocks::BLOCK) * blocks::ROUNDED,
            Self::Int8Runs => {
                let units = width.div_ceil(4);
                (units + units.div_ceil(RUN)) * WIDE
            }
            Self::Blocks(format) => {
                let layout = format.layout();
                width / layout.values * layout.units()
            }
        }
    }
}

/// The heights that tiles come in; a level uses those that its registers hold. Few, because each is compiled for every
/// level and operation; those below 6 wait for their own sums.
const HEIGHTS: [usize; 5] = [14, 10, 6, 2, 1];

/// Cuts `rows` into tiles of at most `most` rows: the first row and the height of each.
pub(crate) fn heights(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = rows - done;
        let height = HEIGHTS.into_iter().find(|h| *h <= most.min(left))?;
        done += height;
        Some((done - height, height))
    })
}

/// Calls `$run!(M)` for the height `$height`, which is at most `$most`, a constant: taller tiles are not compiled.
macro_rules! for_height {
    ($height:expr, $most:expr, $run:ident) => {
        match $height {
            14 if const { $most >= 14 } => $run!(14),
            10 if const { $most >= 10 } => $run!(10),
            6 if const { $most >= 6 } => $run!(6),
            2 => $run!(2),
            _ => $run!(1),
        }
    };
}
pub(crate) use for_height;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_rows_once() {
        for rows in 0..60 {
            for most in [1, 2, 6, 7, 14] {
                let mut next = 0;
                for (first, height) in heights(rows, most) {
                    assert_eq!(first, next);
                    assert!(height <= most && HEIGHTS.contains(&height));
                    next += height;
                }
                assert_eq!(next, rows);
            }
        }
    }
}

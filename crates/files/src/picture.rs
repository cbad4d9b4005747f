//! Pictures and masks in memory, and the resampling between sizes.

use crate::resample::{Filter, resample};

/// An RGB picture, 8 bit, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `3 · width · height` bytes.
    pub rgb: Vec<u8>,
}

/// A mask, one byte a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `width · height` bytes.
    pub grey: Vec<u8>,
}

impl Picture {
    /// The picture at another size, by the 8-bit Lanczos filter that Pillow and so the reference uses.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        self.resized_by(width, height, Filter::Lanczos)
    }

    /// The picture at another size, by another of Pillow's filters.
    pub fn resized_by(&self, width: u32, height: u32, filter: Filter) -> Self {
        let rgb = resample(&self.rgb, (self.width, self.height), (width, height), 3, filter);
        Self { width, height, rgb }
    }

    /// The part that begins at column `left` and row `top`, `width` × `height` of it or as much as there is.
    pub fn cropped(&self, left: u32, top: u32, width: u32, height: u32) -> Self {
        let width = width.min(self.width.saturating_sub(left));
        let height = height.min(self.height.saturating_sub(top));
        let row = 3 * self.width as usize;
        let (start, length) = (3 * left as usize, 3 * width as usize);
        let rows = self.rgb.chunks_exact(row.max(1)).skip(top as usize).take(height as usize);
        let rgb = rows.flat_map(|row| &row[start..start + length]).copied().collect();
        Self { width, height, rgb }
    }
}

impl Mask {
    /// The mask at another size, by the same filter.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let (from, to) = ((self.width, self.height), (width, height));
        let grey = resample(&self.grey, from, to, 1, Filter::Lanczos);
        Self { width, height, grey }
    }
}

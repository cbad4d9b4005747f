//! Pictures and masks in memory, and the resampling between sizes.

use crate::resample::lanczos;

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
        let rgb = lanczos(&self.rgb, (self.width, self.height), (width, height), 3);
        Self { width, height, rgb }
    }
}

impl Mask {
    /// The mask at another size, by the same filter.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let grey = lanczos(&self.grey, (self.width, self.height), (width, height), 1);
        Self { width, height, grey }
    }
}

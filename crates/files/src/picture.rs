//! Pictures and masks in memory, and the resampling between sizes.

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

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
        let rgb = lanczos((&self.rgb, self.width, self.height), (width, height), PixelType::U8x3);
        Self { width, height, rgb }
    }
}

impl Mask {
    /// The mask at another size, by the same filter.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let grey = lanczos((&self.grey, self.width, self.height), (width, height), PixelType::U8);
        Self { width, height, grey }
    }
}

fn lanczos((bytes, from_width, from_height): (&[u8], u32, u32), (width, height): (u32, u32), pixel: PixelType) -> Vec<u8> {
    if (from_width, from_height) == (width, height) {
        return bytes.to_vec();
    }
    let from = Image::from_vec_u8(from_width, from_height, bytes.to_vec(), pixel).expect("a picture has its size in bytes");
    let mut to = Image::new(width, height, pixel);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false);
    Resizer::new().resize(&from, &mut to, &options).expect("both images have the same pixels");
    to.into_vec()
}

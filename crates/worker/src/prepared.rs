//! Pictures as networks that look at them want them.

use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::processor::{Filter, Processor};
use zoetrope_files::Picture;

/// `picture` resized and cut, as `processor` wants it.
pub fn prepared(picture: &Picture, processor: &Processor) -> Rgb {
    let step = processor.steps(picture.width as usize, picture.height as usize);
    let resized = step.resize.map(|(width, height, filter)| {
        let filter = match filter {
            Filter::Lanczos => zoetrope_files::Filter::Lanczos,
            Filter::Bilinear => zoetrope_files::Filter::Bilinear,
            Filter::Bicubic => zoetrope_files::Filter::Bicubic,
        };
        picture.resized_by(width as u32, height as u32, filter)
    });
    let picture = resized.as_ref().unwrap_or(picture);
    let cut = step.crop.map(|part| {
        let [left, top, width, height] = part.map(|side| side as u32);
        picture.cropped(left, top, width, height)
    });
    let Picture { width, height, rgb } = cut.unwrap_or_else(|| picture.clone());
    Rgb { width: width as usize, height: height as usize, bytes: rgb }
}

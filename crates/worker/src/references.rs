//! Pictures that a prompt speaks of, at the sizes that the model takes them in.

use zoetrope_api::ImageSize;
use zoetrope_engine::Result;
use zoetrope_engine::guides::Reference;
use zoetrope_engine::pipeline::Pipeline;
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::{Filter, Picture};

/// `picture` as `pipeline` takes it, for a result of `size` if one was asked for.
pub fn reference(
    pipeline: &Pipeline,
    picture: &Picture,
    size: Option<ImageSize>,
) -> Result<Reference> {
    let fit = pipeline.fit(picture.width as usize, picture.height as usize, size)?;
    let at = |(width, height): (usize, usize)| (width as u32, height as u32);
    let ((width, height), (across, down)) = (at(fit.whole), at(fit.seen));
    let whole = picture.resized(width, height);
    let seen = whole.resized_by(across, down, Filter::Bilinear);
    Ok(Reference { whole: rgb_of(whole), seen: rgb_of(seen) })
}

fn rgb_of(picture: Picture) -> Rgb {
    let Picture { width, height, rgb } = picture;
    Rgb { width: width as usize, height: height as usize, bytes: rgb }
}

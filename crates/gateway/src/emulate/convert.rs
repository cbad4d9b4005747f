//! Pictures of one size and format to those that the caller gets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zoetrope_api::images::{Finish, Pixels, SizeWish};
use zoetrope_files::{Limits, Picture};

use super::Work;
use crate::plan::{Encoding, Plan};
use crate::provider::{Content, Made};

/// What must be done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    /// The size that it gets, where that is another; `true` where the right and lower edges are cut.
    size: Option<(Pixels, bool)>,
    encoding: Encoding,
}

/// `made` as `plan` gives it, and the same where it is that already. A problem completes "the picture".
pub(super) async fn convert(made: Made, plan: &Plan, work: &Work) -> Result<Made, String> {
    let Some(job) = job(&made, plan, work) else { return Ok(made) };
    let bytes = match &made.content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::Base64(text) => {
            STANDARD.decode(text).map_err(|_| "is no base64".to_string())?.into()
        }
        Content::Stored { name, .. } => {
            let read = work.store.read(name, Limits::default().bytes_max).await;
            let read = read.map_err(|error| {
                let error = zoetrope_files::redacted(&error.to_string());
                tracing::error!(error, "a picture could not be read");
                "could not be read again".to_string()
            })?;
            read.ok_or("is not in the store any more")?
        }
    };
    // Milliseconds to seconds of work, which other requests on this thread must not wait for.
    let converted = tokio::task::spawn_blocking(move || converted(&bytes, &job)).await;
    let (bytes, size) = converted.map_err(|_| "could not be converted".to_string())??;
    Ok(Made { content: Content::Bytes(bytes), format: job.encoding.format, size, ..made })
}

/// What is left to do, whether the provider did as it was asked or not.
fn job(made: &Made, plan: &Plan, work: &Work) -> Option<Job> {
    let exact = matches!(work.request.size, SizeWish::Exactly(_));
    let given = plan.fit.given;
    let size = (exact && made.size != given).then(|| {
        let cut = plan.fit.finish == Finish::Crop && made.size == plan.fit.made;
        (given, cut)
    });
    let unlike = |format| format != made.format;
    let encoding = match (plan.encode, work.request.format) {
        (Some(encode), _) if encode.quality.is_some() || unlike(encode.format) => Some(encode),
        (None, Some(format)) if unlike(format) => {
            let quality = work.request.quality.filter(|_| format.takes_quality());
            Some(Encoding { format, quality })
        }
        _ => None,
    };
    let own = || {
        let quality = work.request.quality.filter(|_| made.format.takes_quality());
        Encoding { format: made.format, quality }
    };
    (size.is_some() || encoding.is_some())
        .then(|| Job { size, encoding: encoding.unwrap_or_else(own) })
}

fn converted(bytes: &[u8], job: &Job) -> Result<(Bytes, Pixels), String> {
    let Job { size, encoding: Encoding { format, quality } } = *job;
    let mut picture =
        zoetrope_files::decode(bytes, &Limits::default()).map_err(|e| e.to_string())?.picture;
    if let Some((given, cut)) = size {
        picture = match cut {
            true => picture.cropped(0, 0, given.width, given.height),
            false => sized(&picture, given),
        };
    }
    let encoded = zoetrope_files::encode_at(&picture, format.into(), quality, None);
    let encoded = encoded.map_err(|e| e.to_string())?;
    Ok((encoded.into(), Pixels::new(picture.width, picture.height)))
}

/// `picture` at `given`. A provider that made another shape than it was asked for loses its edges, and is not distorted.
fn sized(picture: &Picture, given: Pixels) -> Picture {
    let made = Pixels::new(picture.width, picture.height);
    if made.is_like(given.ratio()) {
        return picture.resized(given.width, given.height);
    }
    let scale = f64::max(
        f64::from(given.width) / f64::from(made.width),
        f64::from(given.height) / f64::from(made.height),
    );
    let side = |side: u32, least: u32| ((f64::from(side) * scale).round() as u32).max(least);
    let (width, height) = (side(made.width, given.width), side(made.height, given.height));
    let (left, top) = ((width - given.width) / 2, (height - given.height) / 2);
    picture.resized(width, height).cropped(left, top, given.width, given.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_another_shape_is_cut_at_both_sides() {
        let rgb = (0..4 * 2).flat_map(|i| [i as u8 * 10; 3]).collect();
        let wide = Picture { width: 4, height: 2, rgb };
        let square = sized(&wide, Pixels::new(2, 2));
        assert_eq!((square.width, square.height), (2, 2));
        assert_eq!(square.rgb.iter().step_by(3).copied().collect::<Vec<_>>(), [10, 20, 50, 60]);
    }
}

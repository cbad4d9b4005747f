//! Pictures to image files, with the parameters that made them in the metadata.

use std::io::Cursor;
use std::path::Path;

use image::codecs::avif::AvifEncoder;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};

use crate::{Error, Picture, Result, metadata};

/// The formats that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the formats' names")]
pub enum Format {
    Png,
    Jpeg,
    /// Lossless.
    WebP,
    /// One frame of 256 colours; it holds no parameters.
    Gif,
    Avif,
}

/// High enough that nobody sees the difference, as the hosted services send.
const JPEG_QUALITY: u8 = 95;
/// Of 1 (best colours) to 30 (fast), as the encoder's own default for still pictures.
const GIF_SPEED: i32 = 10;
const AVIF_QUALITY: u8 = 88;
/// Of 1 (small) to 10 (fast); at 6 a 1024² picture takes about as long as one decoder run.
const AVIF_SPEED: u8 = 6;

impl Format {
    /// The format that `path` ends in.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        Ok(match ending.as_str() {
            "png" => Self::Png,
            "jpg" | "jpeg" => Self::Jpeg,
            "webp" => Self::WebP,
            "gif" => Self::Gif,
            "avif" => Self::Avif,
            _ => return Err(Error::Ending { file: path.display().to_string(), ending }),
        })
    }

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Avif => "AVIF",
        }
    }
}

/// The picture as a file of `format`; `parameters` (JSON) go into its EXIF data. The same input gives the same bytes.
pub fn encode(picture: &Picture, format: Format, parameters: Option<&str>) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let exif = parameters.map(metadata::exif);
    let done = match format {
        Format::Png => {
            let encoder = PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Default,
                FilterType::Adaptive,
            );
            with_exif(encoder, exif, picture)
        }
        Format::Jpeg => {
            with_exif(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY), exif, picture)
        }
        Format::WebP => with_exif(WebPEncoder::new_lossless(&mut bytes), exif, picture),
        Format::Gif => with_exif(GifEncoder::new_with_speed(&mut bytes, GIF_SPEED), None, picture),
        Format::Avif => {
            let encoder = AvifEncoder::new_with_speed_quality(&mut bytes, AVIF_SPEED, AVIF_QUALITY);
            with_exif(encoder, exif, picture)
        }
    };
    done.map_err(|source| Error::Encode { format: format.name(), source })?;
    Ok(bytes.into_inner())
}

fn with_exif(
    mut encoder: impl ImageEncoder,
    exif: Option<Vec<u8>>,
    picture: &Picture,
) -> Result<(), ImageError> {
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).map_err(ImageError::Unsupported)?;
    }
    encoder.write_image(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8)
}

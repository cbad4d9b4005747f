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
    /// Lossless unless a quality is asked for.
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
/// Pixels of a side, by the format.
const WEBP_SIDE_MAX: u32 = 16_383;
/// `RIFF`, the size of the rest, `WEBP`.
const RIFF_HEADER_BYTES: usize = 12;
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

impl From<zoetrope_api::Format> for Format {
    fn from(format: zoetrope_api::Format) -> Self {
        match format {
            zoetrope_api::Format::Png => Self::Png,
            zoetrope_api::Format::Jpeg => Self::Jpeg,
            zoetrope_api::Format::Webp => Self::WebP,
            zoetrope_api::Format::Gif => Self::Gif,
            zoetrope_api::Format::Avif => Self::Avif,
        }
    }
}

/// The picture as a file of `format`; `parameters` (JSON) go into its EXIF data. The same input gives the same bytes.
pub fn encode(picture: &Picture, format: Format, parameters: Option<&str>) -> Result<Vec<u8>> {
    encode_at(picture, format, None, parameters)
}

/// The same at a quality of 0 to 100, for JPEG, WebP and AVIF; the other formats lose nothing by it.
pub fn encode_at(
    picture: &Picture,
    format: Format,
    quality: Option<u8>,
    parameters: Option<&str>,
) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let exif = parameters.map(metadata::exif);
    let or = |default: u8| quality.unwrap_or(default).clamp(1, 100); // encoders know no 0
    let done = match (format, quality) {
        (Format::Png, _) => {
            let encoder = PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Default,
                FilterType::Adaptive,
            );
            with_exif(encoder, exif, picture)
        }
        (Format::Jpeg, _) => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, or(JPEG_QUALITY));
            with_exif(encoder, exif, picture)
        }
        (Format::WebP, Some(quality)) => return lossy_webp(picture, quality, exif),
        (Format::WebP, None) => with_exif(WebPEncoder::new_lossless(&mut bytes), exif, picture),
        (Format::Gif, _) => {
            with_exif(GifEncoder::new_with_speed(&mut bytes, GIF_SPEED), None, picture)
        }
        (Format::Avif, _) => {
            let quality = or(AVIF_QUALITY);
            let encoder = AvifEncoder::new_with_speed_quality(&mut bytes, AVIF_SPEED, quality);
            with_exif(encoder, exif, picture)
        }
    };
    done.map_err(|source| Error::Encode { format: format.name(), source })?;
    Ok(bytes.into_inner())
}

/// The `image` crate writes no lossy WebP.
fn lossy_webp(picture: &Picture, quality: u8, exif: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let (width, height) = (picture.width, picture.height);
    let wrong = |problem: String| Error::Image(format!("cannot be written as WebP: {problem}"));
    if width.max(height) > WEBP_SIDE_MAX || width.min(height) == 0 {
        return Err(wrong(format!(
            "its sides are {width} and {height} pixels; WebP has 1 to {WEBP_SIDE_MAX}"
        )));
    }
    let encoder = webp::Encoder::from_rgb(&picture.rgb, width, height);
    let simple = encoder.encode_simple(false, f32::from(quality.min(100)));
    let simple = simple.map_err(|e| wrong(format!("{e:?}")))?;
    match exif {
        Some(exif) => Ok(extended_webp(&simple, (width, height), &exif)),
        None => Ok(simple.to_vec()),
    }
}

/// The simple form as the extended one, which has room for EXIF data.
/// <https://developers.google.com/speed/webp/docs/riff_container>
fn extended_webp(simple: &[u8], (width, height): (u32, u32), exif: &[u8]) -> Vec<u8> {
    const HAS_EXIF: u32 = 0x08;
    let mut header = HAS_EXIF.to_le_bytes().to_vec();
    header.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    header.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    let mut out = b"RIFF\0\0\0\0WEBP".to_vec();
    chunk(&mut out, b"VP8X", &header);
    out.extend_from_slice(&simple[RIFF_HEADER_BYTES.min(simple.len())..]);
    chunk(&mut out, b"EXIF", exif);
    let size = (out.len() - 8) as u32;
    out[4..8].copy_from_slice(&size.to_le_bytes());
    out
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
    if data.len() % 2 == 1 {
        out.push(0);
    }
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

//! Image files to pictures, under limits that are checked before anything is allocated.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::avif::Avif;
use crate::{Error, Mask, Picture, Result, colour};

/// What is read at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a file.
    pub bytes_max: u64,
    /// Pixels of a picture.
    pub pixels_max: u64,
}

impl Default for Limits {
    /// 64 MiB hold any photograph; 64 megapixels are sixteen times what the model draws, in 200 MB.
    fn default() -> Self {
        Self { bytes_max: 64 << 20, pixels_max: 64 << 20 }
    }
}

/// What was changed on the way in; worth a line to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of an animation, the first frame is used.
    FirstFrame,
    /// Transparent parts were laid on white.
    AlphaOnWhite,
    /// More than 8 bits a channel were rounded.
    Rounded,
    /// The picture was turned upright, as the file says.
    Turned,
    /// Its colours were brought from its profile to sRGB.
    Colours,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstFrame => "it is animated: its first frame is used",
            Self::AlphaOnWhite => "its transparent parts are laid on white",
            Self::Rounded => "its channels are rounded to 8 bits",
            Self::Turned => "it is turned upright, as the file says",
            Self::Colours => "its colours are brought from its profile to sRGB",
        })
    }
}

/// A picture and what was changed to get it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The pixels.
    pub picture: Picture,
    /// In the order they happened.
    pub notes: Vec<Note>,
}

/// Reads an image file of any supported format.
pub fn read(path: &Path, limits: &Limits) -> Result<Decoded> {
    named(path, |bytes| decode(bytes, limits), limits)
}

/// Reads an image as a mask, as Pillow's `convert("L")` does: luma, whatever the transparency.
pub fn read_mask(path: &Path, limits: &Limits) -> Result<Mask> {
    named(path, |bytes| decode_mask(bytes, limits), limits)
}

/// The same of bytes.
pub fn decode_mask(bytes: &[u8], limits: &Limits) -> Result<Mask> {
    let image = open(bytes, limits)?.image;
    let rgb = image.to_rgb8();
    let luma = |p: &[u8]| {
        (u32::from(p[0]) * 19595 + u32::from(p[1]) * 38470 + u32::from(p[2]) * 7471 + 0x8000) >> 16
    };
    let grey = rgb.as_raw().chunks_exact(3).map(|p| luma(p) as u8).collect();
    Ok(Mask { width: rgb.width(), height: rgb.height(), grey })
}

/// How opaque each pixel of an image is; `None` where all are fully.
pub fn decode_alpha(bytes: &[u8], limits: &Limits) -> Result<Option<Mask>> {
    let image = open(bytes, limits)?.image;
    if !image.color().has_alpha() {
        return Ok(None);
    }
    let rgba = image.to_rgba8();
    let grey: Vec<u8> = rgba.pixels().map(|p| p.0[3]).collect();
    let opaque = grey.iter().all(|alpha| *alpha == 255);
    Ok((!opaque).then(|| Mask { width: rgba.width(), height: rgba.height(), grey }))
}

/// Decodes an image; its format is told from the content, never from a name.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded> {
    let Opened { mut image, mut notes, profile } = open(bytes, limits)?;
    let color = image.color();
    if color.bits_per_pixel() / u16::from(color.channel_count()) > 8 {
        notes.push(Note::Rounded);
    }
    if let Some(converted) = profile.and_then(|profile| colour::to_srgb(&image, &profile)) {
        image = converted;
        notes.push(Note::Colours);
    }
    let rgb = if color.has_alpha() {
        let rgba = image.to_rgba8();
        if rgba.pixels().any(|p| p.0[3] < 255) {
            notes.push(Note::AlphaOnWhite);
        }
        let over = |p: &[u8]| [0, 1, 2].map(|i| blend(p[i], p[3]));
        rgba.as_raw().chunks_exact(4).flat_map(over).collect()
    } else {
        image.to_rgb8().into_raw()
    };
    Ok(Decoded { picture: Picture { width: image.width(), height: image.height(), rgb }, notes })
}

fn blend(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn named<T>(path: &Path, decode: impl FnOnce(&[u8]) -> Result<T>, limits: &Limits) -> Result<T> {
    let file = |problem: String| Error::File { file: path.display().to_string(), problem };
    let bytes = bytes_of(path, limits).map_err(|problem| file(problem.to_string()))?;
    decode(&bytes).map_err(|problem| file(problem.to_string()))
}

fn bytes_of(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let image = |problem: String| Error::Image(problem);
    let opened = File::open(path).map_err(|e| image(format!("cannot be opened: {e}")))?;
    let metadata = opened.metadata().map_err(|e| image(format!("cannot be read: {e}")))?;
    if metadata.is_dir() {
        return Err(image("is a folder, not an image".into()));
    }
    let mut bytes = Vec::new();
    opened
        .take(limits.bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| image(format!("cannot be read: {e}")))?;
    Ok(bytes)
}

/// What an image file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// As `image/png`, told from the bytes.
    pub content_type: &'static str,
    /// Pixels across, once it is turned upright.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// Reads what an image file says of itself without decoding its pixels; they may still turn out to be damaged.
pub fn header(bytes: &[u8], limits: &Limits) -> Result<Header> {
    let Begun { mut decoder, format, .. } = begin(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let turned = decoder.orientation().is_ok_and(|orientation| {
        matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        )
    });
    let (width, height) = if turned { (height, width) } else { (width, height) };
    Ok(Header { content_type: format.to_mime_type(), width, height })
}

/// A file whose header was read, and nothing else.
struct Begun<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    format: ImageFormat,
    name: &'static str,
}

fn begin<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Begun<'a>> {
    if bytes.is_empty() {
        return Err(Error::Image("is empty".into()));
    }
    if bytes.len() as u64 > limits.bytes_max {
        return Err(Error::Bytes { bytes_max: limits.bytes_max });
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|e| Error::Image(format!("cannot be read: {e}")))?;
    let Some(format) = reader.format() else { return Err(unknown(bytes)) };
    let name = name_of(format)?;
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err(Error::Image("is no whole JPEG image: it is cut short; save it again".into()));
    }
    let decoder: Box<dyn ImageDecoder + 'a> = match format {
        ImageFormat::Avif => Box::new(Avif::new(bytes).map_err(|e| damaged(name, &e))?),
        _ => Box::new(reader.into_decoder().map_err(|e| damaged(name, &e))?),
    };
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels_max {
        return Err(Error::Pixels { width, height, pixels_max: limits.pixels_max });
    }
    if width == 0 || height == 0 {
        return Err(Error::NoPixels { width, height });
    }
    Ok(Begun { decoder, format, name })
}

fn damaged(name: &str, error: &image::ImageError) -> Error {
    Error::Image(format!(
        "is no whole {name} image ({error}); it may be cut short or damaged: save it again"
    ))
}

/// An image as the file has it, but upright.
struct Opened {
    image: DynamicImage,
    notes: Vec<Note>,
    /// Which colours its numbers mean.
    profile: Option<Vec<u8>>,
}

fn open(bytes: &[u8], limits: &Limits) -> Result<Opened> {
    let Begun { mut decoder, format, name } = begin(bytes, limits)?;
    let mut allocate = image::Limits::default();
    allocate.max_alloc = Some(limits.pixels_max * 16);
    decoder.set_limits(allocate).map_err(|e| damaged(name, &e))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().ok().flatten();
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| damaged(name, &e))?;
    let mut notes = Vec::new();
    if is_animated(bytes, format) {
        notes.push(Note::FirstFrame);
    }
    if orientation != Orientation::NoTransforms {
        image.apply_orientation(orientation);
        notes.push(Note::Turned);
    }
    Ok(Opened { image, notes, profile })
}

/// Content types of what is read.
pub const FORMATS: [&str; 10] = [
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/avif",
    "image/bmp",
    "image/tiff",
    "image/x-tga",
    "image/x-portable-anymap",
    "image/qoi",
];

fn name_of(format: ImageFormat) -> Result<&'static str> {
    Ok(match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Tga => "TGA",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Qoi => "QOI",
        ImageFormat::Avif => "AVIF",
        _ => {
            return Err(Error::Format(
                "is an image of a format that is not read; convert it to PNG".into(),
            ));
        }
    })
}

fn unknown(bytes: &[u8]) -> Error {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).to_ascii_lowercase();
    if start.contains("<svg") {
        return Error::Format("is an SVG drawing; convert it to PNG".into());
    }
    let what = if start.contains("<html") || start.contains("<!doctype") {
        "is a web page, not an image"
    } else {
        "is no image of a known format (PNG, JPEG, WebP, GIF, AVIF, BMP, TIFF, TGA, PNM, QOI)"
    };
    Error::Image(what.into())
}

/// Whether a JPEG's last scan is followed by the end marker; the decoder fills what is missing with grey. Within a scan the
/// marker cannot stand: the byte 0xff is escaped there.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let last_scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]);
    last_scan.is_some_and(|start| bytes[start..].windows(2).any(|pair| pair == [0xff, 0xd9]))
}

fn is_animated(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Gif => {
            let Ok(mut decoder) = image::codecs::gif::GifDecoder::new(Cursor::new(bytes)) else {
                return false;
            };
            // A later frame may claim any size; none that is larger than the picture is one.
            let (width, height) = decoder.dimensions();
            let mut limits = image::Limits::default();
            limits.max_alloc = Some(32 * u64::from(width) * u64::from(height));
            decoder.set_limits(limits).is_ok()
                && decoder.into_frames().take(2).filter(Result::is_ok).count() > 1
        }
        ImageFormat::WebP => image::codecs::webp::WebPDecoder::new(Cursor::new(bytes))
            .is_ok_and(|d| d.has_animation()),
        ImageFormat::Png => {
            let decoder = image::codecs::png::PngDecoder::new(Cursor::new(bytes));
            decoder.is_ok_and(|d| d.is_apng().unwrap_or(false))
        }
        _ => false,
    }
}

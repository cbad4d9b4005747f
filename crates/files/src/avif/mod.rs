//! AVIF images to pixels: the container is read here, the AV1 data in it by rav1d, which is dav1d in Rust. No library of the
//! system is needed.

mod colour;
mod container;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use re_rav1d::PlanarImageComponent::{U, V, Y};
use re_rav1d::{Decoder, Picture, PixelLayout, Plane, Settings, pixel};

use self::colour::{Coding, Planes};
use self::container::{Container, Layer, Mirror};

/// A file whose description was read.
pub(crate) struct Avif {
    container: Container,
}

/// What is wrong with a file.
#[derive(Debug)]
struct Wrong(&'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Wrong {}

fn wrong(problem: &'static str) -> ImageError {
    let hint = ImageFormatHint::Exact(ImageFormat::Avif);
    ImageError::Decoding(DecodingError::new(hint, Wrong(problem)))
}

impl Avif {
    /// Reads the description of `file`, and none of its pixels.
    pub(crate) fn new(file: &[u8]) -> ImageResult<Self> {
        let container = container::parse(file);
        let container =
            container.ok_or_else(|| wrong("its description is cut short or damaged"))?;
        Ok(Self { container })
    }

    /// The pixels, `[height, width, 4]`.
    fn rgba(&self) -> ImageResult<Vec<u8>> {
        let Container { size, colour, alpha, premultiplied, nclx, .. } = &self.container;
        let (width, height) = (size.0 as usize, size.1 as usize);
        let mut rgba = vec![255; 4 * width * height];
        draw(colour, *size, |planes, place| {
            let coding = Coding::of(planes, *nclx)
                .ok_or_else(|| wrong("its colours are coded in a way that is not read"))?;
            colour::to_rgb(planes, coding, place, (&mut rgba, width));
            Ok(())
        })?;
        if let Some(alpha) = alpha {
            draw(alpha, *size, |planes, place| {
                colour::to_alpha(planes, place, (&mut rgba, width));
                Ok(())
            })?;
        }
        if *premultiplied {
            colour::divide_by_alpha(&mut rgba);
        }
        Ok(rgba)
    }
}

/// Decodes the cells of `layer` and hands each over with its place in a picture of `size`.
fn draw(
    layer: &Layer,
    size: (u32, u32),
    mut cell: impl FnMut(&Planes, (usize, usize)) -> ImageResult<()>,
) -> ImageResult<()> {
    let pixels = size.0.saturating_mul(size.1).max(1);
    let mut first: Option<(usize, usize)> = None;
    for (i, data) in layer.cells.iter().enumerate() {
        let picture = decoded(data, pixels)?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        // All cells are as large as the first one.
        let (across, down) = *first.get_or_insert((width, height));
        let columns = layer.columns;
        if (width, height) != (across, down)
            || across * columns < size.0 as usize
            || down * (layer.cells.len() / columns) < size.1 as usize
        {
            return Err(wrong("its parts have other sizes than its description says"));
        }
        let place = (i % columns * across, i / columns * down);
        let held = [Y, U, V].map(|component| picture.plane(component));
        cell(&planes(&picture, &held)?, place)?;
    }
    Ok(())
}

/// The picture in AV1 `data`, of at most so many pixels.
fn decoded(data: &[u8], pixels_max: u32) -> ImageResult<Picture> {
    let decode = || {
        let mut settings = Settings::new();
        // On this thread: a picture is one frame, and what is damaged shall harm no other.
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_frame_size_limit(pixels_max);
        let mut decoder = Decoder::with_settings(&settings).ok()?;
        // What it wants to be asked for again comes with the picture.
        let _ = decoder.send_data(data.to_vec(), None, None, None);
        decoder.get_picture().ok()
    };
    // The decoder is a translation of C: what is damaged in a way that nobody thought of makes it panic.
    let picture = catch_unwind(AssertUnwindSafe(decode)).ok().flatten();
    picture.ok_or_else(|| wrong("its AV1 data is cut short or damaged"))
}

fn planes<'a>(picture: &Picture, held: &'a [Plane; 3]) -> ImageResult<Planes<'a>> {
    let Some(bits) = picture.bits_per_component() else {
        return Err(wrong("its channels have a number of bits that is not read"));
    };
    let (halved, coloured) = match picture.pixel_layout() {
        PixelLayout::I400 => ((false, false), false),
        PixelLayout::I420 => ((true, true), true),
        PixelLayout::I422 => ((true, false), true),
        PixelLayout::I444 => ((false, false), true),
    };
    let [y, u, v] = held;
    let stride = picture.stride(U) as usize;
    Ok(Planes {
        size: (picture.width() as usize, picture.height() as usize),
        bits: bits.0 as u32,
        luma: (&**y, picture.stride(Y) as usize),
        // Without colours there is nothing to look at.
        chroma: coloured.then(|| [(&**u, stride), (&**v, stride)]),
        halved,
        matrix: picture.matrix_coefficients() as u16,
        full: matches!(picture.color_range(), pixel::YUVRange::Full),
    })
}

impl ImageDecoder for Avif {
    fn dimensions(&self) -> (u32, u32) {
        self.container.size
    }

    fn color_type(&self) -> ColorType {
        ColorType::Rgba8
    }

    /// The profile of the file, or one made of the primaries and the transfer that it names.
    fn icc_profile(&mut self) -> ImageResult<Option<Vec<u8>>> {
        let Container { icc, nclx, .. } = &self.container;
        Ok(icc.clone().or_else(|| colour::profile((*nclx)?.0)))
    }

    /// What the container says counts; EXIF data in it does not.
    fn orientation(&mut self) -> ImageResult<Orientation> {
        Ok(match (self.container.turns, self.container.mirror) {
            (0, None) => Orientation::NoTransforms,
            (1, None) => Orientation::Rotate270,
            (2, None) => Orientation::Rotate180,
            (_, None) => Orientation::Rotate90,
            (0, Some(Mirror::LeftAndRight)) | (2, Some(Mirror::TopAndBottom)) => {
                Orientation::FlipHorizontal
            }
            (0, Some(Mirror::TopAndBottom)) | (2, Some(Mirror::LeftAndRight)) => {
                Orientation::FlipVertical
            }
            // Turned against the clock once, then mirrored; or three times.
            (1, Some(Mirror::LeftAndRight)) | (3, Some(Mirror::TopAndBottom)) => {
                Orientation::Rotate270FlipH
            }
            _ => Orientation::Rotate90FlipH,
        })
    }

    fn read_image(self, buf: &mut [u8]) -> ImageResult<()> {
        buf.copy_from_slice(&self.rgba()?);
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, buf: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buf)
    }
}

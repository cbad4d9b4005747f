//! The colours of an image's profile as those of sRGB, which is what the model sees pictures in.

use image::DynamicImage;
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

/// `image` with its colours brought from the ICC `profile` to sRGB; `None` where they are that already, or where the profile is
/// damaged or of another kind than the pixels are by now. What is transparent stays so.
pub(crate) fn to_srgb(image: &DynamicImage, profile: &[u8]) -> Option<DynamicImage> {
    let profile = ColorProfile::new_from_slice(profile).ok()?;
    let (width, height, alpha) = (image.width(), image.height(), image.color().has_alpha());
    match profile.color_space {
        DataColorSpace::Rgb if is_nearly_srgb(&profile)? => None,
        DataColorSpace::Rgb if alpha => {
            let bytes =
                transformed(&profile, Layout::Rgba, image.to_rgba8().as_raw(), Layout::Rgba)?;
            Some(image::RgbaImage::from_raw(width, height, bytes)?.into())
        }
        DataColorSpace::Rgb => {
            let bytes = transformed(&profile, Layout::Rgb, image.to_rgb8().as_raw(), Layout::Rgb)?;
            Some(image::RgbImage::from_raw(width, height, bytes)?.into())
        }
        DataColorSpace::Gray if image.color().has_color() => None,
        DataColorSpace::Gray if alpha => {
            let grey = image.to_luma_alpha8();
            let bytes = transformed(&profile, Layout::GrayAlpha, grey.as_raw(), Layout::Rgba)?;
            Some(image::RgbaImage::from_raw(width, height, bytes)?.into())
        }
        DataColorSpace::Gray => {
            let bytes =
                transformed(&profile, Layout::Gray, image.to_luma8().as_raw(), Layout::Rgb)?;
            Some(image::RgbImage::from_raw(width, height, bytes)?.into())
        }
        // JPEG's four inks are decoded to RGB without their profile.
        _ => None,
    }
}

fn transformed(profile: &ColorProfile, from: Layout, pixels: &[u8], to: Layout) -> Option<Vec<u8>> {
    let srgb = ColorProfile::new_srgb();
    let transform =
        profile.create_transform_8bit(from, &srgb, to, TransformOptions::default()).ok()?;
    let mut out = vec![0; pixels.len() / from.channels() * to.channels()];
    transform.transform(pixels, &mut out).ok()?;
    Some(out)
}

/// Steps of a channel that are looked at.
const PROBES: usize = 9;

/// Whether the profile changes no colour by more than a level: most pictures have one that says sRGB, and stay as they are.
fn is_nearly_srgb(profile: &ColorProfile) -> Option<bool> {
    let level = |i: usize| (i % PROBES * 255 / (PROBES - 1)) as u8;
    let colours: Vec<u8> = (0..PROBES.pow(3))
        .flat_map(|i| [level(i), level(i / PROBES), level(i / PROBES / PROBES)])
        .collect();
    let seen = transformed(profile, Layout::Rgb, &colours, Layout::Rgb)?;
    Some(seen.iter().zip(&colours).all(|(a, b)| a.abs_diff(*b) <= 1))
}

//! Sizes that pictures are cut to: multiples of 16 whose area is near the wanted one, in the picture's own ratio.

use zoetrope_api::ImageSize;

/// Longer pictures are cut to this ratio of their sides.
pub const RATIO_MAX: f64 = 4.0;

/// The size for a picture of `width` × `height`: no larger than the area of a square of `resolution`, and of the ratio that is nearest to the
/// picture's.
pub fn bucket(width: u32, height: u32, resolution: u32) -> Result<ImageSize, String> {
    let area = f64::from(resolution) * f64::from(resolution);
    let ratio = (f64::from(width) / f64::from(height)).clamp(1.0 / RATIO_MAX, RATIO_MAX);
    let multiple = f64::from(ImageSize::MULTIPLE);
    let exact = (area * ratio).sqrt();
    let sizes = [(exact / multiple).floor(), (exact / multiple).ceil()].map(|columns| {
        let width = columns.max(1.0) * multiple;
        let most = (area / width / multiple).floor().max(1.0) * multiple;
        let wanted = (width / ratio / multiple).round().max(1.0) * multiple;
        (width, wanted.min(most))
    });
    let off = |(width, height): (f64, f64)| (width / height / ratio).ln().abs();
    let [small, large] = sizes;
    let (width, height) = if off(small) <= off(large) { small } else { large };
    ImageSize::new(width as u32, height as u32).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_pictures_get_usual_sizes() {
        for ((width, height), wanted) in [
            ((4000, 3000), (1168, 880)),
            ((3000, 4000), (880, 1168)),
            ((512, 512), (1024, 1024)),
            ((1920, 1080), (1360, 768)),
            ((10_000, 100), (2048, 512)),
        ] {
            let size = bucket(width, height, 1024).unwrap();
            assert_eq!((size.width(), size.height()), wanted, "{width}x{height}");
        }
    }

    proptest! {
        #[test]
        fn every_picture_has_a_size(width in 1u32..20_000, height in 1u32..20_000, resolution in 64u32..2048) {
            let size = bucket(width, height, resolution).unwrap();
            prop_assert_eq!((size.width() % 16, size.height() % 16), (0, 0));
            prop_assert!(u64::from(size.width()) * u64::from(size.height()) <= u64::from(resolution).pow(2));
            let ratio = (f64::from(width) / f64::from(height)).clamp(0.25, 4.0);
            let off = (f64::from(size.width()) / f64::from(size.height()) / ratio).ln().abs();
            // Half a multiple of the shorter side, which is at least a quarter of the longer one.
            prop_assert!(off < 0.75 * 16.0 / (f64::from(resolution) / 2.0 - 16.0).max(16.0), "{size} for {ratio}: {off}");
        }
    }
}

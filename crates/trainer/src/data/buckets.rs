//! Sizes that pictures are cut to: multiples of 16 whose area is near the wanted one, in the picture's own ratio.

use zoetrope_api::ImageSize;

/// Longer pictures are cut to this ratio of their sides.
pub const RATIO_MAX: f64 = 4.0;

/// The size for a picture of `width` × `height`: no larger than the area of a square of `resolution`, and of the ratio that is nearest to the
/// picture's among the sizes of about that area. A picture that is turned gets the same size, turned.
pub fn bucket(width: u32, height: u32, resolution: u32) -> Result<ImageSize, String> {
    let area = f64::from(resolution) * f64::from(resolution);
    let ratio = (f64::from(width.max(height)) / f64::from(width.min(height))).min(RATIO_MAX);
    let multiple = f64::from(ImageSize::MULTIPLE);
    let exact = ((area * ratio).sqrt() / multiple).floor();
    let size = |count: f64| {
        let long = count.max(1.0) * multiple;
        let most = (area / long / multiple).floor().max(1.0) * multiple;
        let wanted = (long / ratio / multiple).round().max(1.0) * multiple;
        (long, wanted.min(most))
    };
    // The longer sides below and above the exact one, and one shorter: with that the other side can be rounded up without too large an area.
    let sizes = [exact + 1.0, exact, exact - 1.0].map(size);
    let off = |(long, short): &(f64, f64)| (long / short / ratio).ln().abs();
    let nearest = sizes.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
    let (long, short) = nearest.map_or((0, 0), |(long, short)| (long as u32, short as u32));
    let (width, height) = if width < height { (short, long) } else { (long, short) };
    ImageSize::new(width, height).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_pictures_get_usual_sizes() {
        for ((width, height), wanted) in [
            ((4000, 3000), (1152, 864)),
            ((3000, 4000), (864, 1152)),
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
            let turned = bucket(height, width, resolution).unwrap();
            prop_assert_eq!((size.width(), size.height()), (turned.height(), turned.width()));
            prop_assert_eq!((size.width() % 16, size.height() % 16), (0, 0));
            prop_assert!(u64::from(size.width()) * u64::from(size.height()) <= u64::from(resolution).pow(2));
            let ratio = (f64::from(width) / f64::from(height)).clamp(0.25, 4.0);
            let off = (f64::from(size.width()) / f64::from(size.height()) / ratio).ln().abs();
            // Half a multiple of the shorter side, which is that much shorter at the ends of what ratios there are.
            let resolution = f64::from(resolution);
            let short = (resolution / 2.0 - 8.0).min(resolution - 32.0);
            prop_assert!(off <= 8.0 / (short - 8.0), "{size} for {ratio}: {off}");
        }
    }
}

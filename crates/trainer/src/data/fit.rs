//! Pictures and masks brought to the size they are trained at: scaled to cover it and cut around the middle, never stretched.

use zoetrope_api::ImageSize;
use zoetrope_files::{Mask, Picture};

/// The middle of a picture, in `size`.
pub(super) fn picture(picture: Picture, size: ImageSize) -> Vec<u8> {
    let Picture { width, height, rgb } = picture;
    let near = nearby((width, height), size);
    let rgb = middle(rgb, (width, height), near, 3);
    let (across, down) = covering(near, size);
    let scaled = Picture { width: near.0, height: near.1, rgb }.resized(across, down);
    middle(scaled.rgb, (across, down), (size.width(), size.height()), 3)
}

/// The same of a mask.
pub(super) fn mask(mask: Mask, size: ImageSize) -> Vec<u8> {
    let Mask { width, height, grey } = mask;
    let near = nearby((width, height), size);
    let grey = middle(grey, (width, height), near, 1);
    let (across, down) = covering(near, size);
    let scaled = Mask { width: near.0, height: near.1, grey }.resized(across, down);
    middle(scaled.grey, (across, down), (size.width(), size.height()), 1)
}

/// What of a picture is worth scaling: no side more than twice what will be left of it. Otherwise a line of a million pixels would be scaled to a
/// picture of a million pixels across.
fn nearby((width, height): (u32, u32), size: ImageSize) -> (u32, u32) {
    let twice = |other: u32, this: u32, that: u32| {
        (2 * u64::from(other) * u64::from(this)).div_ceil(u64::from(that))
    };
    let across = twice(height, size.width(), size.height()).min(width.into());
    let down = twice(width, size.height(), size.width()).min(height.into());
    (across as u32, down as u32)
}

/// The size in which a picture covers `size` and touches two of its sides.
fn covering((width, height): (u32, u32), size: ImageSize) -> (u32, u32) {
    let scale = |side: u32, wanted: u32| f64::from(wanted) / f64::from(side);
    let scale = scale(width, size.width()).max(scale(height, size.height()));
    let scaled = |side: u32, least: u32| ((f64::from(side) * scale).round() as u32).max(least);
    (scaled(width, size.width()), scaled(height, size.height()))
}

/// The middle of `of` pixels of a picture of `size`, `bytes` each.
fn middle(pixels: Vec<u8>, size: (u32, u32), of: (u32, u32), bytes: usize) -> Vec<u8> {
    if size == of {
        return pixels;
    }
    let (left, top) = ((size.0 - of.0) as usize / 2, (size.1 - of.1) as usize / 2);
    let rows = pixels.chunks_exact(bytes * size.0 as usize).skip(top).take(of.1 as usize);
    rows.flat_map(|row| &row[bytes * left..][..bytes * of.0 as usize]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_cut_around_their_middle() {
        let size = ImageSize::new(16, 32).unwrap();
        assert_eq!(covering((100, 100), size), (32, 32));
        let pixels: Vec<u8> = (0..32 * 32).map(|i| (i % 32) as u8).collect();
        let cut = middle(pixels, (32, 32), (16, 32), 1);
        assert_eq!((cut.len(), cut[0], cut[15]), (16 * 32, 8, 23));
    }

    #[test]
    fn what_is_cut_away_is_not_scaled() {
        let size = ImageSize::new(2048, 512).unwrap();
        for (from, near) in [
            ((4000, 1000), (4000, 1000)),
            ((5000, 1000), (5000, 1000)),
            ((1_000_000, 1), (8, 1)),
            ((1, 1_000_000), (1, 1)),
            ((u32::MAX, u32::MAX), (u32::MAX, (u64::from(u32::MAX) / 2 + 1) as u32)),
        ] {
            assert_eq!(nearby(from, size), near, "{from:?}");
            let (across, down) = covering(near, size);
            assert!(across <= 4096 + 512 && down <= 1024 + 2048, "{from:?}: {across}x{down}");
        }
    }
}

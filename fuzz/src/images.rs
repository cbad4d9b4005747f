//! Image files under limits: what is decoded has exactly the pixels that it says, and no more than were allowed.

use zoetrope_files::{Limits, decode};

/// Small enough that a file which claims more is refused at once, and thousands a second can be tried.
const LIMITS: Limits = Limits { bytes_max: 1 << 20, pixels_max: 1 << 16 };

/// A file of any format.
pub fn image(data: &[u8]) {
    if let Ok(decoded) = decode(data, &LIMITS) {
        let picture = decoded.picture;
        let pixels = u64::from(picture.width) * u64::from(picture.height);
        assert!((1..=LIMITS.pixels_max).contains(&pixels), "{}x{}", picture.width, picture.height);
        assert_eq!(picture.rgb.len() as u64, 3 * pixels);
    }
    zoetrope_files::read_parameters(data);
}

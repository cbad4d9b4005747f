//! A picture on the terminal, where it can show one.

use std::io::IsTerminal;

use image::{DynamicImage, RgbImage};
use zoetrope_files::Picture;

/// Shows `picture` on terminals with a picture protocol (kitty's or iTerm's), and does nothing on others: a picture
/// made of letters says less than the file's name.
pub(crate) fn show(picture: &Picture) {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return;
    }
    if viuer::get_kitty_support() == viuer::KittySupport::None && !viuer::is_iterm_supported() {
        return;
    }
    let Some(image) = RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone()) else {
        return;
    };
    let config =
        viuer::Config { absolute_offset: false, width: Some(48), ..viuer::Config::default() };
    // The picture is written already; a terminal that fails to show it is no failure.
    let _ = viuer::print(&DynamicImage::ImageRgb8(image), &config);
}

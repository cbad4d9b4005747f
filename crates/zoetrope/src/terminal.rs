//! A picture on the terminal, where it can show one.

use std::io::IsTerminal;

use image::{DynamicImage, RgbImage};
use zoetrope_engine::pixels::Rgb;
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
    print((picture.width, picture.height), picture.rgb.clone(), COLUMNS);
}

/// Shows what a picture looks like by now; on terminals without a picture protocol in coloured halves of letters, because
/// somebody asked to see it.
pub(crate) fn preview(picture: &Rgb) {
    if std::io::stdout().is_terminal() {
        let size = (picture.width as u32, picture.height as u32);
        print(size, picture.bytes.clone(), COLUMNS / 2);
    }
}

/// Letters across that a picture takes.
const COLUMNS: u32 = 48;

fn print((width, height): (u32, u32), rgb: Vec<u8>, columns: u32) {
    let Some(image) = RgbImage::from_raw(width, height, rgb) else { return };
    let config =
        viuer::Config { absolute_offset: false, width: Some(columns), ..viuer::Config::default() };
    // The picture is written, or will be; a terminal that fails to show it is no failure.
    let _ = viuer::print(&DynamicImage::ImageRgb8(image), &config);
}

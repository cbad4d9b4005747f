//! A picture on the terminal, where it can show one.

use std::io::IsTerminal;

use image::{DynamicImage, RgbImage};
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::Picture;

/// What the terminal shows pictures by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// Text alone.
    Plain,
    /// Coloured halves of letters.
    Halves,
    /// iTerm's protocol.
    Iterm,
    /// kitty's protocol.
    Kitty,
}

impl Terminal {
    /// The one that calls itself `name`, in `TERM`. It is not asked what it can: one that does not know the question never
    /// answers, and one that does not understand it shows it.
    pub(crate) fn called(name: &str) -> Self {
        match name {
            "" | "dumb" => Self::Plain,
            _ if viuer::is_iterm_supported() => Self::Iterm,
            "xterm-kitty" | "xterm-ghostty" => Self::Kitty,
            _ => Self::Halves,
        }
    }

    /// Shows `picture` on terminals with a picture protocol, and does nothing on others: a picture made of letters says less than
    /// the file's name.
    pub(crate) fn show(self, picture: &Picture) {
        let interactive = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if interactive && matches!(self, Self::Iterm | Self::Kitty) {
            self.print((picture.width, picture.height), picture.rgb.clone(), COLUMNS);
        }
    }

    /// Shows what a picture looks like by now; in halves of letters too, because somebody asked to see it.
    pub(crate) fn preview(self, picture: &Rgb) {
        if std::io::stdout().is_terminal() && self != Self::Plain {
            let size = (picture.width as u32, picture.height as u32);
            self.print(size, picture.bytes.clone(), COLUMNS / 2);
        }
    }

    fn print(self, (width, height): (u32, u32), rgb: Vec<u8>, columns: u32) {
        let Some(image) = RgbImage::from_raw(width, height, rgb) else { return };
        // A line that is full ends in another one on some terminals.
        let most = u32::from(viuer::terminal_size().0).saturating_sub(1).max(1);
        let config = viuer::Config {
            absolute_offset: false,
            width: Some(columns.min(most)),
            use_kitty: self == Self::Kitty,
            use_iterm: self == Self::Iterm,
            ..viuer::Config::default()
        };
        // The picture is written, or will be; a terminal that fails to show it is no failure.
        let _ = viuer::print(&DynamicImage::ImageRgb8(image), &config);
    }
}

/// Letters across that a picture takes.
const COLUMNS: u32 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terminals_that_are_known_for_it_are_sent_pictures() {
        for (name, want) in [
            ("", Terminal::Plain),
            ("dumb", Terminal::Plain),
            ("xterm-256color", Terminal::Halves),
            ("tmux-256color", Terminal::Halves),
            ("linux", Terminal::Halves),
            ("xterm-kitty", Terminal::Kitty),
            ("xterm-ghostty", Terminal::Kitty),
        ] {
            assert!([want, Terminal::Iterm].contains(&Terminal::called(name)), "{name}");
        }
    }
}

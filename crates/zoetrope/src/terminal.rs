//! A picture on the terminal, where it can show one.

use std::io::IsTerminal;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, RgbImage};
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::{Format, Picture};

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
            // On Windows terminals have no names.
            "" if cfg!(windows) && !viuer::is_iterm_supported() => Self::Halves,
            "" if !cfg!(windows) => Self::Plain,
            "dumb" => Self::Plain,
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
        // A line that is full ends in another one on some terminals.
        let most = u32::from(viuer::terminal_size().0).saturating_sub(1).max(1);
        if self == Self::Kitty {
            let picture = Picture { width, height, rgb };
            if let Ok(png) = zoetrope_files::encode(&picture, Format::Png, None) {
                println!("{}", kitty(&png, columns.min(most)));
            }
            return;
        }
        let Some(image) = RgbImage::from_raw(width, height, rgb) else { return };
        let config = viuer::Config {
            absolute_offset: false,
            width: Some(columns.min(most)),
            use_kitty: false,
            use_iterm: self == Self::Iterm,
            ..viuer::Config::default()
        };
        // The picture is written, or will be; a terminal that fails to show it is no failure.
        let _ = viuer::print(&DynamicImage::ImageRgb8(image), &config);
    }
}

/// `png`, so many letters across, in kitty's graphics protocol, which is not to answer: a terminal that does not know it would not.
fn kitty(png: &[u8], columns: u32) -> String {
    let text = STANDARD.encode(png);
    let mut out = String::new();
    let mut parts = text.as_bytes().chunks(KITTY_PART).peekable();
    let mut keys = format!("f=100,a=T,q=2,c={columns},");
    while let Some(part) = parts.next() {
        let more = u8::from(parts.peek().is_some());
        let part = String::from_utf8_lossy(part);
        out.push_str(&format!("\x1b_G{keys}m={more};{part}\x1b\\"));
        keys.clear();
    }
    out
}

/// Letters of base64 that kitty takes at once.
const KITTY_PART: usize = 4096;

/// Letters across that a picture takes.
const COLUMNS: u32 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terminals_that_are_known_for_it_are_sent_pictures() {
        for (name, want) in [
            ("", if cfg!(windows) { Terminal::Halves } else { Terminal::Plain }),
            ("dumb", Terminal::Plain),
            ("xterm-256color", Terminal::Halves),
            ("tmux-256color", Terminal::Halves),
            ("linux", Terminal::Halves),
            ("xterm-kitty", Terminal::Kitty),
            ("xterm-ghostty", Terminal::Kitty),
        ] {
            let (found, plain) = (Terminal::called(name), want == Terminal::Plain);
            assert!(found == want || !plain && found == Terminal::Iterm, "{name}: {found:?}");
        }
    }

    #[test]
    fn kitty_gets_pictures_in_parts_and_is_asked_nothing() {
        let text = kitty(&[7; 5000], 24);
        let parts: Vec<&str> = text.split("\x1b\\").filter(|part| !part.is_empty()).collect();
        assert_eq!(parts.len(), 2);
        assert!(parts[0].starts_with("\x1b_Gf=100,a=T,q=2,c=24,m=1;"), "{}", parts[0]);
        assert!(parts[1].starts_with("\x1b_Gm=0;"), "{}", parts[1]);
        let data: String = parts.iter().filter_map(|part| Some(part.split_once(';')?.1)).collect();
        assert_eq!(STANDARD.decode(data).unwrap(), [7; 5000]);
    }
}

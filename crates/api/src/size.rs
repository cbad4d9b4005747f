//! Image sizes: pixels, names and ratios.

use std::fmt;
use std::str::FromStr;

use crate::InvalidField;

/// fal's names for common sizes, `(name, width, height)`.
pub const NAMED_SIZES: &[(&str, u32, u32)] = &[
    ("square_hd", 1024, 1024),
    ("square", 512, 512),
    ("portrait_4_3", 768, 1024),
    ("portrait_16_9", 576, 1024),
    ("landscape_4_3", 1024, 768),
    ("landscape_16_9", 1024, 576),
];

/// Width and height in pixels, each a multiple of 16: one token of the transformer covers 16 × 16 pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    width: u32,
    height: u32,
}

impl ImageSize {
    /// Pixels that one token covers in each direction.
    pub const MULTIPLE: u32 = 16;
    /// The most a side may have: the rotary tables of the published models reach 512 positions of 16 pixels.
    pub const SIDE_MAX: u32 = 8192;

    /// A size of `width` × `height` pixels.
    pub fn new(width: u32, height: u32) -> Result<Self, InvalidField> {
        for (field, value) in [("width", width), ("height", height)] {
            if value == 0 {
                return Err(InvalidField::new(field, "is 0; the least is 16"));
            }
            if value > Self::SIDE_MAX {
                let problem = format!("is {value}; the most is {}", Self::SIDE_MAX);
                return Err(InvalidField::new(field, problem));
            }
            if value % Self::MULTIPLE != 0 {
                let below = value / Self::MULTIPLE * Self::MULTIPLE;
                let near = match below {
                    0 => format!("use {}", Self::MULTIPLE),
                    _ => format!("use {below} or {}", below + Self::MULTIPLE),
                };
                return Err(InvalidField::new(
                    field,
                    format!("is {value}, which is no multiple of 16; {near}"),
                ));
            }
        }
        Ok(Self { width, height })
    }

    /// The size of ratio `across : down` whose area comes nearest to `area` pixels.
    pub fn of_ratio(across: u32, down: u32, area: u64) -> Result<Self, InvalidField> {
        if across == 0 || down == 0 {
            return Err(InvalidField::new(
                "size",
                format!("is {across}:{down}; a ratio has no zero"),
            ));
        }
        let ratio = across as f64 / down as f64;
        let round = |side: f64| ((side / 16.0).round() as u32).max(1).saturating_mul(16);
        let height = (area as f64 / ratio).sqrt();
        Self::new(round(height * ratio), round(height)).map_err(|_| {
            let problem = format!(
                "is {across}:{down}, which is too narrow for {area} pixels in multiples of 16"
            );
            InvalidField::new("size", problem)
        })
    }

    /// Reads a name (`square_hd`), pixels (`1024x768`) or a ratio (`16:9`, at about `area` pixels).
    pub fn parse(text: &str, area: u64) -> Result<Self, InvalidField> {
        if let Some((_, width, height)) = NAMED_SIZES.iter().find(|(name, ..)| *name == text) {
            return Self::new(*width, *height);
        }
        if let Some((across, down)) = pair(text, ':') {
            return Self::of_ratio(across, down, area);
        }
        if let Some((width, height)) = pair(text, 'x').or_else(|| pair(text, '×')) {
            return Self::new(width, height);
        }
        let names: Vec<_> = NAMED_SIZES.iter().map(|(name, ..)| *name).collect();
        let problem = format!(
            "is `{text}`; give WIDTHxHEIGHT, a ratio as 16:9, or one of {}",
            names.join(", ")
        );
        Err(InvalidField::new("size", problem))
    }

    /// Pixels across.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Pixels down.
    pub fn height(self) -> u32 {
        self.height
    }

    /// Height and width of the latents, an eighth of the pixels.
    pub fn latent(self) -> (usize, usize) {
        (self.height as usize / 8, self.width as usize / 8)
    }

    /// Tokens of the transformer that the picture takes.
    pub fn image_tokens(self) -> usize {
        (self.width as usize / 16) * (self.height as usize / 16)
    }
}

fn pair(text: &str, separator: char) -> Option<(u32, u32)> {
    let (a, b) = text.split_once(separator)?;
    Some((u32::from_str(a.trim()).ok()?, u32::from_str(b.trim()).ok()?))
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form() {
        let cases = [
            ("square", "512x512"),
            ("landscape_16_9", "1024x576"),
            ("640x480", "640x480"),
            ("16:9", "1360x768"),
            ("1:1", "1024x1024"),
            ("3:1", "1776x592"),
        ];
        for (text, want) in cases {
            let got = ImageSize::parse(text, 1024 * 1024).map(|size| size.to_string());
            assert_eq!(got.as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_say_what_would_be_right() {
        let cases = [
            ("1000x512", "`width` is 1000, which is no multiple of 16; use 992 or 1008"),
            ("512x0", "`height` is 0; the least is 16"),
            ("8x16", "`width` is 8, which is no multiple of 16; use 16"),
            ("16000x16", "`width` is 16000; the most is 8192"),
            ("0:3", "`size` is 0:3; a ratio has no zero"),
            (
                "100000:1",
                "`size` is 100000:1, which is too narrow for 65536 pixels in multiples of 16",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(ImageSize::parse(text, 65536).unwrap_err().to_string(), want);
        }
        assert!(ImageSize::parse("big", 65536).unwrap_err().to_string().contains("square_hd"));
    }
}

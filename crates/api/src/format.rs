//! How a picture is encoded.

use serde::{Deserialize, Serialize};

/// How a picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Without loss.
    Png,
    /// Quality 95 unless another is asked for.
    Jpeg,
    /// Without loss unless a quality is asked for.
    Webp,
    /// One frame of 256 colours.
    Gif,
    /// Small, and slow to write.
    Avif,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Png, Self::Jpeg, Self::Webp, Self::Gif, Self::Avif];
    /// Their names, in the same order.
    pub const NAMES: [&str; 5] = ["png", "jpeg", "webp", "gif", "avif"];

    /// The format called `name`; `jpg` is one of jpeg's names.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "jpg" { "jpeg" } else { name };
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Some(Self::ALL[at])
    }

    /// The name in requests and answers, which is the ending of a file's name too.
    pub fn extension(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// `image/png` and so on.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Avif => "image/avif",
        }
    }

    /// Whether a quality changes what is written.
    pub fn takes_quality(self) -> bool {
        matches!(self, Self::Jpeg | Self::Webp | Self::Avif)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for format in Format::ALL {
            assert_eq!(Format::named(format.extension()), Some(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.extension());
        }
        assert_eq!(Format::named("jpg"), Some(Format::Jpeg));
        assert_eq!(Format::named("svg"), None);
    }
}

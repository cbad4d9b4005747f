//! The pictures that an edit starts from, fetched and looked at once for all providers.

use std::fmt;

use bytes::Bytes;
use zoetrope_api::images::Pixels;

/// What an edit starts from; empty for text to image.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// In the order in which they were sent.
    pub images: Vec<Source>,
    /// Of the first image's size; transparent where it is drawn anew.
    pub mask: Option<Source>,
}

/// A picture whose content was looked at, whatever its sender called it.
#[derive(Clone)]
pub struct Source {
    /// The file.
    pub bytes: Bytes,
    /// What it is, as `image/png`; told from the bytes.
    pub content_type: &'static str,
    /// Upright, as its EXIF data says.
    pub size: Pixels,
}

impl Sources {
    /// The size that `auto` means for an edit.
    pub fn size(&self) -> Option<Pixels> {
        self.images.first().map(|image| image.size)
    }
}

/// Without megabytes.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, content_type, size } = self;
        write!(f, "{content_type} of {size} in {} bytes", bytes.len())
    }
}

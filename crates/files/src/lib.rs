//! Bytes in and out: images decoded under limits, encoded with their parameters, and written whole or not at all.

mod avif;
mod colour;
mod decode;
mod edges;
mod encode;
pub mod fetch;
mod glance;
pub mod hub;
mod metadata;
mod name;
mod picture;
mod resample;
mod store;
mod write;

pub use decode::{
    Decoded, FORMATS, Header, Limits, Note, decode, decode_alpha, decode_mask, header, read,
    read_mask,
};
pub use edges::CANNY_THRESHOLDS;
pub use encode::{Format, encode, encode_at};
pub use glance::{Glance, glance, glance_base64, is_standard_base64};
pub use metadata::read_parameters;
pub use name::{Name, content_type, redacted};
pub use picture::{Mask, Picture};
pub use resample::Filter;
pub use store::{Head, Store, StoreError, Stored};
pub use write::{check_writable, write};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with an image file: each names the file, and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("{file}: {problem}")]
    File {
        /// Which.
        file: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The bytes are not an image that can be used.
    #[error("{0}")]
    Image(String),
    /// They are of a format that is not read.
    #[error("{0}")]
    Format(String),
    /// More bytes than are read.
    #[error("is larger than {} MiB, the most that is read; make it smaller", .bytes_max >> 20)]
    Bytes {
        /// The limit.
        bytes_max: u64,
    },
    /// More pixels than are read.
    #[error("has {width}x{height} pixels; at most {} million are read: make it smaller", .pixels_max >> 20)]
    Pixels {
        /// Across.
        width: u32,
        /// Down.
        height: u32,
        /// The limit of both multiplied.
        pixels_max: u64,
    },
    /// A side without a pixel.
    #[error("has {width}x{height} pixels: there is nothing to see")]
    NoPixels {
        /// Across.
        width: u32,
        /// Down.
        height: u32,
    },
    /// An image could not be encoded.
    #[error("cannot write {format} ({source})")]
    Encode {
        /// The format's name.
        format: &'static str,
        /// Why.
        source: image::ImageError,
    },
    /// A file's ending that stands for no format.
    #[error(
        "{file}: `{ending}` is no format that can be written; end the name in .png, .jpg, .webp, .gif or .avif"
    )]
    Ending {
        /// The file.
        file: String,
        /// Its ending.
        ending: String,
    },
}

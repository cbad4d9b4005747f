//! A cheap look at an image file: which format, which size, and whether its end is there. Nothing is decoded, so that a
//! picture that is only passed on costs microseconds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zoetrope_api::Format;

use crate::{Error, Result};

/// What can be told of a file at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Told from its first bytes.
    pub format: Format,
    /// Pixels across, not 0.
    pub width: u32,
    /// Pixels down, not 0.
    pub height: u32,
}

/// Bytes of a file that are looked at first where it comes as base64: headers, metadata and colour profiles mostly fit.
const HEAD_BYTES: usize = 64 << 10;
/// Characters of base64 that these take.
const HEAD_CHARACTERS: usize = HEAD_BYTES / 3 * 4;
/// Characters at the end that are looked at: they hold the longest end mark, PNG's.
const TAIL_CHARACTERS: usize = 64;
/// Bytes after an end mark that writers have been seen to leave there.
const PADDING_BYTES: usize = 16;
/// PNG's last chunk: no data, and always the same check sum.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";

/// Looks at a file.
pub fn glance(bytes: &[u8]) -> Result<Glance> {
    look(&File { head: bytes, tail: bytes, length: bytes.len() }).map_err(|miss| miss.error())
}

/// Looks at a file that came as standard base64 with padding, decoding its two ends alone where those are enough. Whether
/// all of the text is of base64's alphabet is looked at too.
pub fn glance_base64(text: &str) -> Result<Glance> {
    let length = decoded_length(text).ok_or_else(|| Miss::Base64.error())?;
    let bytes = text.as_bytes();
    let decode = |part: &[u8]| STANDARD.decode(part).map_err(|_| Miss::Base64.error());
    if bytes.len() > HEAD_CHARACTERS + TAIL_CHARACTERS {
        let head = decode(&bytes[..HEAD_CHARACTERS])?;
        let tail = decode(&bytes[bytes.len() - TAIL_CHARACTERS..])?;
        match look(&File { head: &head, tail: &tail, length }) {
            // Further in, or damaged: all of it tells.
            Err(Miss::Size(_) | Miss::End(_)) => {}
            seen => return seen.map_err(|miss| miss.error()),
        }
    }
    glance(&decode(bytes)?)
}

/// Whether `text` is standard base64 with padding, and not empty.
pub fn is_standard_base64(text: &str) -> bool {
    decoded_length(text).is_some()
}

/// The bytes that standard base64 with padding stands for; `None` where it is none.
fn decoded_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let body = bytes.strip_suffix(b"==").or(bytes.strip_suffix(b"=")).unwrap_or(bytes);
    // Without a branch a character: this runs over megabytes.
    let of_alphabet = |chunk: &[u8]| {
        chunk
            .iter()
            .fold(true, |fine, b| fine & (b.is_ascii_alphanumeric() | (*b == b'+') | (*b == b'/')))
    };
    let fine = !bytes.is_empty() && bytes.len() % 4 == 0 && body.chunks(4096).all(of_alphabet);
    fine.then(|| bytes.len() / 4 * 3 - (bytes.len() - body.len()))
}

/// The two ends of a file; each may be all of it.
struct File<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    length: usize,
}

/// What was not found.
enum Miss {
    Base64,
    Kind,
    Size(Format),
    End(Format),
    Nothing(Format),
}

impl Miss {
    fn error(self) -> Error {
        let text = match self {
            Self::Base64 => "is no base64".into(),
            Self::Kind => "is no image of a known format (PNG, JPEG, WebP, GIF, AVIF)".into(),
            Self::Size(format) => format!("is no whole {format:?} image: it does not say its size"),
            Self::End(format) => format!("is no whole {format:?} image: it is cut short"),
            Self::Nothing(format) => format!("is a {format:?} image without pixels"),
        };
        Error::Image(text)
    }
}

fn look(file: &File) -> Result<Glance, Miss> {
    let head = file.head;
    let (format, size) = match head {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => (Format::Png, png_size(head)),
        [0xff, 0xd8, 0xff, ..] => (Format::Jpeg, jpeg_size(head)),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => (Format::Gif, gif_size(head)),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            (Format::Webp, webp_size(head))
        }
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => {
            (Format::Avif, avif_size(head))
        }
        _ => return Err(Miss::Kind),
    };
    let (width, height) = size.ok_or(Miss::Size(format))?;
    if width == 0 || height == 0 {
        return Err(Miss::Nothing(format));
    }
    match ends(file, format) {
        true => Ok(Glance { format, width, height }),
        false => Err(Miss::End(format)),
    }
}

fn ends(file: &File, format: Format) -> bool {
    let tail = &file.tail[file.tail.len().saturating_sub(PNG_END.len() + PADDING_BYTES)..];
    let has = |mark: &[u8]| tail.windows(mark.len()).any(|found| found == mark);
    match format {
        Format::Png => has(PNG_END),
        // Within a scan the byte 0xff is escaped, so that this cannot be picture.
        Format::Jpeg => has(&[0xff, 0xd9]),
        // The end of a block, and that of the file.
        Format::Gif => without_padding(tail).ends_with(&[0, 0x3b]),
        Format::Webp => le32(file.head, 4).is_some_and(|size| file.length >= size as usize + 8),
        Format::Avif => boxes(file.head).all(|part| part.end <= file.length),
    }
}

fn without_padding(mut tail: &[u8]) -> &[u8] {
    while let [rest @ .., 0 | b'\n' | b'\r'] = tail {
        tail = rest;
    }
    tail
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    Some(le16(bytes, at)? | u32::from(*bytes.get(at + 2)?) << 16)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The first chunk is always the header.
fn png_size(head: &[u8]) -> Option<(u32, u32)> {
    (head.get(12..16)? == b"IHDR").then_some((be32(head, 16)?, be32(head, 20)?))
}

fn gif_size(head: &[u8]) -> Option<(u32, u32)> {
    Some((le16(head, 6)?, le16(head, 8)?))
}

/// From the first frame header; segments before it are passed over.
fn jpeg_size(head: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *head.get(at)? != 0xff {
            return None;
        }
        match *head.get(at + 1)? {
            0xff => at += 1, // filling
            0x01 | 0xd0..=0xd8 => at += 2,
            // Frame headers; between them lie Huffman tables, extensions and arithmetic tables.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((be16(head, at + 7)?, be16(head, at + 5)?));
            }
            0xd9 | 0xda => return None,
            _ => at += 2 + be16(head, at + 2)? as usize,
        }
    }
}

/// Of the lossy, the lossless and the extended form.
fn webp_size(head: &[u8]) -> Option<(u32, u32)> {
    match head.get(12..16)? {
        b"VP8 " => {
            let starts = head.get(23..26)? == [0x9d, 0x01, 0x2a];
            starts.then_some((le16(head, 26)? & 0x3fff, le16(head, 28)? & 0x3fff))
        }
        b"VP8L" => {
            let bits = le32(head, 21)?;
            (*head.get(20)? == 0x2f).then_some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => Some((le24(head, 24)? + 1, le24(head, 27)? + 1)),
        _ => None,
    }
}

/// A box of the ISO base media format: its kind, where its content begins and where it ends.
pub(crate) struct Part<'a> {
    pub(crate) kind: &'a [u8],
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The boxes that follow each other in `bytes`; the last may end after them.
pub(crate) fn boxes(bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let kind = bytes.get(at + 4..at + 8)?;
        let (start, size) = match be32(bytes, at)? {
            // To the end of the file.
            0 => (at + 8, bytes.len() - at),
            1 => (at + 16, usize::try_from(be32(bytes, at + 12)?).ok()?),
            size => (at + 8, size as usize),
        };
        let end = at.checked_add(size).filter(|end| *end >= start)?;
        at = end;
        Some(Part { kind, start, end })
    })
}

/// The largest extent of any of its images: beside the picture there may be smaller ones.
fn avif_size(head: &[u8]) -> Option<(u32, u32)> {
    let inside = |bytes: &'_ [u8], kind: &[u8], skip: usize| {
        let part = boxes(bytes).find(|part| part.kind == kind)?;
        Some((part.start + skip, part.end))
    };
    let (start, end) = inside(head, b"meta", 4)?;
    let meta = head.get(start..end)?;
    let (start, end) = inside(meta, b"iprp", 0)?;
    let properties = meta.get(start..end)?;
    let (start, end) = inside(properties, b"ipco", 0)?;
    let container = properties.get(start..end)?;
    boxes(container)
        .filter(|part| part.kind == b"ispe")
        .filter_map(|part| {
            Some((be32(container, part.start + 4)?, be32(container, part.start + 8)?))
        })
        .max_by_key(|(width, height)| u64::from(*width) * u64::from(*height))
}

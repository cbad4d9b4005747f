//! The parameters of a picture in its EXIF data: `UserComment`, where other tools show them too.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Field, In, Reader, Tag, Value};

/// EXIF's mark of a comment in UTF-16.
const UNICODE: &[u8; 8] = b"UNICODE\0";

/// EXIF data with `text` as the user's comment.
pub(crate) fn exif(text: &str) -> Vec<u8> {
    let comment =
        UNICODE.iter().copied().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let software = Field {
        tag: Tag::Software,
        ifd_num: In::PRIMARY,
        value: Value::Ascii(vec![concat!("Zoetrope ", env!("CARGO_PKG_VERSION")).into()]),
    };
    let field =
        Field { tag: Tag::UserComment, ifd_num: In::PRIMARY, value: Value::Undefined(comment, 0) };
    let mut writer = Writer::new();
    writer.push_field(&software);
    writer.push_field(&field);
    let mut bytes = Cursor::new(Vec::new());
    writer.write(&mut bytes, false).expect("two fields in memory can be written");
    bytes.into_inner()
}

/// The text that [`crate::encode`] stored in a file of any of its formats; `None` where there is none.
pub fn read_parameters(bytes: &[u8]) -> Option<String> {
    let exif = Reader::new().read_from_container(&mut Cursor::new(bytes)).ok()?;
    let Value::Undefined(comment, _) = &exif.get_field(Tag::UserComment, In::PRIMARY)?.value else {
        return None;
    };
    let units: Vec<u16> = comment
        .strip_prefix(UNICODE)?
        .chunks_exact(2)
        .map(|b| u16::from_be_bytes([b[0], b[1]]))
        .collect();
    String::from_utf16(&units).ok()
}

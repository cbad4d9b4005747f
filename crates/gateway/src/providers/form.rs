//! Forms with files, as browsers send them (RFC 7578): what edits are sent as.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// A form under way.
pub(super) struct Form {
    boundary: String,
    body: BytesMut,
}

impl Form {
    /// An empty form. `chance` makes a boundary that no file holds.
    pub(super) fn new(chance: &(dyn Fn() -> u64 + Send + Sync)) -> Self {
        let boundary = format!("zoetrope-{:016x}{:016x}", chance(), chance());
        Self { boundary, body: BytesMut::new() }
    }

    /// A field: texts as they are, everything else as JSON writes it.
    pub(super) fn field(&mut self, name: &str, value: &Value) {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        self.begin(name, "");
        self.body.put_slice(text.as_bytes());
        self.body.put_slice(b"\r\n");
    }

    /// A file.
    pub(super) fn file(&mut self, name: &str, content_type: &str, bytes: &[u8]) {
        let ending = content_type.rsplit('/').next().unwrap_or_default();
        let rest = format!("; filename=\"image.{ending}\"\r\nContent-Type: {content_type}");
        self.begin(name, &rest);
        self.body.put_slice(bytes);
        self.body.put_slice(b"\r\n");
    }

    /// Names come from whoever asked: what would end the line is escaped as browsers do.
    fn begin(&mut self, name: &str, rest: &str) {
        let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; name=\"{name}\"{rest}\r\n\r\n",
            self.boundary
        );
        self.body.put_slice(head.as_bytes());
    }

    /// Its content type and bytes.
    pub(super) fn end(mut self) -> (String, Bytes) {
        self.body.put_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_their_line() {
        let mut form = Form::new(&|| 1);
        form.field("a\"\r\nX: y", &Value::from(7));
        form.file("image[]", "image/png", b"bytes");
        let (kind, body) = form.end();
        let boundary = "zoetrope-00000000000000010000000000000001";
        assert_eq!(kind, format!("multipart/form-data; boundary={boundary}"));
        let want = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"a%22%0D%0AX: y\"\r\n\r\n7\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"image.png\"\r\n\
             Content-Type: image/png\r\n\r\nbytes\r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8_lossy(&body), want);
    }
}

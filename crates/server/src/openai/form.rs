//! `multipart/form-data` (RFC 7578), read from memory: parts in any order, whatever framing they came in.

use axum::body::Bytes;

/// The parts of a form, each list in the order in which they came.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Form {
    pub(super) texts: Vec<(String, String)>,
    /// What came with a file name. Their types are told from their bytes later, whatever their senders say.
    pub(super) files: Vec<(String, Bytes)>,
}

/// More than any client sends.
const PARTS_MAX: usize = 200;
/// Bytes of a part's headers.
const HEAD_BYTES_MAX: usize = 8192;

/// The boundary that a content type names; `None` for what is no form.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let found = parameter(parameters, "boundary")?;
    (!found.is_empty() && found.len() <= 200).then_some(found)
}

/// Reads all of `body`; an error says what is wrong with it.
pub(super) fn parse(body: &Bytes, boundary: &str) -> Result<Form, String> {
    let first = format!("--{boundary}");
    let next = format!("\r\n{first}");
    let cut_off = "ends in the middle of a part";
    // A preamble may come before the first one.
    let begins = match body.starts_with(first.as_bytes()) {
        true => Some(first.len()),
        false => delimiter(body, &next, 0).map(|(_, after)| after),
    };
    let mut at = begins.ok_or("has no parts")?;
    let mut form = Form::default();
    for _ in 0..=PARTS_MAX {
        if body[at..].starts_with(b"--") {
            return Ok(form);
        }
        // Whitespace may follow a boundary. Headers begin after its line, and end with an empty one.
        let line = find(body, b"\r\n", at).ok_or(cut_off)?;
        let head_end = find(body, b"\r\n\r\n", line).ok_or(cut_off)?;
        if head_end - line > HEAD_BYTES_MAX {
            return Err(format!("has a part with more than {HEAD_BYTES_MAX} bytes of headers"));
        }
        let head = String::from_utf8_lossy(&body[line..head_end]).into_owned();
        let content = head_end + b"\r\n\r\n".len();
        let (end, after) = delimiter(body, &next, content).ok_or(cut_off)?;
        form.add(&head, body.slice(content..end))?;
        at = after;
    }
    Err(format!("has more than {PARTS_MAX} parts"))
}

/// Where the next delimiter begins, and where what follows it does. What only begins like one is content.
fn delimiter(body: &[u8], next: &str, mut from: usize) -> Option<(usize, usize)> {
    loop {
        let begin = find(body, next.as_bytes(), from)?;
        let after = begin + next.len();
        let rest = &body[after..];
        let padded = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(0);
        if rest.starts_with(b"--") || rest[padded..].starts_with(b"\r\n") {
            return Some((begin, after));
        }
        from = after;
    }
}

impl Form {
    fn add(&mut self, head: &str, content: Bytes) -> Result<(), String> {
        let disposition = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))
            .map(|(_, value)| value)
            .ok_or("has a part without Content-Disposition")?;
        let (_, parameters) = disposition.split_once(';').unwrap_or_default();
        let name = parameter(parameters, "name").ok_or("has a part without a name")?;
        let is_file =
            ["filename", "filename*"].iter().any(|key| parameter(parameters, key).is_some());
        if is_file {
            self.files.push((name, content));
            return Ok(());
        }
        let text = String::from_utf8(content.to_vec());
        let text = text.map_err(|_| format!("has a field `{name}` that is no UTF-8 text"))?;
        self.texts.push((name, text));
        Ok(())
    }
}

/// The value of a header's parameter, in quotes or without. Browsers write `"` in a name as `%22`, others as `\"`.
fn parameter(parameters: &str, key: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_matches(|c: char| c == ';' || c.is_whitespace());
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_string(), &after[end..])
            }
        };
        if name.eq_ignore_ascii_case(key) {
            return Some(value);
        }
        rest = left;
    }
}

/// A text up to its closing quote, and what follows.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return Some((value, &quoted[at + 1..])),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            // Only quotes are escaped: a path of Windows keeps its strokes.
            c if escaped && c != '"' && c != '\\' => value.extend(['\\', c]),
            c => value.push(c),
        }
        escaped = false;
    }
    None
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    let (first, rest) = what.split_first()?;
    let mut at = 0;
    while let Some(step) = tail[at..].iter().position(|byte| byte == first) {
        at += step;
        if tail[at + 1..].starts_with(rest) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Form, String> {
        parse(&Bytes::from(text.replace('\n', "\r\n")), "b")
    }

    #[test]
    fn parts_are_read_in_their_order() {
        let form = read(concat!(
            "preamble\n--b\nContent-Disposition: form-data; name=\"image\"; filename=\"a \\\"b\\\".png\"\n",
            "Content-Type: application/octet-stream\n\n\u{1}\n--bx\n\n--b\ncontent-disposition: form-data; name=model\n\nz-image\n",
            "--b  \nContent-Disposition: form-data; name=\"image[]\"; filename=\"\"\n\n\n--b\n",
            "Content-Disposition: form-data; name=\"prompt\"\n\n\n--b--\nepilogue",
        ))
        .unwrap();
        let text = |name: &str, text: &str| (name.to_string(), text.to_string());
        assert_eq!(form.texts, [text("model", "z-image"), text("prompt", "")]);
        let file = |name: &str, text: &str| (name.to_string(), Bytes::from(text.to_string()));
        assert_eq!(form.files, [file("image", "\u{1}\r\n--bx\r\n"), file("image[]", "")]);
    }

    #[test]
    fn what_is_no_form_says_what_is_wrong() {
        let cases = [
            ("", "has no parts"),
            ("--b", "ends in the middle of a part"),
            (
                "--b\nContent-Disposition: form-data; name=\"a\"\n\nx",
                "ends in the middle of a part",
            ),
            ("--b\nContent-Disposition: form-data\n\nx\n--b--", "has a part without a name"),
            ("--b\nX: y\n\nx\n--b--", "has a part without Content-Disposition"),
            ("--b\n\nx\n--b--", "has a part without Content-Disposition"),
            (
                "--b\nContent-Disposition: form-data; name=\"a\"\n\nx\n--bb--",
                "ends in the middle of a part",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(read(text), Err(want.into()), "{text:?}");
        }
        assert_eq!(read("--b--"), Ok(Form::default()));
    }

    #[test]
    fn boundaries_are_found_in_content_types() {
        let cases = [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("application/json; boundary=x", None),
        ];
        for (text, want) in cases {
            assert_eq!(boundary(text).as_deref(), want, "{text}");
        }
    }
}

//! Names of stored files: nobody can guess one, and no client can choose where it leads.

use std::fmt;

/// The name of a file: 32 random characters, a slash, and what its sender called it as far as that is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

/// 128 bits in hexadecimal: too many to try.
const ID_CHARACTERS: usize = 32;
/// Well below the 255 bytes that file systems take, so that a store may add to it.
const FILE_NAME_BYTES_MAX: usize = 100;

impl Name {
    /// A new name for what somebody calls `file_name`.
    pub fn new(file_name: &str) -> Self {
        let mut random = [0; ID_CHARACTERS / 2];
        getrandom::fill(&mut random).expect("the system has random numbers");
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{id}/{}", harmless(file_name)))
    }

    /// The name that `text` is, if it is one of ours: nothing else ever reaches the store.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, file_name) = text.split_once('/')?;
        let hexadecimal = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let ours = id.len() == ID_CHARACTERS && hexadecimal && file_name == harmless(file_name);
        ours.then(|| Self(text.into()))
    }

    /// As it stands in an address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The random part.
    pub fn id(&self) -> &str {
        &self.0[..ID_CHARACTERS]
    }

    /// What its sender called it, as far as that is harmless.
    pub fn file_name(&self) -> &str {
        &self.0[ID_CHARACTERS + 1..]
    }
}

/// `text` without the names in it: whoever reads a log must not have the files.
pub fn redacted(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        match digits.len() == ID_CHARACTERS {
            true => out.extend([&digits[..8], "…", &word[ID_CHARACTERS..]]),
            false => out.push_str(word),
        }
    }
    out
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last part of a path in letters, digits and `._-`, its ending kept. What is harmless stays as it is.
fn harmless(file_name: &str) -> String {
    let last = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let fine = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let clean: String = last.chars().map(fine).collect();
    let clean = clean.trim_start_matches('.');
    let start = clean.len().saturating_sub(FILE_NAME_BYTES_MAX); // the end holds the ending
    match clean[start..].trim_start_matches('.') {
        "" => "file".into(),
        name => name.into(),
    }
}

/// The content type of a file, by the ending of its name; nothing that a browser would run.
pub fn content_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "avif" => "image/avif",
        "json" => "application/json",
        "zip" => "application/zip",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_log_is_cut() {
        let name = Name::new("house.png");
        let text = format!("cannot read /data/files/{name}: no such file (0123456789abcdef)");
        let cut = redacted(&text);
        assert!(!cut.contains(name.id()) && cut.contains(&name.id()[..8]), "{cut}");
        assert!(cut.ends_with("house.png: no such file (0123456789abcdef)"), "{cut}");
        assert_eq!(redacted("ö – nothing"), "ö – nothing");
    }
}

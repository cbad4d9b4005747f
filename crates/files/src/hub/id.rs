//! Names that become paths and addresses: a repository with its revision, and the files that a hub lists.

use std::fmt;
use std::str::FromStr;

use super::{Error, Result};

/// The revision meant when none is named.
pub const MAIN: &str = "main";

/// The hub's own limit on an owner and a name, together with the slash.
const ID_CHARS_MAX: usize = 96 * 2 + 1;

/// `owner/name[@revision]`, checked: both parts are safe as a folder's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    name: String,
    revision: String,
}

impl Repo {
    /// `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, tag or commit; `main` when none was named.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same repository at another revision.
    pub fn at(&self, revision: &str) -> Result<Self> {
        format!("{}@{revision}", self.name).parse()
    }

    /// The folder in the cache, as every client of the hub names it.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }

    /// The inverse of `folder`; `None` for folders of other things.
    pub(super) fn of_folder(folder: &str) -> Option<Self> {
        folder.strip_prefix("models--")?.replacen("--", "/", 1).parse().ok()
    }
}

impl FromStr for Repo {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        let bad = |why| Error::BadId { id: id.chars().take(200).collect(), why };
        let (name, revision) = id.split_once('@').unwrap_or((id, MAIN));
        let (owner, model) =
            name.split_once('/').ok_or(bad("a slash between owner and name is missing"))?;
        if name.len() > ID_CHARS_MAX {
            return Err(bad("it is too long"));
        }
        for part in [owner, model] {
            // Two hyphens separate owner and name in the cache; the hub allows them in neither.
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let ends = part.starts_with(['-', '.']) || part.ends_with(['-', '.']);
            if part.is_empty()
                || !part.chars().all(allowed)
                || ends
                || part.contains("--")
                || part.contains("..")
            {
                return Err(bad("owner and name are letters, digits, `-`, `_` and `.`"));
            }
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if revision.len() > 200 || !revision.chars().all(allowed) || !is_safe_path(revision) {
            return Err(bad("a revision is a branch, a tag or a commit"));
        }
        Ok(Self { name: name.into(), revision: revision.into() })
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision != MAIN { write!(f, "@{}", self.revision) } else { Ok(()) }
    }
}

/// Whether a name from outside, joined to a folder, stays in it on every system: plain parts between single slashes.
pub(super) fn is_safe_path(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let harmless = |c: char| !c.is_control() && !"\\:*?\"<>|".contains(c);
    name.len() <= 1024 && name.split('/').all(plain) && name.chars().all(harmless)
}

/// Whether an etag can be the name of a blob: a SHA-1 or SHA-256 in hexadecimal.
pub(super) fn is_hash(etag: &str) -> bool {
    matches!(etag.len(), 40 | 64) && etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A path or revision as a part of an address; `keep` is left as it is besides the unreserved characters.
pub(super) fn percent_encoded(text: &str, keep: &str) -> String {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || keep.as_bytes().contains(&b);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_owner_name_and_perhaps_a_revision() {
        let ok = |id: &str| id.parse::<Repo>().map(|repo| (repo.name, repo.revision)).ok();
        let pair = |name: &str, revision: &str| Some((name.to_string(), revision.to_string()));
        assert_eq!(ok("Tongyi-MAI/Z-Image-Turbo"), pair("Tongyi-MAI/Z-Image-Turbo", "main"));
        assert_eq!(ok("a/b_c.d@refs/pr/3"), pair("a/b_c.d", "refs/pr/3"));
        let bad = [
            "", "a", "/b", "a/", "a/b/c", "../b", "a/..", "a b/c", "a/b@", "a/b@../x", "a/b@/x",
            "a/b@x y", "a--b/c", "a/-b", "a\\b/c",
        ];
        for id in bad {
            assert_eq!(ok(id), None, "{id}");
        }
    }

    #[test]
    fn folders_lead_back_to_names() {
        let repo: Repo = "Tongyi-MAI/Z-Image-Turbo".parse().unwrap();
        assert_eq!(repo.folder(), "models--Tongyi-MAI--Z-Image-Turbo");
        assert_eq!(Repo::of_folder(&repo.folder()), Some(repo));
        assert_eq!(Repo::of_folder("datasets--a--b"), None);
        assert_eq!(Repo::of_folder("models--gpt2"), None);
    }

    #[test]
    fn file_names_stay_in_their_folder() {
        for name in ["model_index.json", "vae/config.json", "a/b c/ü.txt", "..hidden"] {
            assert!(is_safe_path(name), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../evil",
            "a/../../b",
            "a//b",
            "./a",
            "a/.",
            "C:/x",
            "a\\..\\b",
            "a\0b",
            "a/",
        ] {
            assert!(!is_safe_path(name), "{name:?}");
        }
    }
}

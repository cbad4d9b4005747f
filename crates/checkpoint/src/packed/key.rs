//! What packed weights were made from: whatever changes them changes the key.

use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use zoetrope_kernels::{Level, PACKING};

use crate::blob::Blob;
use crate::file::WeightFile;
use crate::{Role, Storage, hex};

/// The key of a network's packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// What it is of, for people.
    pub(crate) what: String,
    /// Everything that it depends on.
    pub(crate) text: String,
}

impl Key {
    /// The key of `files`, which `blobs` are; `None` for what is part of the program.
    pub(crate) fn new(
        blobs: &[Blob],
        files: &[WeightFile],
        role: Role,
        storage: Storage,
    ) -> Option<Self> {
        let mut text = format!("packing {PACKING}, {}, {role:?}, {storage}", Level::best());
        for (blob, file) in blobs.iter().zip(files) {
            let Blob::File(path) = blob else { return None };
            let path = path.canonicalize().ok()?;
            let metadata = std::fs::metadata(&path).ok()?;
            let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
            let header = hex(&Sha256::digest(&file.bytes.all()[..file.header]));
            let (path, size) = (path.display(), metadata.len());
            text += &format!("\n{path} {size} {changed} {header}");
        }
        let first = files.first()?;
        let more =
            if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
        Some(Self { what: format!("{storage} of {}{more}", first.name), text })
    }

    /// The name of its file.
    pub(crate) fn name(&self) -> String {
        hex(&Sha256::digest(&self.text)[..16])
    }
}

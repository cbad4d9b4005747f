//! Bytes of a file: mapped from disk, or part of the binary.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Error, Result};

/// A file of weights or of configuration.
#[derive(Clone, Debug)]
pub enum Blob {
    /// On disk.
    File(PathBuf),
    /// Inside the binary: the embedded model.
    Static {
        /// Its path in the model's folder, as `vae/config.json`.
        name: &'static str,
        /// What it holds.
        bytes: &'static [u8],
    },
}

/// Configuration files are small; anything above this is not one.
const CONFIG_BYTES_MAX: u64 = 64 << 20;

impl Blob {
    /// What to call it in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Static { name, .. } => format!("embedded {name}"),
        }
    }

    /// All of a configuration file.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => {
                let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
                if size > CONFIG_BYTES_MAX {
                    return Err(Error::broken(
                        self.name(),
                        format!("has {size} bytes; no configuration is that large"),
                    ));
                }
                std::fs::read(path).map_err(|e| Error::io(path, e))
            }
            Self::Static { bytes, .. } => Ok(bytes.to_vec()),
        }
    }

    pub(crate) fn ends_with(&self, ending: &str) -> bool {
        match self {
            Self::File(path) => path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending)),
            Self::Static { name, .. } => name.ends_with(ending),
        }
    }

    pub(crate) fn map(&self) -> Result<Bytes> {
        match self {
            Self::File(path) => map(path).map(|map| Bytes::Mapped(Arc::new(map))),
            Self::Static { bytes, .. } => Ok(Bytes::Static(bytes)),
        }
    }
}

pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
    if !metadata.is_file() {
        return Err(Error::broken(path.display().to_string(), "is not a file"));
    }
    if metadata.len() == 0 {
        return Err(Error::broken(path.display().to_string(), "is empty: download it again"));
    }
    // SAFETY: the map is only read, and as bytes. Another process that shortens the file while it is loaded ends this
    // one with SIGBUS; no way of reading large files without copying them is safe from that.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

/// The bytes of a blob; cheap to clone.
#[derive(Clone)]
pub(crate) enum Bytes {
    Mapped(Arc<Mmap>),
    Static(&'static [u8]),
}

impl Bytes {
    pub(crate) fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }

    /// Gives the pages of a range that was copied out back to the system, so that a file does not stay in memory
    /// beside what was made of it.
    pub(crate) fn release(&self, start: usize, end: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is of a file and read only, so that dropped pages come back from the file.
            #[allow(unsafe_code)]
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }
}

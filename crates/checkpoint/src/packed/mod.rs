//! Packed weights between two runs: a folder with a file for every network and form, mapped where it is there.
//!
//! Bringing weights into the order in which they are multiplied takes most of the time of loading. Files here hold them in
//! that order, under a key that changes with the weights' files, the form and the order. They may be removed at any time.

mod file;
mod key;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) use file::{Damage, Reader, Writer};
pub(crate) use key::Key;

/// What a file's name ends in, and that of one that is being written.
const ENDING: &str = "packed";
const PARTIAL: &str = "partial";
/// A file that is being written is touched all the time; one that was not for so long was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);
/// Bytes of the disk that are left alone, or as many as the file takes where that is less.
const FREE_MIN: u64 = 4 << 30;

/// A folder of packed weights.
#[derive(Clone, Debug)]
pub struct PackedFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of all files together; those that were not used for longest go first.
    pub bytes_max: u64,
    /// Networks with fewer parameters are packed faster than looked up.
    pub parameters_min: u64,
}

/// A file in such a folder.
#[derive(Clone, Debug)]
pub struct PackedEntry {
    /// Where it is.
    pub path: PathBuf,
    /// What it was made from, in words.
    pub what: String,
    /// Its size.
    pub bytes: u64,
    used: SystemTime,
}

impl PackedFolder {
    /// Networks below this are not kept by a folder that nobody says otherwise of.
    pub const PARAMETERS_MIN: u64 = 200_000_000;

    /// What is in it, the one used last first. A folder that is not there is empty.
    pub fn entries(&self) -> io::Result<Vec<PackedEntry>> {
        let mut found = Vec::new();
        for path in files(&self.path, ENDING)? {
            // Another process may have removed it just now.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let what = Reader::what(&path).unwrap_or_else(|| "damaged".into());
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(PackedEntry { path, what, bytes: metadata.len(), used });
        }
        found.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        Ok(found)
    }

    /// Removes everything in it; the bytes that are free now.
    pub fn clear(&self) -> io::Result<u64> {
        let mut freed = 0;
        for path in files(&self.path, ENDING)?.into_iter().chain(files(&self.path, PARTIAL)?) {
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => freed += bytes,
            }
        }
        Ok(freed)
    }

    pub(crate) fn file(&self, key: &Key) -> PathBuf {
        self.path.join(format!("{}.{ENDING}", key.name()))
    }

    /// Makes room for `bytes` more; a reason why they cannot be kept.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), String> {
        let says = |error: io::Error| format!("{}: {error}", self.path.display());
        if bytes > self.bytes_max {
            let (bytes, most) = (gigabytes(bytes), gigabytes(self.bytes_max));
            return Err(format!("it takes {bytes} and all of them may take {most}"));
        }
        fs::create_dir_all(&self.path).map_err(says)?;
        for path in files(&self.path, PARTIAL).map_err(says)? {
            if age(&path).is_some_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(path); // whoever else removed it did the same
            }
        }
        let mut entries = self.entries().map_err(says)?;
        while entries.iter().map(|entry| entry.bytes).sum::<u64>() + bytes > self.bytes_max {
            let Some(oldest) = entries.pop() else { break };
            fs::remove_file(&oldest.path).map_err(says)?;
        }
        let free = fs4::available_space(&self.path).map_err(says)?;
        if free < bytes + FREE_MIN.min(bytes) {
            let (bytes, free) = (gigabytes(bytes), gigabytes(free));
            return Err(format!("it takes {bytes} and the disk has {free} left"));
        }
        Ok(())
    }

    /// Where `key`'s file is written until it is whole.
    pub(crate) fn partial(&self, key: &Key) -> PathBuf {
        self.path.join(format!("{}-{}.{PARTIAL}", key.name(), std::process::id()))
    }
}

fn files(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == ending)).collect())
}

fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

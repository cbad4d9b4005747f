//! A folder or a zip as a list of files by their paths, and their bytes under limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zip::ZipArchive;

use crate::{Error, Result};

/// Files that a folder or zip may hold.
pub const ENTRIES_MAX: usize = 50_000;
/// Bytes of one of them, unpacked: as much as is read of a picture.
pub const ENTRY_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all files of a zip together, unpacked.
pub const TOTAL_BYTES_MAX: u64 = 32 << 30;

/// Where pictures and captions are.
pub(super) enum Source {
    Folder { root: PathBuf, names: BTreeSet<String> },
    Zip { archive: Mutex<ZipArchive<File>>, indices: BTreeMap<String, usize> },
}

impl Source {
    /// Lists what is at `place`; a zip is told by its content.
    pub(super) fn open(place: &Path) -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::data(place.display(), format!("cannot be read: {e}"));
        if std::fs::metadata(place).map_err(failed)?.is_dir() {
            let (root, mut names) = (place.canonicalize().map_err(failed)?, BTreeSet::new());
            list(&mut vec![root.clone()], "", &mut names)
                .map_err(|problem| Error::data(place.display(), problem))?;
            return Ok(Self::Folder { root, names });
        }
        let file = File::open(place).map_err(failed)?;
        zip(file).map_err(|problem| Error::data(place.display(), problem))
    }

    /// Paths with `/` between their parts, in order.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Folder { names, .. } => Box::new(names.iter().map(String::as_str)),
            Self::Zip { indices, .. } => Box::new(indices.keys().map(String::as_str)),
        }
    }

    /// The bytes of a file of `names`.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let failed = |e: std::io::Error| format!("cannot be read: {e}");
        match self {
            Self::Folder { root, .. } => {
                let file = File::open(root.join(name)).map_err(failed)?;
                file.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
            }
            Self::Zip { archive, indices } => {
                let index = *indices.get(name).ok_or("is not in the zip")?;
                let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                let failed = |e: &dyn Display| {
                    format!("cannot be unpacked ({e}); pack it again, deflated or stored")
                };
                // It ends in an error where more comes than the zip says: the sum that was checked is held.
                let file = archive.by_index(index).map_err(|e| failed(&e))?;
                file.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
            }
        }
        if bytes.len() as u64 > ENTRY_BYTES_MAX {
            return Err(format!(
                "is larger than {} MiB, the most that is read",
                ENTRY_BYTES_MAX >> 20
            ));
        }
        Ok(bytes)
    }
}

/// What systems put into folders, and what is hidden.
fn is_hidden(part: &str) -> bool {
    part.starts_with('.') || ["__MACOSX", "Thumbs.db", "desktop.ini"].contains(&part)
}

/// Adds the files below the last of `folders`, each of which lies in the one before; `prefix` is its path in the whole.
fn list(
    folders: &mut Vec<PathBuf>,
    prefix: &str,
    names: &mut BTreeSet<String>,
) -> Result<(), String> {
    let Some(folder) = folders.last().cloned() else { return Ok(()) };
    let failed =
        |path: &Path, e: std::io::Error| format!("{}: cannot be read: {e}", path.display());
    for entry in std::fs::read_dir(&folder).map_err(|e| failed(&folder, e))? {
        let path = entry.map_err(|e| failed(&folder, e))?.path();
        let Some(part) = path.file_name().and_then(|part| part.to_str()) else {
            return Err(format!("{}: its name is not UTF-8; rename it", path.display()));
        };
        if is_hidden(part) {
            continue;
        }
        let name = format!("{prefix}{part}");
        // Where links lead, their owner decided.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let folder = path.canonicalize().map_err(|e| failed(&path, e))?;
                if folders.contains(&folder) {
                    return Err(format!("{name} is a link to a folder that it lies in; remove it"));
                }
                folders.push(folder);
                list(folders, &format!("{name}/"), names)?;
                folders.pop();
            }
            // A pipe or a device has no end.
            Ok(metadata) if !metadata.is_file() => {}
            // Whoever reads a link to nothing will say so.
            Ok(_) | Err(_) => drop(names.insert(name)),
        }
        if names.len() > ENTRIES_MAX {
            return Err(format!("holds more than {ENTRIES_MAX} files, the most that is read"));
        }
    }
    Ok(())
}

/// The entries of a zip, each checked before anything is unpacked.
fn zip(file: File) -> Result<Source, String> {
    let mut archive = ZipArchive::new(file).map_err(|e| {
        format!("is neither a folder nor a whole zip ({e}); it may be cut short: pack it again")
    })?;
    if archive.len() > ENTRIES_MAX {
        return Err(format!(
            "holds {} files; {ENTRIES_MAX} are the most that is read",
            archive.len()
        ));
    }
    if archive.is_empty() {
        return Err("is an empty zip; pack pictures into it".into());
    }
    if archive.has_duplicate_names() {
        return Err("has two files of one name; pack it again".into());
    }
    let (mut indices, mut total) = (BTreeMap::new(), 0u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|e| format!("has a damaged entry: {e}"))?;
        let name = entry
            .name()
            .map_err(|_| "has a file whose name is not UTF-8; rename it".to_string())?;
        let name = name.replace('\\', "/");
        if climbs(&name) {
            return Err(format!(
                "has the entry `{name}`, which leads out of the zip; pack it again without"
            ));
        }
        // Some packers write `./a.png`.
        let name = name.split('/').filter(|part| !part.is_empty() && *part != ".");
        let name = name.collect::<Vec<_>>().join("/");
        if entry.is_dir() || name.split('/').any(is_hidden) {
            continue;
        }
        if entry.is_symlink() {
            return Err(format!("has the link `{name}`; pack the file in its place"));
        }
        if entry.encrypted() {
            return Err(format!("is encrypted at `{name}`; pack it without a password"));
        }
        total = total.saturating_add(entry.size());
        if total > TOTAL_BYTES_MAX {
            let gigabytes = TOTAL_BYTES_MAX >> 30;
            return Err(format!("unpacks to more than {gigabytes} GiB, the most that is read"));
        }
        if indices.insert(name.clone(), index).is_some() {
            return Err(format!("has `{name}` twice; pack it again"));
        }
    }
    Ok(Source::Zip { archive: Mutex::new(archive), indices })
}

/// Whether a path leads elsewhere than into its own folder.
fn climbs(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    name.starts_with('/')
        || drive
        || name.split('/').any(|part| part == ".." || part.contains('\0'))
}

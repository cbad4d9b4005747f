//! Files that are there whole or not at all.

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Writes `bytes` to `path`: into a temporary file beside it, which then takes its place.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| error(path, format!("cannot be written: {e}"));
    let mut file = temporary(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let temporary = file.into_temp_path();
    readable(&temporary).map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))
}

/// Whether `path` can be written, asked before work that takes long.
pub fn check_writable(path: &Path) -> Result<()> {
    temporary(path).map(drop)
}

fn temporary(path: &Path) -> Result<NamedTempFile> {
    if path.is_dir() {
        return Err(error(path, "is a folder; give a file's name".into()));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(error(
            path,
            format!("cannot be written: there is no folder {}", folder.display()),
        ));
    }
    NamedTempFile::new_in(folder).map_err(|e| error(path, format!("cannot be written: {e}")))
}

/// Temporary files are private; results are as readable as any new file.
pub(crate) fn readable(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = path;
    Ok(())
}

fn error(path: &Path, problem: String) -> Error {
    Error::File { file: path.display().to_string(), problem }
}

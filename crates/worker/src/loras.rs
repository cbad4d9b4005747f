//! Files of adapters: from an address, the hub, an upload or a folder of this machine, kept by their content.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zoetrope_api::task::Lora;
use zoetrope_files::Name;
use zoetrope_files::fetch::Limit;

use crate::attempt::Room;
use crate::error::JobError;
use crate::inputs::{copy_stored, own_file, refused};

/// Larger than any LoRA of a 6B model; a whole checkpoint is not one.
const LORA: Limit = Limit { bytes_max: 2 << 30, timeout_ms: 600_000 };
/// How long an address is taken to hold what it held.
const FRESH: Duration = Duration::from_secs(3600);
/// Bytes of the cache; above, what was not used for longest goes.
const CACHE_BYTES_MAX: u64 = 20 << 30;

/// The file of `lora`, the request's `index`-th.
pub(crate) async fn adapter(
    lora: &Lora,
    index: usize,
    base: &str,
    room: &Room,
) -> Result<PathBuf, JobError> {
    let path = [json!("loras"), json!(index), json!("path")];
    let text = lora.path.as_str();
    if text.starts_with("http://") || text.starts_with("https://") {
        return match own_file(text, base, room, &path).await? {
            Some(name) => stored(&name, &path, room).await,
            None => download(text, &path, room).await,
        };
    }
    if !text.contains('/')
        && let Some(file) = room.lora_folder.as_deref().and_then(|folder| named(folder, text))
    {
        return Ok(file);
    }
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [owner, repo] if is_word(owner) && is_word(repo) => {
            let file = only_file(owner, repo, &path, room).await?;
            download(&resolve(room, owner, repo, &file), &path, room).await
        }
        [owner, repo, file @ ..]
            if !file.is_empty() && [*owner, *repo].iter().chain(file).all(|p| is_word(p)) =>
        {
            download(&resolve(room, owner, repo, &file.join("/")), &path, room).await
        }
        _ => {
            let message = "This is no address (https://…), no hub id (owner/repo or owner/repo/file.safetensors) \
                           and no file in the server's folder of LoRAs";
            Err(JobError::field(&path, "value_error", message))
        }
    }
}

/// An uploaded adapter as a file on this machine.
async fn stored(name: &Name, path: &[Value], room: &Room) -> Result<PathBuf, JobError> {
    let file = room.cache.join(format!("{}.safetensors", hex(name.as_str().as_bytes())));
    if was_used(&file) {
        return Ok(file);
    }
    copy_stored(name, &file, LORA.bytes_max, path, room).await?;
    let folder = room.cache.clone();
    let pruned = tokio::task::spawn_blocking(move || prune(&folder, CACHE_BYTES_MAX)).await;
    pruned.map_err(|e| JobError::Passing(e.to_string()))?.map_err(in_cache)?;
    Ok(file)
}

fn in_cache(error: std::io::Error) -> JobError {
    JobError::Passing(format!("the cache of LoRA files: {error}"))
}

/// Whether `file` is in the cache; it then counts as used now.
fn was_used(file: &Path) -> bool {
    let opened = std::fs::File::options().append(true).open(file);
    opened.is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok())
}

/// A part of a hub id or the name of a file: nothing that leads elsewhere.
fn is_word(part: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part.len() <= 128 && !part.starts_with('.') && part.chars().all(fine)
}

fn named(folder: &Path, name: &str) -> Option<PathBuf> {
    let with_ending = |name: &str| folder.join(format!("{name}.safetensors"));
    let file = match name.ends_with(".safetensors") {
        true => folder.join(name),
        false => with_ending(name),
    };
    (is_word(name) && file.is_file()).then_some(file)
}

fn resolve(room: &Room, owner: &str, repo: &str, file: &str) -> String {
    format!("{}/{owner}/{repo}/resolve/main/{file}", room.hub)
}

/// The LoRA file of a repository that names none: the usual name, or the only one there is.
async fn only_file(
    owner: &str,
    repo: &str,
    path: &[Value],
    room: &Room,
) -> Result<String, JobError> {
    let url = format!("{}/api/models/{owner}/{repo}", room.hub);
    let limit = Limit { bytes_max: 4 << 20, timeout_ms: 30_000 };
    let fetched = room.fetcher.get(&url, limit).await.map_err(|e| refused(path, e))?;
    let listing: Value = serde_json::from_slice(&fetched.bytes).unwrap_or_default();
    let siblings = listing["siblings"].as_array().into_iter().flatten();
    let names = siblings.filter_map(|entry| entry["rfilename"].as_str());
    let files: Vec<&str> = names.filter(|name| name.ends_with(".safetensors")).collect();
    match files.as_slice() {
        [only] => Ok((*only).into()),
        many if many.contains(&"pytorch_lora_weights.safetensors") => {
            Ok("pytorch_lora_weights.safetensors".into())
        }
        many => {
            let message = format!(
                "{owner}/{repo} has {} .safetensors files; name one, as {owner}/{repo}/{}",
                many.len(),
                many.first().unwrap_or(&"file.safetensors")
            );
            Err(JobError::field(path, "value_error", message))
        }
    }
}

/// The file at `url`, from the cache while it is fresh. Files lie there by their content, so that two addresses of one file
/// are one adapter in memory.
async fn download(url: &str, path: &[Value], room: &Room) -> Result<PathBuf, JobError> {
    let passing = |e: String| JobError::Passing(format!("the cache of LoRA files: {e}"));
    let known = room.cache.join(format!("{}.address", hex(url.as_bytes())));
    if is_fresh(&known)
        && let Ok(content) = std::fs::read_to_string(&known)
        && let file = room.cache.join(content.trim())
        && was_used(&file)
    {
        return Ok(file);
    }
    let part = room.cache.join(format!("{}.{}.part", hex(url.as_bytes()), std::process::id()));
    room.fetcher.download(url, LORA, &part).await.map_err(|e| refused(path, e))?;
    let place = room.cache.clone();
    let keep = move || -> std::io::Result<PathBuf> {
        let mut hash = Sha256::new();
        std::io::copy(&mut std::fs::File::open(&part)?, &mut Hasher(&mut hash))?;
        let name = format!("{}.safetensors", to_hex(&hash.finalize()));
        std::fs::rename(&part, place.join(&name))?;
        std::fs::write(&known, &name)?;
        prune(&place, CACHE_BYTES_MAX)?;
        Ok(place.join(name))
    };
    let kept = tokio::task::spawn_blocking(keep).await.map_err(|e| passing(e.to_string()))?;
    kept.map_err(|e| passing(e.to_string()))
}

/// Deletes what was not used for longest, until at most `bytes_max` are left. The newest file always stays.
fn prune(folder: &Path, bytes_max: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_file() {
            files.push((about.modified()?, about.len(), entry.path()));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    files.pop();
    for (_, size, file) in files {
        if bytes <= bytes_max {
            break;
        }
        std::fs::remove_file(file)?;
        bytes -= size;
    }
    Ok(())
}

struct Hasher<'a>(&'a mut Sha256);

impl std::io::Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn is_fresh(file: &Path) -> bool {
    let modified = std::fs::metadata(file).and_then(|m| m.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() < FRESH)
}

fn hex(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_forgets_what_was_not_used_for_longest() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in [("old", 300), ("older", 400), ("new", 100)] {
            let file = folder.path().join(name);
            std::fs::write(&file, [0; 10]).unwrap();
            let file = std::fs::File::options().append(true).open(file).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let left = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        prune(folder.path(), 30).unwrap();
        assert_eq!(left().len(), 3);
        prune(folder.path(), 25).unwrap();
        assert_eq!(left(), ["new", "old"]);
        prune(folder.path(), 1).unwrap();
        assert_eq!(left(), ["new"]);
    }

    #[test]
    fn names_lead_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("style.safetensors"), "x").unwrap();
        std::fs::write(folder.path().join("secret.txt"), "x").unwrap();
        let found = Some(folder.path().join("style.safetensors"));
        for (name, expected) in [
            ("style", &found),
            ("style.safetensors", &found),
            ("secret.txt", &None),
            ("../style", &None),
            ("..", &None),
            (".style", &None),
            ("", &None),
        ] {
            assert_eq!(&named(folder.path(), name), expected, "{name}");
        }
    }
}

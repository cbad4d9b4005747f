//! What a request refers to: addresses become a decoded image and files of adapters.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zoetrope_api::task::{Generate, Lora};
use zoetrope_files::fetch::{FetchError, Limit, data_uri};
use zoetrope_files::{Limits, Name, Picture, StoreError};

use crate::attempt::Room;
use crate::error::JobError;

/// What the engine needs besides numbers and words.
pub(crate) struct Inputs {
    pub(crate) picture: Option<Picture>,
    pub(crate) loras: Vec<(PathBuf, f64)>,
}

/// fal's own limit for an image.
const IMAGE: Limit = Limit { bytes_max: 50 << 20, timeout_ms: 30_000 };
/// Larger than any LoRA of a 6B model; a whole checkpoint is not one.
const LORA: Limit = Limit { bytes_max: 2 << 30, timeout_ms: 600_000 };
/// How long an address is taken to hold what it held.
const FRESH: Duration = Duration::from_secs(3600);

/// Fetches everything that `task` refers to; `base` is where its sender reaches this server.
pub(crate) async fn fetch(task: &Generate, base: &str, room: &Room) -> Result<Inputs, JobError> {
    let picture = match &task.image {
        Some(reference) => Some(image(&reference.url, base, room).await?),
        None => None,
    };
    let mut loras = Vec::new();
    for (index, lora) in task.loras.iter().enumerate() {
        loras.push((adapter(lora, index, base, room).await?, lora.scale));
    }
    Ok(Inputs { picture, loras })
}

async fn image(url: &str, base: &str, room: &Room) -> Result<Picture, JobError> {
    let path = [json!("image_url")];
    let bytes = if url.starts_with("data:") {
        data_uri(url, IMAGE.bytes_max).map_err(|e| refused(&path, e))?.bytes
    } else {
        match own_file(url, base, room, &path).await? {
            Some(name) => {
                let read = room.store.read(&name, IMAGE.bytes_max).await;
                read.map_err(|e| unread(&path, e))?.ok_or_else(|| gone(&path))?
            }
            None => room.fetcher.get(url, IMAGE).await.map_err(|e| refused(&path, e))?.bytes,
        }
    };
    let decode = move || {
        let limits = Limits { bytes_max: IMAGE.bytes_max, ..Limits::default() };
        zoetrope_files::decode(&bytes, &limits)
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    let decoded = decoded.map_err(|_| JobError::Engine("decoding an image panicked".into()))?;
    match decoded {
        Ok(decoded) => Ok(decoded.picture),
        Err(error) => {
            let message = format!("The image {error}");
            Err(JobError::field(&path, "image_load_error", message))
        }
    }
}

fn gone(path: &[Value]) -> JobError {
    let message = "There is no such file on this server (any more); upload it again";
    JobError::field(path, "file_download_error", message)
}

fn unread(path: &[Value], error: StoreError) -> JobError {
    match error {
        StoreError::TooLarge { bytes_max } => {
            let message =
                format!("The file has more than {bytes_max} bytes, the most that is taken");
            JobError::field(path, "file_too_large", message)
        }
        other => JobError::Passing(other.to_string()),
    }
}

/// The file of ours that `url` means, under whatever name this server was reached: names of files are random, so that one that
/// is in the store is the one that was meant. An address of ours without a file is an error here, and not fetched.
async fn own_file(
    url: &str,
    base: &str,
    room: &Room,
    path: &[Value],
) -> Result<Option<Name>, JobError> {
    let Some(name) = name_in(url) else { return Ok(None) };
    let row = room.queue.file(name.as_str()).await?;
    if row.is_some_and(|row| row.expires_ms.is_none_or(|at| at > room.now_ms())) {
        return Ok(Some(name));
    }
    let hosts = [base, "https://v3.fal.media", "https://v3b.fal.media", "https://fal.media"];
    match hosts.iter().any(|host| !host.is_empty() && url.starts_with(host)) {
        true => Err(gone(path)),
        false => Ok(None),
    }
}

/// The name at the end of `https://HOST/files/ID/FILE`.
fn name_in(url: &str) -> Option<Name> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    Name::parse(path.strip_prefix("files/")?.split(['?', '#']).next()?)
}

async fn adapter(lora: &Lora, index: usize, base: &str, room: &Room) -> Result<PathBuf, JobError> {
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
    if !file.exists() {
        let read = room.store.read(name, LORA.bytes_max).await;
        let bytes = read.map_err(|e| unread(path, e))?.ok_or_else(|| gone(path))?;
        zoetrope_files::write(&file, &bytes).map_err(|e| JobError::Passing(e.to_string()))?;
    }
    Ok(file)
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
    let passing = |e: String| JobError::Passing(e);
    let known = room.cache.join(format!("{}.address", hex(url.as_bytes())));
    if is_fresh(&known)
        && let Ok(content) = std::fs::read_to_string(&known)
        && let file = room.cache.join(content.trim())
        && file.is_file()
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
        Ok(place.join(name))
    };
    let kept = tokio::task::spawn_blocking(keep).await.map_err(|e| passing(e.to_string()))?;
    kept.map_err(|e| passing(format!("the cache of LoRA files: {e}")))
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

fn refused(path: &[Value], error: FetchError) -> JobError {
    let kind = if error.is_too_large() { "file_too_large" } else { "file_download_error" };
    JobError::field(path, kind, error.to_string())
}

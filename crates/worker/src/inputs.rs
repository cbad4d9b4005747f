//! What a request refers to: addresses become a decoded image and files of adapters.

use std::path::PathBuf;

use serde_json::{Value, json};
use zoetrope_api::task::Generate;
use zoetrope_files::fetch::{FetchError, Limit, data_uri};
use zoetrope_files::{Limits, Name, Picture, StoreError};

use crate::attempt::Room;
use crate::error::JobError;
use crate::loras;

/// What the engine needs besides numbers and words.
pub(crate) struct Inputs {
    pub(crate) picture: Option<Picture>,
    pub(crate) loras: Vec<(PathBuf, f64)>,
}

/// fal's own limit for an image.
const IMAGE: Limit = Limit { bytes_max: 50 << 20, timeout_ms: 30_000 };

/// Fetches everything that `task` refers to; `base` is where its sender reaches this server.
pub(crate) async fn fetch(task: &Generate, base: &str, room: &Room) -> Result<Inputs, JobError> {
    let picture = match &task.image {
        Some(reference) => Some(image(&reference.url, base, room).await?),
        None => None,
    };
    let mut files = Vec::new();
    for (index, lora) in task.loras.iter().enumerate() {
        files.push((loras::adapter(lora, index, base, room).await?, lora.scale));
    }
    Ok(Inputs { picture, loras: files })
}

async fn image(url: &str, base: &str, room: &Room) -> Result<Picture, JobError> {
    let path = [json!("image_url")];
    let is_data = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    let bytes = if is_data {
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

pub(crate) fn gone(path: &[Value]) -> JobError {
    let message = "There is no such file on this server (any more); upload it again";
    JobError::field(path, "file_download_error", message)
}

pub(crate) fn unread(path: &[Value], error: StoreError) -> JobError {
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
pub(crate) async fn own_file(
    url: &str,
    base: &str,
    room: &Room,
    path: &[Value],
) -> Result<Option<Name>, JobError> {
    let Some(name) = name_in(url) else { return Ok(None) };
    let row = room.queue.file(name.as_str()).await?;
    if row.is_some_and(|row| row.size >= 0 && row.expires_ms.is_none_or(|at| at > room.now_ms())) {
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

pub(crate) fn refused(path: &[Value], error: FetchError) -> JobError {
    let kind = if error.is_too_large() { "file_too_large" } else { "file_download_error" };
    JobError::field(path, kind, error.to_string())
}

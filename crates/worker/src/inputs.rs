//! What a request refers to: addresses become a decoded image and files of adapters.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use zoetrope_api::fal::Problem;
use zoetrope_api::task::{Generate, Place, Preprocess};
use zoetrope_files::fetch::{FetchError, Limit, data_uri};
use zoetrope_files::{FORMATS, Limits, Mask, Name, Picture, StoreError};
use zoetrope_jobs::Request;

use crate::attempt::Room;
use crate::error::JobError;
use crate::loras;

/// What the engine needs besides numbers and words.
pub(crate) struct Inputs {
    pub(crate) picture: Option<Picture>,
    /// Where the picture is drawn anew: 255.
    pub(crate) mask: Option<Mask>,
    /// What a control network looks at, as it is prepared for that.
    pub(crate) control: Option<Picture>,
    /// What the prompt speaks of.
    pub(crate) references: Vec<Picture>,
    pub(crate) loras: Vec<(PathBuf, f64)>,
}

/// fal's own limit for an image.
const IMAGE: Limit = Limit { bytes_max: 50 << 20, timeout_ms: 30_000 };

/// Far more than any set of pictures that an adapter learns from.
const ARCHIVE: Limit = Limit { bytes_max: 2 << 30, timeout_ms: 1_800_000 };

/// Fetches everything that the `task` of `request` refers to.
pub(crate) async fn fetch(
    task: &Generate,
    request: &Request,
    room: &Room,
) -> Result<Inputs, JobError> {
    let base = &request.base;
    let picture = match &task.image {
        Some(reference) => Some(image(&reference.place, request, room).await?),
        None => None,
    };
    let control = match task.control.as_ref().and_then(|c| Some((c.image.as_ref()?, c.preprocess)))
    {
        Some((place, preprocess)) => Some(followed(place, preprocess, request, room).await?),
        None => None,
    };
    let mut references = Vec::with_capacity(task.references.len());
    for place in &task.references {
        references.push(image(place, request, room).await?);
    }
    let mask = match &task.mask {
        Some(place) => Some(mask(place, request, room).await?),
        None => None,
    };
    let mut files = Vec::new();
    for (index, lora) in task.loras.iter().enumerate() {
        files.push((loras::adapter(lora, index, base, room).await?, lora.scale));
    }
    Ok(Inputs { picture, mask, control, references, loras: files })
}

/// What a control network is shown of the picture at `place`.
async fn followed(
    place: &Place,
    preprocess: Preprocess,
    request: &Request,
    room: &Room,
) -> Result<Picture, JobError> {
    let path = [json!("preprocess")];
    let depth = match (preprocess, &room.depth) {
        (Preprocess::Depth, None) => {
            let message = "depth needs a network that this server has not: let whoever runs it fetch one with `zoetrope models pull \
                           depth` and start it again; or send the depth picture itself with preprocess none, or take canny";
            return Err(JobError::field(&path, "feature_not_supported", message));
        }
        (_, depth) => depth.clone(),
    };
    let picture = image(place, request, room).await?;
    let made = move || match (preprocess, depth) {
        (Preprocess::Canny, _) => Ok(picture.edges(zoetrope_files::CANNY_THRESHOLDS)),
        (Preprocess::Depth, Some(depth)) => depth.of(&picture),
        // Poses are refused where they are asked for.
        _ => Ok(picture),
    };
    let made = tokio::task::spawn_blocking(made).await;
    let made = made.map_err(|_| JobError::Engine(format!("preprocess {preprocess:?} panicked")))?;
    made.map_err(|error| match error {
        zoetrope_engine::Error::Field(e) => {
            JobError::field(&[json!("image_url")], "value_error", e.to_string())
        }
        zoetrope_engine::Error::Memory(message) => JobError::Memory(message),
        other => JobError::from(other),
    })
}

async fn image(place: &Place, request: &Request, room: &Room) -> Result<Picture, JobError> {
    let path = [json!("image_url")];
    let bytes = bytes(place, &path, request, room).await?;
    decoded(&path, move |limits| Ok(zoetrope_files::decode(&bytes, limits)?.picture)).await
}

/// Where a picture is drawn anew: where the mask is transparent, or, if it is not anywhere, where it is light.
async fn mask(place: &Place, request: &Request, room: &Room) -> Result<Mask, JobError> {
    // The gateway's masks are always data; an address is fal's.
    let path = match place {
        Place::Input(field) => [json!(field)],
        Place::Url(_) => [json!("mask_image_url")],
    };
    let bytes = bytes(place, &path, request, room).await?;
    let read = move |limits: &Limits| match zoetrope_files::decode_alpha(&bytes, limits)? {
        Some(mut opacity) => {
            opacity.grey.iter_mut().for_each(|alpha| *alpha = 255 - *alpha);
            Ok(opacity)
        }
        None => zoetrope_files::decode_mask(&bytes, limits),
    };
    decoded(&path, read).await
}

async fn bytes(
    place: &Place,
    path: &[Value],
    request: &Request,
    room: &Room,
) -> Result<Bytes, JobError> {
    match place {
        Place::Input(field) => sent(request, field, IMAGE).map_err(|e| refused(path, e)),
        Place::Url(url) => match own_file(url, &request.base, room, path).await? {
            Some(name) => {
                let read = room.store.read(&name, IMAGE.bytes_max).await;
                read.map_err(|e| unread(path, e))?.ok_or_else(|| gone(path))
            }
            None => Ok(room.fetcher.get(url, IMAGE).await.map_err(|e| refused(path, e))?.bytes),
        },
    }
}

/// What `read` makes of an image file, beside everything that waits.
async fn decoded<T: Send + 'static>(
    path: &[Value],
    read: impl FnOnce(&Limits) -> zoetrope_files::Result<T> + Send + 'static,
) -> Result<T, JobError> {
    let limits = Limits { bytes_max: IMAGE.bytes_max, ..Limits::default() };
    let decoded = tokio::task::spawn_blocking(move || read(&limits)).await;
    let decoded = decoded.map_err(|_| JobError::Engine("decoding an image panicked".into()))?;
    decoded.map_err(|error| JobError::Input(Box::new(unreadable(path, &error))))
}

/// Fetches the zip of the input's field `name` into `file`, which then holds all of it.
pub(crate) async fn archive(
    place: &Place,
    name: &str,
    request: &Request,
    room: &Room,
    file: &Path,
) -> Result<(), JobError> {
    let path = [json!(name)];
    match place {
        Place::Input(field) => {
            let bytes = sent(request, field, ARCHIVE).map_err(|e| refused(&path, e))?;
            let file = file.to_path_buf();
            let write = move || zoetrope_files::write(&file, &bytes);
            let written = tokio::task::spawn_blocking(write).await;
            let written = written.map_err(|e| JobError::Passing(e.to_string()))?;
            written.map_err(|e| JobError::Passing(e.to_string()))
        }
        Place::Url(url) => match own_file(url, &request.base, room, &path).await? {
            Some(name) => copy_stored(&name, file, ARCHIVE.bytes_max, &path, room).await,
            None => {
                let fetched = room.fetcher.download(url, ARCHIVE, file).await;
                fetched.map(drop).map_err(|e| refused(&path, e))
            }
        },
    }
}

/// Copies a file of the store to `file`, which then holds all of it. Piece by piece: gigabytes fit no memory's plan.
pub(crate) async fn copy_stored(
    name: &Name,
    file: &Path,
    bytes_max: u64,
    path: &[Value],
    room: &Room,
) -> Result<(), JobError> {
    let found = room.store.get(name, None).await.map_err(|e| unread(path, e))?;
    let found = found.ok_or_else(|| gone(path))?;
    if found.size > bytes_max {
        return Err(unread(path, StoreError::TooLarge { bytes_max }));
    }
    // A worker has one request at a time, so that its process names the part.
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let copy = async {
        let mut out = tokio::fs::File::create(&part).await?;
        let mut parts = found.stream;
        while let Some(bytes) = parts.try_next().await? {
            out.write_all(&bytes).await?;
        }
        out.sync_all().await?;
        tokio::fs::rename(&part, file).await
    };
    copy.await.map_err(|e| JobError::Passing(format!("a file of the store: {e}")))
}

/// The bytes of the data URI in the input's `field`.
fn sent(request: &Request, field: &str, limit: Limit) -> Result<Bytes, FetchError> {
    let input: Value = serde_json::from_str(&request.input).unwrap_or_default();
    let text = input[field].as_str().unwrap_or_default();
    Ok(data_uri(text, limit.bytes_max)?.bytes)
}

/// What is wrong with an image, by fal's types.
fn unreadable(path: &[Value], error: &zoetrope_files::Error) -> Problem {
    let problem = |kind| Problem::new(path, kind, format!("The image {error}"));
    match error {
        zoetrope_files::Error::Format(_) => {
            problem("unsupported_image_format").with("supported_formats", FORMATS.to_vec())
        }
        zoetrope_files::Error::Pixels { pixels_max, .. } => problem("image_too_large")
            .with("max_width", pixels_max.isqrt())
            .with("max_height", pixels_max.isqrt()),
        zoetrope_files::Error::NoPixels { .. } => {
            problem("image_too_small").with("min_width", 1).with("min_height", 1)
        }
        zoetrope_files::Error::Bytes { bytes_max } => {
            problem("file_too_large").with("max_size", *bytes_max)
        }
        _ => problem("image_load_error"),
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

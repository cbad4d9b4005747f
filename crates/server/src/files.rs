//! Files: served to whoever knows their names, filled by whoever holds a token.

use std::ops::Range;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use zoetrope_files::Name;
use zoetrope_jobs::FileRow;

use crate::answer::{Failure, json_answer};
use crate::auth::{Purpose, caller};
use crate::extract::{Asked, Small};
use crate::fal::lifecycle;
use crate::state::App;
use crate::surface::Origin;
use crate::token::{Claims, Grant};

/// A part of a multipart upload: clients send 10 MiB.
const PART_BYTES_MAX: usize = 64 << 20;
const PART_BYTES_MIN: u64 = 5 << 20;
/// Parts of one upload.
const PARTS_MAX: u32 = 10_000;
/// How long a file's bytes may stop coming.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a part may take.
const PART_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an address for an upload is good.
pub(crate) const UPLOAD_MS: i64 = 3_600_000;

pub(crate) fn router(app: &App) -> Router {
    Router::new()
        .route("/files/upload", post(upload))
        .route("/files/upload/multipart", post(begin_multipart))
        .route("/files/{id}/{name}", get(serve))
        .route("/files/{id}/{name}/multipart/{token}/{number}", put(python_part))
        .route("/uploads/{token}", put(fill))
        .route("/uploads/{token}/complete", post(js_complete))
        .route("/uploads/{token}/{number}", put(js_part))
        .route("/files/{id}/{name}/multipart/{token}/complete", post(python_complete))
        .fallback(crate::own::not_found)
        .with_state(app.clone())
}

/// `GET` and `HEAD` of a file, in whole or a range of it.
async fn serve(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    method: Method,
    Asked(query): Asked<Shown>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let missing =
        || Failure::new(StatusCode::NOT_FOUND, "There is no such file, or its time is over");
    let name = Name::parse(&format!("{id}/{name}")).ok_or_else(missing)?;
    let row = app.settings.queue.file(name.as_str()).await?.ok_or_else(missing)?;
    if row.size < 0 || row.expires_ms.is_some_and(|at| at <= app.now_ms()) {
        return Err(missing());
    }
    let tag = format!("\"{}\"", &name.as_str()[..name.as_str().find('/').unwrap_or(0)]); // a name is filled once
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut answer = Response::builder()
        .header(header::CONTENT_TYPE, zoetrope_files::content_type(name.as_str()))
        .header(header::ETAG, &tag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, cache_control(&row, app.now_ms()))
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    if query.download.is_some() {
        answer = answer.header(header::CONTENT_DISPOSITION, "attachment");
    }
    if known.is_some_and(|known| {
        known == "*" || known.split(',').any(|t| t.trim().trim_start_matches("W/") == tag)
    }) {
        return Ok(answer
            .status(StatusCode::NOT_MODIFIED)
            .body(Body::empty())
            .expect("the headers are ours"));
    }
    // A range of another content than the one that is known is of no use.
    let same = headers.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == tag.as_bytes());
    let size = row.size as u64;
    let range = match headers.get(header::RANGE).and_then(|v| v.to_str().ok()).filter(|_| same) {
        Some(text) => wanted(text, size)?,
        None => None,
    };
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    answer = answer.header(header::CONTENT_LENGTH, length);
    if let Some(range) = &range {
        let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        answer =
            answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
    }
    if method == Method::HEAD {
        return Ok(answer.body(Body::empty()).expect("the headers are ours"));
    }
    let stored = app.settings.store.get(&name, range).await.map_err(|e| Failure::internal(&e))?;
    let stream = stored.ok_or_else(missing)?.stream;
    Ok(answer.body(Body::from_stream(stream)).expect("the headers are ours"))
}

#[derive(Deserialize)]
struct Shown {
    download: Option<String>,
}

/// A name never gets other bytes; only its end limits how long it may be kept.
fn cache_control(row: &FileRow, now_ms: i64) -> String {
    let seconds = row.expires_ms.map_or(31_536_000, |at| (at - now_ms) / 1000);
    format!("public, max-age={seconds}, immutable")
}

/// The one range that a header asks for; `None` for what is answered with everything.
fn wanted(text: &str, size: u64) -> Result<Option<Range<u64>>, Failure> {
    let Some(list) = text.strip_prefix("bytes=") else { return Ok(None) };
    let Some((first, last)) = list.trim().split_once('-') else { return Ok(None) };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(count)) if first.is_empty() && count > 0 => size.saturating_sub(count)..size,
        _ => return Ok(None), // several ranges, or none: everything
    };
    if range.start < range.end {
        return Ok(Some(range));
    }
    Err(Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("The file has {size} bytes"))
        .with(header::CONTENT_RANGE, &format!("bytes */{size}")))
}

/// Python's `POST /files/upload`: the bytes are the body.
async fn upload(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Json<Value>, Failure> {
    let (name, row) = announced(&app, request.headers()).await?;
    let size = receive(&app, &name, row, request.into_body()).await?;
    let url = format!("{}/files/{}", origin.files, name.as_str());
    Ok(Json(json!({"access_url": url, "file_size": size})))
}

/// Python's `POST /files/upload/multipart`: the parts come later.
async fn begin_multipart(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let (name, row) = announced(&app, &headers).await?;
    let token = file_token(&app, &name, row.owner, row.expires_ms);
    let url = format!("{}/files/{}", origin.files, name.as_str());
    Ok(Json(json!({"access_url": url, "uploadId": token})))
}

/// The file that an upload's headers announce.
async fn announced(app: &App, headers: &HeaderMap) -> Result<(Name, FileRow), Failure> {
    let caller = caller(app, headers, None, Purpose::Upload).await?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text("content-type").unwrap_or("application/octet-stream");
    let name = name_for(text("x-fal-file-name").unwrap_or("file"), content_type);
    let row = FileRow {
        name: name.as_str().into(),
        owner: caller.owner,
        request: None,
        size: 0,
        created_ms: app.now_ms(),
        expires_ms: Some(lifecycle::of_upload(app, headers)?),
    };
    Ok((name, row))
}

/// A new name for what its sender calls `file_name`; an ending that says less than the content type is completed.
pub(crate) fn name_for(file_name: &str, content_type: &str) -> Name {
    let file_name =
        percent_encoding::percent_decode_str(file_name).decode_utf8_lossy().into_owned();
    let name = Name::new(&file_name);
    let ending = match content_type.split(';').next().unwrap_or_default().trim() {
        "image/png" => "png",
        "image/jpeg" => "jpeg",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "image/avif" => "avif",
        "application/zip" => "zip",
        "application/json" => "json",
        "text/plain" => "txt",
        _ => return name,
    };
    match zoetrope_files::content_type(name.as_str()) {
        "application/octet-stream" => Name::new(&format!("{file_name}.{ending}")),
        _ => name,
    }
}

/// A token that fills the file `name` once.
pub(crate) fn file_token(app: &App, name: &Name, owner: String, expires_ms: Option<i64>) -> String {
    let grant = Grant::File { name: name.as_str().into(), expires_ms };
    app.signer.sign(&Claims { owner, expires_ms: app.now_ms() + UPLOAD_MS, grant })
}

/// What a token for one file says.
async fn granted(app: &App, token: &str) -> Result<(Name, FileRow), Failure> {
    let refused = || {
        Failure::new(
            StatusCode::FORBIDDEN,
            "This address for an upload is not of this server, or its time is over",
        )
    };
    let claims = app.signer.check(token, app.now_ms()).ok_or_else(refused)?;
    let Grant::File { name, expires_ms } = claims.grant else { return Err(refused()) };
    let row = FileRow {
        name: name.clone(),
        owner: claims.owner,
        request: None,
        size: 0,
        created_ms: app.now_ms(),
        expires_ms,
    };
    Ok((Name::parse(&name).ok_or_else(refused)?, row))
}

fn taken() -> Failure {
    let detail = "This file was uploaded before, or is at this moment; begin a new upload";
    Failure::new(StatusCode::CONFLICT, detail)
}

/// JavaScript's `PUT` of a whole file; the address is the secret.
async fn fill(
    State(app): State<App>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Json<Value>, Failure> {
    let (name, row) = granted(&app, &token).await?;
    let size = receive(&app, &name, row, request.into_body()).await?;
    Ok(Json(json!({"file_size": size})))
}

/// Stores a body under a name that nobody else fills meanwhile.
async fn receive(app: &App, name: &Name, row: FileRow, body: Body) -> Result<u64, Failure> {
    let reserved = Reserved::of(app, row).await?;
    let most = app.settings.upload_bytes_max;
    let stream = stream::unfold(body.into_data_stream(), |mut parts| async move {
        match tokio::time::timeout(SILENCE, parts.next()).await {
            Ok(part) => Some((part?.map_err(std::io::Error::other), parts)),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), parts)),
        }
    });
    let stored = app.settings.store.put_stream(name, Box::pin(stream), most).await;
    reserved.filled(name, stored).await
}

/// A name that is taken for bytes which are still to come; free again if they do not.
struct Reserved {
    app: App,
    row: Option<FileRow>,
}

impl Reserved {
    async fn of(app: &App, row: FileRow) -> Result<Self, Failure> {
        let until_ms = app.now_ms() + UPLOAD_MS;
        match app.settings.queue.reserve_file(&row, until_ms).await? {
            true => Ok(Self { app: app.clone(), row: Some(row) }),
            false => Err(taken()),
        }
    }

    /// The bytes are there, or the name is free again.
    async fn filled(
        mut self,
        name: &Name,
        stored: Result<u64, zoetrope_files::StoreError>,
    ) -> Result<u64, Failure> {
        let app = self.app.clone();
        let (queue, store) = (&app.settings.queue, &app.settings.store);
        let size = match stored {
            Ok(size) => size,
            Err(error) => {
                if queue.forget_file(name.as_str()).await.is_ok() {
                    self.row = None;
                }
                return Err(unstored(&error, app.settings.upload_bytes_max));
            }
        };
        let Some(row) = self.row.take() else { return Ok(size) };
        let kept = queue.fill_file(&FileRow { size: size as i64, ..row }).await;
        if let Ok(true) = kept {
            return Ok(size);
        }
        let _ = store.delete(name).await; // without a row nobody would find it
        match kept {
            Ok(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "The upload took too long")),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some(row) = self.row.take() else { return };
        let queue = self.app.settings.queue.clone();
        self.app.beside(async move {
            if let Err(error) = queue.forget_file(&row.name).await {
                tracing::warn!(%error, "a broken upload's name stays taken for an hour");
            }
        });
    }
}

fn unstored(error: &zoetrope_files::StoreError, most: u64) -> Failure {
    match error {
        zoetrope_files::StoreError::TooLarge { .. } => {
            let detail =
                format!("The file is larger than {most} bytes, the most that this server takes");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        }
        zoetrope_files::StoreError::Parts(problem) => {
            Failure::new(StatusCode::BAD_REQUEST, problem.clone())
        }
        zoetrope_files::StoreError::Input(_) => Failure::typed(
            StatusCode::BAD_REQUEST,
            "client_disconnected",
            "The body ended before it was complete",
        ),
        other => Failure::internal(other),
    }
}

async fn part(app: &App, token: &str, number: &str, body: Body) -> Result<(u32, String), Failure> {
    let number = number.parse::<u32>().ok().filter(|n| (1..=PARTS_MAX).contains(n));
    let number = number.ok_or_else(|| {
        Failure::new(StatusCode::BAD_REQUEST, format!("Parts are numbered from 1 to {PARTS_MAX}"))
    })?;
    let (name, _) = granted(app, token).await?;
    if app.settings.queue.file(name.as_str()).await?.is_some() {
        return Err(taken());
    }
    // The parts before this one have at least so many bytes each, as S3 and both clients have it.
    if u64::from(number - 1) * PART_BYTES_MIN >= app.settings.upload_bytes_max {
        let detail = format!(
            "The file has more than {} bytes, the most that is taken",
            app.settings.upload_bytes_max
        );
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let read = axum::body::to_bytes(body, PART_BYTES_MAX);
    let bytes: Bytes = match tokio::time::timeout(PART_TIMEOUT, read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let detail = format!("A part was cut short or has more than {PART_BYTES_MAX} bytes");
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Err(_) => {
            let detail = "The part did not arrive in time";
            return Err(Failure::new(StatusCode::REQUEST_TIMEOUT, detail));
        }
    };
    let tag = app
        .settings
        .store
        .put_part(&name, number, bytes)
        .await
        .map_err(|e| Failure::internal(&e))?;
    Ok((number, tag))
}

async fn js_part(
    State(app): State<App>,
    Path((token, number)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let (number, tag) = part(&app, &token, &number, body).await?;
    let mut answer = json_answer(StatusCode::OK, &json!({"partNumber": number, "etag": tag}));
    answer.headers_mut().extend(quoted(&tag));
    Ok(answer)
}

async fn python_part(
    State(app): State<App>,
    Path((_, _, token, number)): Path<(String, String, String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let (_, tag) = part(&app, &token, &number, body).await?;
    Ok((StatusCode::OK, HeaderMap::from_iter(quoted(&tag))).into_response())
}

fn quoted(tag: &str) -> Option<(header::HeaderName, header::HeaderValue)> {
    Some((header::ETAG, format!("\"{tag}\"").parse().ok()?))
}

#[derive(Deserialize)]
struct Complete {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(alias = "partNumber")]
    part_number: u32,
    #[serde(alias = "etag")]
    e_tag: String,
}

async fn js_complete(
    State(app): State<App>,
    Path(token): Path<String>,
    Small(body): Small,
) -> Result<Json<Value>, Failure> {
    complete(&app, &token, &body).await
}

async fn python_complete(
    State(app): State<App>,
    Path((_, _, token)): Path<(String, String, String)>,
    Small(body): Small,
) -> Result<Json<Value>, Failure> {
    complete(&app, &token, &body).await
}

async fn complete(app: &App, token: &str, body: &[u8]) -> Result<Json<Value>, Failure> {
    let list: Complete = serde_json::from_slice(body).map_err(|e| {
        Failure::new(StatusCode::BAD_REQUEST, format!("The list of parts cannot be read: {e}"))
    })?;
    let (name, row) = granted(app, token).await?;
    if let Some(known) = app.settings.queue.file(name.as_str()).await?.filter(|f| f.size >= 0) {
        // The answer was lost and the client asks again.
        return Ok(Json(json!({"file_size": known.size})));
    }
    let reserved = Reserved::of(app, row).await?;
    let parts: Vec<(u32, String)> =
        list.parts.into_iter().map(|p| (p.part_number, p.e_tag)).collect();
    let most = app.settings.upload_bytes_max;
    let joined = app.settings.store.join(&name, &parts, most).await;
    let size = reserved.filled(&name, joined).await?;
    Ok(Json(json!({"file_size": size})))
}

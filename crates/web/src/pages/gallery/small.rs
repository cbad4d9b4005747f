//! `/gallery/{number}/small.webp`: a picture as small as a page of many needs it, made when it is first seen and kept with the picture.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use zoetrope_files::{Format, Limits, Name};
use zoetrope_jobs::{FileRow, Picture};
use zoetrope_server::App;
use zoetrope_server::pages::Failure;

use crate::fault::Fault;
use crate::visitor::Visitor;

/// The longer side.
const SIDE: u32 = 384;
const QUALITY: u8 = 76;
/// Pictures that are decoded at once: each takes four bytes a pixel and a core.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path(number): Path<i64>,
) -> Result<Response, Fault> {
    let picture = app.queue().picture(number, visitor.owner()).await?;
    let picture =
        picture.ok_or_else(|| Fault::not_found("There is no such picture (any more)."))?;
    let kept = match &picture.thumbnail {
        Some(name) => read(&app, name).await?,
        None => None,
    };
    let bytes = match kept {
        Some(bytes) => bytes,
        None => make(&app, &picture).await?,
    };
    let headers = [
        (header::CONTENT_TYPE, "image/webp"),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    Ok((headers, bytes).into_response())
}

async fn read(app: &App, name: &str) -> Result<Option<Bytes>, Fault> {
    let Some(name) = Name::parse(name) else { return Ok(None) };
    let read = app.store().read(&name, Limits::default().bytes_max).await;
    Ok(read.map_err(|error| Failure::internal(&error))?)
}

/// Makes it, and keeps it beside its picture: it goes when the request does.
async fn make(app: &App, picture: &Picture) -> Result<Bytes, Fault> {
    let turn = TURNS.acquire().await;
    let bytes = read(app, &picture.file).await?;
    let bytes = bytes.ok_or_else(|| Fault::not_found("The picture's file is gone."))?;
    let made = tokio::task::spawn_blocking(move || smaller(&bytes)).await;
    drop(turn);
    let made = made.map_err(|error| Failure::internal(&error))?;
    let made = Bytes::from(made.map_err(|error| Failure::internal(&error))?);
    let name = Name::new("small.webp");
    let large = app.queue().file(&picture.file).await?;
    let row = FileRow {
        name: name.as_str().into(),
        owner: picture.owner.clone(),
        request: large.as_ref().and_then(|row| row.request.clone()),
        size: made.len() as i64,
        created_ms: app.now_ms(),
        expires_ms: large.and_then(|row| row.expires_ms),
    };
    // What cannot be kept is shown all the same, and made again the next time.
    if app.queue().insert_file(&row).await.is_ok()
        && app.store().put(&name, made.clone()).await.is_ok()
    {
        app.queue().set_thumbnail(picture.number, name.as_str()).await?;
    }
    Ok(made)
}

fn smaller(bytes: &[u8]) -> zoetrope_files::Result<Vec<u8>> {
    let picture = zoetrope_files::decode(bytes, &Limits::default())?.picture;
    let shrink = f64::from(SIDE) / f64::from(picture.width.max(picture.height));
    let side = |length: u32| ((f64::from(length) * shrink).round() as u32).max(1);
    let picture = match shrink < 1.0 {
        true => picture.resized(side(picture.width), side(picture.height)),
        false => picture,
    };
    zoetrope_files::encode_at(&picture, Format::WebP, Some(QUALITY), None)
}

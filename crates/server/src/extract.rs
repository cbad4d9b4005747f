//! What handlers take out of a request: bodies within limits of size and time, and queries, with failures in fal's shapes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::Failure;
use crate::fal::json_of;
use crate::state::App;

/// Bytes of a request's input: four data URIs of 10 MiB, and words.
pub(crate) const INPUT_BYTES_MAX: usize = 48 << 20;
/// Bytes of a form: two pictures of the 50 MB that OpenAI takes, and words.
pub(crate) const FORM_BYTES_MAX: usize = 104 << 20;
/// Bytes of everything else: the longest is the list of an upload's 10,000 parts.
const SMALL_BYTES_MAX: usize = 4 << 20;
/// Mebibytes of inputs that are in memory at once, until they are in the queue; more are asked to come again.
pub(crate) const HELD_MIB_MAX: usize = 512;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// The body of a call that is no input of a model.
pub(crate) struct Small(pub(crate) Bytes);

/// The query; one that cannot be read is an error and never left out.
pub(crate) struct Asked<T>(pub(crate) T);

/// The room that an input takes in memory, free again when this is dropped.
pub(crate) type Held = Option<OwnedSemaphorePermit>;

/// An input of a model as JSON.
pub(crate) async fn input(app: &App, body: Body) -> Result<(Value, Held), Failure> {
    let (bytes, held) = bytes(app, body, INPUT_BYTES_MAX).await?;
    Ok((json_of(&bytes)?, held))
}

/// At most `bytes_max` of a body. The first mebibyte is always taken in; room for more is taken as it comes, so that who only
/// announces much, or sends it slowly, keeps nobody else out.
pub(crate) async fn bytes(
    app: &App,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Held), Failure> {
    let (mut parts, mut bytes) = (body.into_data_stream(), BytesMut::new());
    let mut held: Held = None;
    let whole = async {
        while let Some(part) = parts.next().await {
            let part =
                part.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "The body ended early"))?;
            if bytes.len() + part.len() > bytes_max {
                return Err(too_large(bytes_max, "upload large files and send their addresses"));
            }
            bytes.extend_from_slice(&part);
            let wanted = bytes.len() >> 20; // mebibytes besides the first
            let more = wanted - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if more > 0 {
                let room = app.bodies.clone().try_acquire_many_owned(more as u32);
                let room = room.map_err(|_| crowded())?;
                match &mut held {
                    Some(held) => held.merge(room),
                    None => held = Some(room),
                }
            }
        }
        Ok(())
    };
    tokio::time::timeout(BODY_TIMEOUT, whole).await.unwrap_or_else(|_| Err(too_slow()))?;
    Ok((bytes.freeze(), held))
}

fn crowded() -> Failure {
    let detail = format!("Inputs of more than {HELD_MIB_MAX} MiB arrive at this moment; try again");
    Failure::later(StatusCode::SERVICE_UNAVAILABLE, "runner_scheduling_failure", detail, 2)
}

fn too_large(bytes_max: usize, remedy: &str) -> Failure {
    let detail = format!("The body has more than {bytes_max} bytes; {remedy}");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn too_slow() -> Failure {
    Failure::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large(bytes_max, "or it ended early")),
        Err(_) => Err(too_slow()),
    }
}

pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Failure> {
    let query = Query::<T>::try_from_uri(uri).map_err(|error| {
        Failure::new(StatusCode::BAD_REQUEST, format!("The query cannot be read: {error}"))
    })?;
    Ok(query.0)
}

impl<S: Send + Sync> FromRequest<S> for Small {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        read(request.into_body(), SMALL_BYTES_MAX).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        query(&parts.uri).map(Self)
    }
}

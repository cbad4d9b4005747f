//! What handlers take out of a request: bodies within limits of size and time, and queries, with failures in fal's shapes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::Failure;
use crate::fal::json_of;
use crate::state::App;

/// Bytes of a request's input: four data URIs of 10 MiB, and words.
const INPUT_BYTES_MAX: usize = 48 << 20;
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
pub(crate) type Held = OwnedSemaphorePermit;

/// An input of a model as JSON, once there is room for it.
pub(crate) async fn input(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Value, Held), Failure> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    // Whoever does not say how much it is may send the most.
    let mib = length.unwrap_or(INPUT_BYTES_MAX).min(INPUT_BYTES_MAX).div_ceil(1 << 20);
    let held = app.bodies.clone().try_acquire_many_owned(mib.max(1) as u32).map_err(|_| {
        let detail =
            format!("Inputs of more than {HELD_MIB_MAX} MiB arrive at this moment; try again");
        Failure::later(StatusCode::SERVICE_UNAVAILABLE, "runner_scheduling_failure", detail, 2)
    })?;
    let remedy = "upload large files and send their addresses";
    Ok((json_of(&read(body, INPUT_BYTES_MAX, remedy).await?)?, held))
}

async fn read(body: Body, bytes_max: usize, remedy: &str) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let detail =
                format!("The body ended early or has more than {bytes_max} bytes; {remedy}");
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")),
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
        read(request.into_body(), SMALL_BYTES_MAX, "send less").await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        query(&parts.uri).map(Self)
    }
}

//! Webhooks: the end of a request, signed and sent until it is taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use zoetrope_files::fetch::FetchError;
use zoetrope_jobs::{Due, Queue, RECEIVERS_BUSY_MAX, Request};

use crate::answer::Failure;
use crate::state::App;
use crate::token::random_hex;

/// How long a receiver may take.
const TIMEOUT_MS: u64 = 15_000;
/// Seconds between attempts: ten more in two hours, as fal has them.
const PAUSES: [i64; 10] = [10, 20, 40, 80, 160, 320, 640, 1200, 1800, 2400];
/// Webhooks under way at once, and of them to one receiver: who hangs keeps only its own waiting.
const AT_ONCE: usize = 16;
const AT_ONCE_TO_ONE: usize = 4;
// No more receivers can be busy than the queue can pass over.
const _: () = assert!(AT_ONCE / AT_ONCE_TO_ONE <= RECEIVERS_BUSY_MAX);
/// How often the database is asked for what is due.
const POLL: Duration = Duration::from_millis(200);

/// The key that all nodes sign with, made by the first of them.
async fn signing_key(queue: &Queue) -> zoetrope_jobs::Result<SigningKey> {
    let seed = queue.secret("webhook_ed25519", || random_hex(32)).await?;
    let byte =
        |at: usize| seed.get(2 * at..2 * at + 2).and_then(|text| u8::from_str_radix(text, 16).ok());
    let seed: [u8; 32] = std::array::from_fn(|at| byte(at).unwrap_or_default());
    Ok(SigningKey::from_bytes(&seed))
}

/// `/.well-known/jwks.json`
pub(crate) async fn jwks(State(app): State<App>) -> Result<Json<Value>, Failure> {
    let key = signing_key(&app.settings.queue).await?.verifying_key();
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    Ok(Json(
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": x[..8], "x": x}]}),
    ))
}

/// Refuses a webhook's address while its sender still listens.
pub(crate) async fn check(app: &App, url: &str) -> Result<(), Failure> {
    app.settings.fetcher.check(url).await.or_else(|error| match error {
        // A name that does not resolve now may when there is something to tell.
        FetchError::Connection { .. } | FetchError::TimedOut { .. } => Ok(()),
        error => Err(Failure::typed(
            StatusCode::BAD_REQUEST,
            "bad_request",
            format!("fal_webhook: {error}"),
        )),
    })
}

/// An address as it is kept: written by the rules, it has no character that a database would not take.
pub(crate) fn written(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| url.replace('\0', "%00"), String::from)
}

/// Sends what is due until `stop` holds true.
pub async fn deliver(app: App, mut stop: watch::Receiver<bool>) {
    let key = loop {
        match signing_key(&app.settings.queue).await {
            Ok(key) => break key,
            Err(error) => {
                tracing::error!(%error, "the key for webhooks cannot be read; trying again")
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let mut under_way = tokio::task::JoinSet::new();
    let sending: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    while !*stop.borrow() {
        while under_way.try_join_next().is_some() {}
        if under_way.len() < AT_ONCE {
            match app.settings.queue.take_due(2 * TIMEOUT_MS as i64, &busy(&sending)).await {
                Ok(Some(due)) => {
                    let place = Place::take(&sending, &due.receiver);
                    let (app, key) = (app.clone(), key.clone());
                    under_way.spawn(async move {
                        send(app, key, due).await;
                        drop(place);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "due webhooks cannot be read"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = stop.changed() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// Receivers that have as much as they get at once.
fn busy(sending: &Mutex<HashMap<String, usize>>) -> Vec<String> {
    let sending = sending.lock().expect("nothing panics while it is held");
    let full = sending.iter().filter(|(_, count)| **count >= AT_ONCE_TO_ONE);
    full.map(|(receiver, _)| receiver.clone()).collect()
}

/// One of the webhooks that are on their way to a receiver, until it is dropped.
struct Place {
    sending: Arc<Mutex<HashMap<String, usize>>>,
    receiver: String,
}

impl Place {
    fn take(sending: &Arc<Mutex<HashMap<String, usize>>>, receiver: &str) -> Self {
        let place = Self { sending: sending.clone(), receiver: receiver.into() };
        *place.counts().entry(receiver.into()).or_default() += 1;
        place
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.sending.lock().expect("nothing panics while it is held")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(&self.receiver) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.receiver);
            }
        }
    }
}

async fn send(app: App, key: SigningKey, due: Due) {
    let queue = &app.settings.queue;
    let result = match queue.request(&due.request).await {
        Ok(Some(request)) => post(&app, &key, &due, &request).await,
        Ok(None) => Ok(()), // forgotten meanwhile
        Err(error) => Err(error.to_string()),
    };
    let written = match result {
        Ok(()) => queue.delivered(&due.request).await,
        Err(problem) => {
            let pause = PAUSES.get(due.attempt as usize - 1).map(|seconds| 1000 * seconds);
            tracing::warn!(request = %due.request, attempt = due.attempt, %problem, "a webhook was not taken");
            queue.undelivered(&due.request, &problem, pause).await
        }
    };
    if let Err(error) = written {
        tracing::warn!(request = %due.request, %error, "a webhook's state could not be written; it may be sent again");
    }
}

async fn post(app: &App, key: &SigningKey, due: &Due, request: &Request) -> Result<(), String> {
    let body = payload(request).to_string();
    let timestamp = (app.now_ms() / 1000).to_string();
    let digest: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let message = format!("{}\n{}\n{timestamp}\n{digest}", request.id, request.owner);
    let signature: String =
        key.sign(message.as_bytes()).to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let headers = [
        ("content-type", "application/json"),
        ("x-fal-webhook-request-id", request.id.as_str()),
        ("x-fal-webhook-user-id", request.owner.as_str()),
        ("x-fal-webhook-timestamp", timestamp.as_str()),
        ("x-fal-webhook-signature", signature.as_str()),
    ];
    let headers: Vec<(String, String)> =
        headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let posted = app.settings.fetcher.post(&due.url, &headers, Bytes::from(body), TIMEOUT_MS).await;
    match posted {
        Ok(status) if (200..300).contains(&status) => Ok(()),
        Ok(status) => Err(format!("the receiver answered {status}")),
        Err(error) => Err(error.to_string()),
    }
}

/// What fal sends.
fn payload(request: &Request) -> Value {
    let mut body = json!({"request_id": request.id, "gateway_request_id": request.id, "status": "ERROR", "payload": null});
    let Some(end) = &request.end else { return body };
    match serde_json::from_str::<Value>(&end.response) {
        Ok(response) => body["payload"] = response,
        Err(error) => body["payload_error"] = error.to_string().into(),
    }
    if end.status_code == 200 {
        body["status"] = "OK".into();
    } else {
        body["error"] = end
            .error
            .clone()
            .unwrap_or_else(|| format!("Invalid status code: {}", end.status_code))
            .into();
    }
    body
}

//! Exchanges with a provider over HTTP: every body under a limit and a deadline. What goes wrong is told by `verdict.rs`, what comes as
//! pictures is looked at by `picture.rs`, and what takes a while is followed by `follow.rs`.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Method, RequestBuilder, redirect};
use serde_json::Value;
use tokio::sync::oneshot;
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_jobs::Clock;

use crate::catalogue::{ConfigError, ProviderEntry};
use crate::failure::Failure;
use crate::gateway::House;

/// A provider that has not taken the connection by now will not.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection that nobody needs is kept: most servers close theirs after a minute.
const IDLE: Duration = Duration::from_secs(50);
/// Bytes of an answer without pictures.
pub(super) const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are set aside for an answer at most before they came: most with a picture fit, and an announcement costs nothing.
const AT_FIRST_BYTES: u64 = 4 << 20;
/// Bytes of a picture: one of 2048 × 2048 has 12 MiB before it is compressed at all.
pub(super) const PICTURE_BYTES_MAX: u64 = 32 << 20;
/// How long cancelling may take.
const CANCEL: Duration = Duration::from_secs(10);

/// The way to one provider. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    pub(super) name: String,
    base: String,
    authorization: Option<HeaderValue>,
    /// What must not be shown.
    pub(super) secret: Option<String>,
    /// The door to addresses that the provider tells.
    pub(super) fetcher: Fetcher,
    pub(super) now_ms: Clock,
}

/// An answer, whatever its status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// From sending to its first byte.
    pub(super) first_byte: Duration,
}

impl Http {
    /// The way to `entry`. `scheme` is the word in front of its key.
    pub(super) fn open(
        entry: &ProviderEntry,
        house: &House,
        scheme: &str,
    ) -> Result<Self, ConfigError> {
        let wrong = |field: &str, problem: String| {
            ConfigError::new(format!("gateway.providers.{}.{field}", entry.name), problem)
        };
        let base = entry.url.as_deref().unwrap_or_default();
        let parsed = url::Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if parsed.is_none() {
            let problem = format!("is `{base}`; write where it is, as https://api.example.com/v1");
            return Err(wrong("url", problem));
        }
        let secret = entry.key.as_ref().map(|key| key.0.clone());
        let authorization = match &secret {
            Some(key) => {
                let value = HeaderValue::try_from(format!("{scheme} {key}"));
                let mut value = value.map_err(|_| {
                    wrong("key", "has characters that no key has; copy it again".into())
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let unusable = |error: &dyn std::fmt::Display| {
            wrong("url", format!("cannot be called: {error}; look at the certificates"))
        };
        let fetcher = match entry.private {
            true => {
                let rules = Rules { private: true, roots: house.roots.clone(), ..Rules::default() };
                Fetcher::new(rules).map_err(|error| unusable(&error))?
            }
            false => house.fetcher.clone(),
        };
        Ok(Self {
            client: client(&house.roots).map_err(|error| unusable(&error))?,
            name: entry.name.clone(),
            base: base.trim_end_matches('/').into(),
            authorization,
            secret,
            fetcher,
            now_ms: house.now_ms.clone(),
        })
    }

    /// The same to a provider that answers nobody without a key.
    pub(super) fn with_key(
        entry: &ProviderEntry,
        house: &House,
        scheme: &str,
    ) -> Result<Self, ConfigError> {
        if entry.key.as_ref().is_none_or(|key| key.0.is_empty()) {
            let place = format!("gateway.providers.{}.key", entry.name);
            let problem = "is missing; the provider answers nobody without one";
            return Err(ConfigError::new(place, problem));
        }
        Self::open(entry, house, scheme)
    }

    /// A request to `path`, which begins with a slash, with our key.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.authorization {
            Some(key) => request.header(AUTHORIZATION, key),
            None => request,
        }
    }

    /// A request that posts `body`.
    pub(super) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, path);
        request.header(CONTENT_TYPE, "application/json").body(body.to_string())
    }

    /// Sends a request and reads all of its answer, of any status.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        bytes_max: u64,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let sent = Instant::now();
        let response = tokio::time::timeout_at(deadline.into(), request.send()).await;
        let mut response = match response {
            Err(_) => return Err(self.timed_out(None)),
            Ok(Err(error)) => return Err(self.unanswered(&error)),
            Ok(Ok(response)) => response,
        };
        let first_byte = sent.elapsed();
        let broken =
            |problem: String| Failure { first_byte: Some(first_byte), ..self.broken(&problem) };
        let too_large = || broken(format!("answers with more than {} MiB", bytes_max >> 20));
        let length = response.content_length().unwrap_or(0);
        if length > bytes_max {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity(length.min(AT_FIRST_BYTES) as usize);
        loop {
            match tokio::time::timeout_at(deadline.into(), response.chunk()).await {
                Err(_) => return Err(self.timed_out(Some(first_byte))),
                Ok(Err(_)) => return Err(broken("broke off in the middle of its answer".into())),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(part))) if (body.len() + part.len()) as u64 > bytes_max => {
                    return Err(too_large());
                }
                Ok(Ok(Some(part))) => body.extend_from_slice(&part),
            }
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { status, headers, body: body.freeze(), first_byte })
    }

    /// Sends a request that submits something. A task of its own waits for the answer, so that what was submitted is cancelled
    /// by the request that `cancel` makes of the answer, whenever nobody waits any more: before the answer too. What comes
    /// with the answer must be told that the work ended.
    pub(super) async fn submit(
        &self,
        request: RequestBuilder,
        bytes_max: u64,
        deadline: Instant,
        cancel: impl FnOnce(&Http, &Reply) -> Option<RequestBuilder> + Send + 'static,
    ) -> Result<(Reply, Option<Guard>), Failure> {
        let (told, answer) = oneshot::channel();
        let http = self.clone();
        tokio::spawn(async move {
            let reply = http.send(request, bytes_max, deadline).await;
            let guarded = reply.map(|reply| {
                let cancel = if reply.is_success() { cancel(&http, &reply) } else { None };
                let guard = cancel.map(|request| Guard(Some((http, request))));
                (reply, guard)
            });
            // Where nobody takes it, the guard goes with it.
            drop(told.send(guarded));
        });
        answer.await.unwrap_or_else(|_| Err(self.broken("was not heard to the end")))
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Reply {
    /// Whether the status is one of success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The header called `name`, as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn client(roots: &[Vec<u8>]) -> reqwest::Result<Client> {
    let roots: Vec<Certificate> =
        roots.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
    Client::builder()
        // A redirect would take the key along, or lose the body.
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("zoetrope/", env!("CARGO_PKG_VERSION")))
        .tls_certs_merge(roots)
        .build()
}

/// Cancels what was submitted when it is dropped, unless that has ended.
pub(super) struct Guard(Option<(Http, RequestBuilder)>);

impl Guard {
    /// There is nothing to cancel any more.
    pub(super) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some((http, cancel)) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let done = http.send(cancel, ANSWER_BYTES_MAX, Instant::now() + CANCEL).await;
            let status = done.map_or(0, |reply| reply.status);
            tracing::debug!(provider = http.name, status, "what nobody waits for was cancelled");
        });
    }
}

/// Bytes of an answer that holds `count` pictures as base64.
pub(super) fn answer_bytes_max(count: u32) -> u64 {
    ANSWER_BYTES_MAX + u64::from(count) * (PICTURE_BYTES_MAX / 3 * 4)
}

/// Whether `id` is fit to stand in a path: providers could lead us anywhere else.
pub(super) fn is_id(id: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=128).contains(&id.len()) && id.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_lead_elsewhere_are_none() {
        assert!(is_id("0198f1c2-aa_1"));
        for id in ["", "../x", "a/b", "a?b", "a#b", "a%2f", "ä"] {
            assert!(!is_id(id), "{id}");
        }
    }
}

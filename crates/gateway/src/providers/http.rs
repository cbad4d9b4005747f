//! Exchanges with a provider over HTTP: every body under a limit and a deadline, every failure in the router's terms.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Method, RequestBuilder, redirect};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::oneshot;
use zoetrope_api::images::Pixels;
use zoetrope_files::fetch::{FetchError, Fetcher, Limit, Rules, data_uri};
use zoetrope_files::{Glance, glance, glance_base64, is_standard_base64};
use zoetrope_jobs::Clock;

use super::said::{Said, scrubbed};
use crate::catalogue::{ConfigError, ProviderEntry};
use crate::failure::{Billed, Failure, FailureKind};
use crate::gateway::House;
use crate::provider::{Call, Content, Made};

/// A provider that has not taken the connection by now will not.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection that nobody needs is kept: most servers close theirs after a minute.
const IDLE: Duration = Duration::from_secs(50);
/// Bytes of an answer without pictures.
pub(super) const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are set aside for an answer at most before they came: most with a picture fit, and an announcement costs nothing.
const AT_FIRST_BYTES: u64 = 4 << 20;
/// Bytes of a picture: one of 2048 × 2048 has 12 MiB before it is compressed at all.
const PICTURE_BYTES_MAX: u64 = 32 << 20;
/// How long cancelling may take.
const CANCEL: Duration = Duration::from_secs(10);
/// The longest pause that a provider may ask for: its queue says no more about tomorrow.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// The way to one provider. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    name: String,
    base: String,
    authorization: Option<HeaderValue>,
    /// What must not be shown.
    secret: Option<String>,
    fetcher: Fetcher,
    now_ms: Clock,
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

    fn timed_out(&self, first_byte: Option<Duration>) -> Failure {
        let text = format!("{} did not answer in time", self.name);
        let failure = Failure::new(FailureKind::TimedOut, text);
        Failure { billed: Billed::Maybe, first_byte, ..failure }
    }

    /// Whether something was sent decides. The cause may name addresses of the inside: it is logged, and not shown.
    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        tracing::debug!(?error, provider = self.name, "a call failed");
        if error.is_connect() || error.is_builder() {
            let text = format!("{} cannot be reached", self.name);
            return Failure::new(FailureKind::Unreachable, text);
        }
        self.broken("broke the connection off without an answer")
    }

    /// An answer that nobody can read, to something that was submitted.
    pub(super) fn broken(&self, problem: &str) -> Failure {
        let text = format!("{} {problem}", self.name);
        Failure { billed: Billed::Maybe, ..Failure::new(FailureKind::Broken, text) }
    }

    /// The answer as JSON.
    pub(super) fn json(&self, reply: &Reply) -> Result<Value, Failure> {
        serde_json::from_slice(&reply.body).map_err(|_| Failure {
            status: Some(reply.status),
            first_byte: Some(reply.first_byte),
            ..self.broken("answers with what is no JSON")
        })
    }

    /// What follows from an answer that is none of success, of which the provider says `said`.
    pub(super) fn refused(&self, reply: &Reply, said: Said, call: &Call) -> Failure {
        let kind = kind_of(reply.status);
        self.failed(kind, reply, said, call)
    }

    /// A failure of `kind`, of which `reply` tells. Not paid for, but where the time ran out behind a proxy.
    pub(super) fn failed(
        &self,
        kind: FailureKind,
        reply: &Reply,
        said: Said,
        call: &Call,
    ) -> Failure {
        let text = self.scrubbed(&said.message, call);
        let message = match text.is_empty() {
            true => format!("{} answered {}", self.name, reply.status),
            false => format!("{} answered {}: {text}", self.name, reply.status),
        };
        Failure {
            status: Some(reply.status),
            code: said.code.map(|code| self.scrubbed(&code, call)),
            parameter: said.parameter,
            retry_after: retry_after(&reply.headers, (self.now_ms)()),
            billed: if matches!(reply.status, 504 | 524) { Billed::Maybe } else { Billed::No },
            first_byte: Some(reply.first_byte),
            ..Failure::new(kind, message)
        }
    }

    /// An answer of success that holds no whole picture. It is paid for.
    pub(super) fn no_image(&self, problem: &str, first_byte: Duration) -> Failure {
        let failure = Failure::new(FailureKind::NoImage, format!("{} {problem}", self.name));
        Failure { billed: Billed::Yes, first_byte: Some(first_byte), ..failure }
    }

    /// What a provider says, as it may be shown.
    pub(super) fn scrubbed(&self, text: &str, call: &Call) -> String {
        scrubbed(text, self.secret.as_deref().unwrap_or_default(), &call.request.prompt)
    }

    /// The picture at `url`, which a provider told us and which may be a data URI. It is paid for already, so that a connection
    /// that breaks is tried twice.
    pub(super) async fn picture(
        &self,
        url: &str,
        first_byte: Duration,
        deadline: Instant,
    ) -> Result<Made, Failure> {
        if let Some(data) = url.strip_prefix("data:") {
            return match data.split_once(";base64,") {
                Some((_, text)) => self.base64(text.into(), first_byte),
                None => self.unpacked(url, first_byte),
            };
        }
        let fetch = || {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout_ms = left.as_millis().max(1) as u64;
            self.fetcher.get(url, Limit { bytes_max: PICTURE_BYTES_MAX, timeout_ms })
        };
        let fetched = match fetch().await {
            Err(FetchError::Connection { .. } | FetchError::Status { status: 500.., .. }) => {
                fetch().await
            }
            fetched => fetched,
        };
        match fetched {
            Ok(fetched) => self.whole(fetched.bytes, first_byte),
            Err(error) => Err(self.not_fetched(&error, first_byte)),
        }
    }

    /// The picture that came as base64. It stays that, where it is as the standard has it; line breaks, other alphabets and no
    /// padding are read too.
    pub(super) fn base64(&self, text: String, first_byte: Duration) -> Result<Made, Failure> {
        if text.len() as u64 > PICTURE_BYTES_MAX / 3 * 4 {
            return Err(self.no_image("made a picture that is too large", first_byte));
        }
        match glance_base64(&text) {
            Ok(seen) => Ok(made(Content::Base64(text), seen)),
            Err(error) if is_standard_base64(&text) => Err(self.half(&error, first_byte)),
            Err(_) if text.starts_with("data:") => self.unpacked(&text, first_byte),
            Err(_) => self.unpacked(&format!("data:;base64,{text}"), first_byte),
        }
    }

    fn unpacked(&self, uri: &str, first_byte: Duration) -> Result<Made, Failure> {
        let decoded = data_uri(uri, PICTURE_BYTES_MAX)
            .map_err(|_| self.no_image("sent a picture that cannot be read", first_byte))?;
        self.whole(decoded.bytes, first_byte)
    }

    /// The picture in `bytes`, if all of it is there.
    fn whole(&self, bytes: Bytes, first_byte: Duration) -> Result<Made, Failure> {
        match glance(&bytes) {
            Ok(seen) => Ok(made(Content::Bytes(bytes), seen)),
            Err(error) => Err(self.half(&error, first_byte)),
        }
    }

    fn half(&self, error: &zoetrope_files::Error, first_byte: Duration) -> Failure {
        self.no_image(&format!("sent a picture that {error}"), first_byte)
    }

    fn not_fetched(&self, error: &FetchError, first_byte: Duration) -> Failure {
        tracing::debug!(?error, provider = self.name, "a picture could not be fetched");
        let (kind, problem) = match error {
            FetchError::TimedOut { .. } => {
                (FailureKind::TimedOut, "made a picture that did not come in time".to_string())
            }
            FetchError::Connection { .. } => {
                (FailureKind::Broken, "made a picture whose host cannot be reached".to_string())
            }
            FetchError::Status { status, .. } if *status >= 500 => {
                (FailureKind::Broken, format!("made a picture whose host answers {status}"))
            }
            FetchError::Status { status, .. } => {
                (FailureKind::NoImage, format!("made a picture whose host answers {status}"))
            }
            FetchError::TooLarge { .. } => {
                (FailureKind::NoImage, "made a picture that is too large".to_string())
            }
            _ => (FailureKind::NoImage, "put a picture where it must not be fetched".to_string()),
        };
        let failure = Failure::new(kind, format!("{} {problem}", self.name));
        Failure { billed: Billed::Yes, first_byte: Some(first_byte), ..failure }
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

/// What a status says, where the provider does not say more.
fn kind_of(status: u16) -> FailureKind {
    match status {
        401..=403 => FailureKind::Configuration,
        404 | 410 => FailureKind::Gone,
        408 => FailureKind::TimedOut,
        429 => FailureKind::Throttled,
        400..=499 => FailureKind::Rejected,
        _ => FailureKind::Broken,
    }
}

/// When to come again, in milliseconds, seconds, or as a date.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| header(name)?.parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"));
    let seconds = seconds.or_else(|| {
        let date = OffsetDateTime::parse(header("retry-after")?, &Rfc2822).ok()?;
        Some(date.unix_timestamp() as f64 - now_ms as f64 / 1000.0)
    })?;
    let wait = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(RETRY_AFTER_MAX);
    Some(wait.min(RETRY_AFTER_MAX))
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

/// A picture as it was seen.
fn made(content: Content, Glance { format, width, height }: Glance) -> Made {
    let size = Pixels::new(width, height);
    Made { content, format, size, seed: None, revised_prompt: None }
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

/// How long to wait before asking again how far something is that was submitted `elapsed` ago: a tenth more than it takes.
pub(super) fn pause(elapsed: Duration) -> Duration {
    (elapsed / 10).clamp(Duration::from_millis(100), Duration::from_secs(1))
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
    fn when_to_come_again_is_read_in_every_form() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let cases = [
            (("retry-after", "7"), Some(7_000)),
            (("retry-after", "0.5"), Some(500)),
            (("retry-after-ms", "1500"), Some(1_500)),
            (("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), Some(30_000)),
            (("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), Some(0)),
            (("retry-after", "86400"), Some(3_600_000)),
            (("retry-after", "soon"), None),
            (("retry-after", "NaN"), Some(0)),
        ];
        for ((name, value), want) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let got = retry_after(&headers, now_ms).map(|wait| wait.as_millis());
            assert_eq!(got, want, "{name}: {value}");
        }
    }

    #[test]
    fn ids_that_would_lead_elsewhere_are_none() {
        assert!(is_id("0198f1c2-aa_1"));
        for id in ["", "../x", "a/b", "a?b", "a#b", "a%2f", "ä"] {
            assert!(!is_id(id), "{id}");
        }
    }
}

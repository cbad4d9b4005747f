//! What goes wrong between a provider and us, in the router's terms.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::http::{Http, Reply};
use super::said::{Said, scrubbed};
use crate::failure::{Billed, Failure, FailureKind};
use crate::provider::Call;

/// The longest pause that a provider may ask for: its queue says no more about tomorrow.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

impl Http {
    /// The deadline has passed; `first_byte` where the answer had begun.
    pub(super) fn timed_out(&self, first_byte: Option<Duration>) -> Failure {
        let text = format!("{} did not answer in time", self.name);
        let failure = Failure::new(FailureKind::TimedOut, text);
        Failure { billed: Billed::Maybe, first_byte, ..failure }
    }

    /// Whether something was sent decides. The cause may name addresses of the inside: it is logged, and not shown.
    pub(super) fn unanswered(&self, error: &reqwest::Error) -> Failure {
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

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

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
}

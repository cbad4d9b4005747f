//! Pictures as providers give them: at an address, as a data URI, as base64. None is taken that is not whole.

use std::time::{Duration, Instant};

use bytes::Bytes;
use zoetrope_api::images::Pixels;
use zoetrope_files::fetch::{FetchError, Limit, data_uri};
use zoetrope_files::{Glance, glance, glance_base64, is_standard_base64};

use super::http::{Http, PICTURE_BYTES_MAX};
use crate::failure::{Billed, Failure, FailureKind};
use crate::provider::{Content, Made};

impl Http {
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
}

/// A picture as it was seen.
fn made(content: Content, Glance { format, width, height }: Glance) -> Made {
    let size = Pixels::new(width, height);
    Made { content, format, size, seed: None, revised_prompt: None }
}

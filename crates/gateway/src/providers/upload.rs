//! fal's storage: a picture that is too large for a request's body is uploaded, and the request has its address.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;
use zoetrope_files::fetch::FetchError;

use super::http::{ANSWER_BYTES_MAX, Http};
use super::said::Said;
use crate::catalogue::{ConfigError, ProviderEntry};
use crate::failure::{Billed, Failure, FailureKind};
use crate::gateway::House;
use crate::provider::Call;
use crate::source::Source;

/// Says that something is to be uploaded, and where its address will be. Up to 90 MiB come in one piece: larger pictures than
/// that are taken from nobody.
const INITIATE: &str = "/storage/upload/initiate?storage_type=fal-cdn-v3";

/// Where files are uploaded.
pub(super) struct Storage(Http);

impl Storage {
    /// That of `entry`, which has an `upload_url`.
    pub(super) fn open(
        entry: &ProviderEntry,
        house: &House,
        scheme: &str,
    ) -> Result<Self, ConfigError> {
        let entry = ProviderEntry { url: entry.upload_url.clone(), ..entry.clone() };
        Ok(Self(Http::open(&entry, house, scheme)?))
    }

    /// Uploads `image`; its address. Nothing is paid for yet, whatever goes wrong.
    pub(super) async fn upload(&self, image: &Source, call: &Call) -> Result<String, Failure> {
        let uploaded = self.put(image, call).await;
        uploaded.map_err(|failure| Failure { billed: Billed::No, ..failure })
    }

    async fn put(&self, image: &Source, call: &Call) -> Result<String, Failure> {
        let ending = image.content_type.rsplit('/').next().unwrap_or_default();
        let file =
            json!({"content_type": image.content_type, "file_name": format!("image.{ending}")});
        let request = self.0.post(INITIATE, &file);
        let reply = self.0.send(request, ANSWER_BYTES_MAX, call.deadline).await?;
        if !reply.is_success() {
            return Err(self.0.refused(&reply, Said::read(&reply.body), call));
        }
        let places = self.0.json(&reply)?;
        let (Some(to), Some(at)) = (places["upload_url"].as_str(), places["file_url"].as_str())
        else {
            return Err(self.0.broken("tells no place for an upload"));
        };
        // Wherever it says, but for this machine and its network; and without our key.
        let left =
            call.deadline.saturating_duration_since(Instant::now()).as_millis().max(1) as u64;
        let headers = [("content-type".to_string(), image.content_type.to_string())];
        let put = self.0.fetcher.send(Method::PUT, to, &headers, image.bytes.clone(), left).await;
        match put {
            Ok(200..=299) => Ok(at.into()),
            Ok(status) => Err(self.0.broken(&format!("answers an upload with {status}"))),
            Err(FetchError::TimedOut { .. }) => Err(self.0.timed_out(None)),
            Err(error) => {
                tracing::debug!(?error, provider = self.0.name(), "an upload failed");
                let text = format!("{} cannot be reached for an upload", self.0.name());
                Err(Failure::new(FailureKind::Unreachable, text))
            }
        }
    }
}

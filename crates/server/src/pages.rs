//! What pages for people are given of this server: who looks, where it is reached, and the doors that programs have too.

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde_json::Value;
use zoetrope_api::fal::Endpoint;
use zoetrope_api::images::ModelSheet;
use zoetrope_files::Store;
use zoetrope_gateway::Gateway;
use zoetrope_gateway::catalogue::{Choice, Model};
use zoetrope_jobs::{FileRow, Queue};

pub use crate::answer::Failure;
pub use crate::auth::Caller;
pub use crate::surface::Origin;

use crate::auth;
use crate::fal::lifecycle;
use crate::fal::submit::{Sent, submit};
use crate::files::name_for;
use crate::state::App;

/// Seconds that whoever signed in stays so.
pub const SESSION_SECONDS: i64 = auth::SESSION_MS / 1000;

impl App {
    /// Where requests go.
    pub fn queue(&self) -> &Queue {
        &self.settings.queue
    }

    /// Where files lie.
    pub fn store(&self) -> &Store {
        &self.settings.store
    }

    /// Who makes pictures by a model's name.
    pub fn gateway(&self) -> &Gateway {
        &self.settings.gateway
    }

    /// All that is known of a model.
    pub fn model_sheet(&self, model: &Model) -> ModelSheet {
        crate::openai::sheet(self, model, &Choice::Any)
    }

    /// Whether every request needs a key.
    pub fn keys_required(&self) -> bool {
        self.settings.keys_required
    }

    /// Width and height that the models here draw best at, where that is none of fal's sizes.
    pub fn draws_at(&self) -> Option<(u32, u32)> {
        self.settings.draws_at
    }

    /// Bytes of one uploaded file.
    pub fn upload_bytes_max(&self) -> u64 {
        self.settings.upload_bytes_max
    }

    /// Who looks at the pages with the session `token`; without keys whoever sits at this machine.
    pub async fn visitor(&self, token: Option<&str>) -> Result<Option<Caller>, Failure> {
        auth::visitor(self, token).await
    }

    /// A session's token for whoever has the key `credential`, `id:secret`; `None` where it is not known.
    pub async fn sign_in(&self, credential: &str) -> Result<Option<String>, Failure> {
        auth::sign_in(self, credential.trim()).await
    }

    /// Puts `input` for `endpoint` into the queue, as a program's would be, with previews; its id.
    pub async fn submit(
        &self,
        caller: &Caller,
        endpoint: &'static Endpoint,
        input: Value,
        origin: &Origin,
    ) -> Result<String, Failure> {
        let sent = Sent {
            endpoint,
            caller,
            headers: &HeaderMap::new(),
            base: &origin.files,
            input,
            webhook: None,
            previews: true,
            inline: false,
        };
        submit(self, sent).await
    }

    /// Keeps a file that a page sends, as long as uploads are kept; its name in the store.
    pub async fn keep(
        &self,
        caller: &Caller,
        (file_name, content_type): (&str, &str),
        bytes: Bytes,
    ) -> Result<String, Failure> {
        let name = name_for(file_name, content_type);
        let now_ms = self.now_ms();
        let row = FileRow {
            name: name.as_str().into(),
            owner: caller.owner.clone(),
            request: None,
            size: bytes.len() as i64,
            created_ms: now_ms,
            expires_ms: Some(lifecycle::of_upload(self, &HeaderMap::new())?),
        };
        self.settings.queue.insert_file(&row).await?; // bytes without a row would never be found again
        self.settings.store.put(&name, bytes).await.map_err(|e| Failure::internal(&e))?;
        Ok(name.as_str().into())
    }
}

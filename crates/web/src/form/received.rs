//! A form as it was sent: texts, and files that are kept at once, so that everything behind it sees addresses.

use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use zoetrope_server::App;

use super::Filled;
use crate::fault::Fault;
use crate::visitor::Visitor;

/// A form, and the files in it that are not empty.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) filled: Filled,
    pub(crate) files: Vec<File>,
}

/// A file of a form.
pub(crate) struct File {
    /// The control's name.
    pub(crate) control: String,
    pub(crate) file_name: String,
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

/// A file's control is called as the text beside it, with this behind.
pub(crate) const FILE: &str = "@file";

/// Reads `request` as a form of either kind.
pub(crate) async fn receive(request: Request) -> Result<Received, Fault> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        let body = Bytes::from_request(request, &()).await;
        let body = body.map_err(|error| Fault::new(error.status(), error.body_text()))?;
        let filled = Filled::of_query(&String::from_utf8_lossy(&body));
        return Ok(Received { filled, files: Vec::new() });
    }
    let parts = Multipart::from_request(request, &()).await;
    let mut parts = parts.map_err(|error| Fault::new(error.status(), error.body_text()))?;
    let wrong = |error: axum::extract::multipart::MultipartError| {
        Fault::new(error.status(), error.body_text())
    };
    let mut out = Received::default();
    while let Some(part) = parts.next_field().await.map_err(wrong)? {
        let name = part.name().unwrap_or_default().to_string();
        match part.file_name().map(String::from) {
            Some(file_name) => {
                let content_type = part.content_type().unwrap_or_default().to_string();
                let bytes = part.bytes().await.map_err(wrong)?;
                if !bytes.is_empty() {
                    out.files.push(File { control: name, file_name, content_type, bytes });
                }
            }
            None => out.filled.set(&name, part.text().await.map_err(wrong)?),
        }
    }
    Ok(out)
}

impl Received {
    /// The form with the files kept: their addresses stand where the form has room for one.
    pub(crate) async fn keep(self, app: &App, visitor: &Visitor) -> Result<Filled, Fault> {
        let mut filled = self.filled;
        for file in self.files {
            if let Some(control) = file.control.strip_suffix(FILE) {
                let control = control.to_string();
                filled.set(&control, file.keep(app, visitor).await?);
            }
        }
        Ok(filled)
    }
}

impl File {
    /// The path of the file, once it is kept.
    pub(crate) async fn keep(self, app: &App, visitor: &Visitor) -> Result<String, Fault> {
        if self.bytes.len() as u64 > app.upload_bytes_max() {
            let message = format!(
                "The file has more than {} bytes, the most that is taken.",
                app.upload_bytes_max()
            );
            return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        let called = (self.file_name.as_str(), self.content_type.as_str());
        let name = app.keep(&visitor.caller, called, self.bytes).await?;
        Ok(format!("/files/{name}"))
    }
}

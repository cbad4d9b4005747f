//! `rest.fal.ai/storage`: where an upload goes, and with which token.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Value, json};
use zoetrope_api::fal::Problem;

use crate::answer::Failure;
use crate::auth::{Purpose, caller};
use crate::extract::Small;
use crate::fal::{lifecycle, queue::timestamp, submit::json_of};
use crate::files::{UPLOAD_MS, file_token, name_for};
use crate::state::App;
use crate::surface::Origin;
use crate::token::{Claims, Grant};

/// `{file_name, content_type}` to `{upload_url, file_url}`: for one `PUT`, or for parts.
pub(crate) async fn initiate(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    Small(body): Small,
) -> Result<Json<Value>, Failure> {
    let caller = caller(&app, &headers, None, Purpose::Upload).await?;
    let sent = json_of(&body)?;
    let text = |field: &str, default: &str| match &sent[field] {
        Value::Null => Ok(default.to_string()),
        Value::String(text) => Ok(text.clone()),
        other => {
            Err(Problem::new(&[json!(field)], "string_type", "Input should be a valid string")
                .input(other))
        }
    };
    let read =
        |field, default| text(field, default).map_err(|problem| Failure::problems(&[problem]));
    let content_type = read("content_type", "application/octet-stream")?;
    let name = name_for(&read("file_name", "file")?, &content_type);
    let expires_ms = lifecycle::of_upload(&app, &headers)?;
    let token = file_token(&app, &name, caller.owner, Some(expires_ms));
    Ok(Json(json!({
        "upload_url": format!("{}/uploads/{token}", origin.files),
        "file_url": format!("{}/files/{}", origin.files, name.as_str()),
    })))
}

/// A token for uploads to the CDN. Its time has no `Z`: Python 3.8 cannot read one.
pub(crate) async fn token(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let caller = caller(&app, &headers, None, Purpose::Account).await?;
    let expires_ms = app.now_ms() + UPLOAD_MS;
    let token = app.signer.sign(&Claims {
        owner: caller.owner,
        expires_ms: expires_ms + 60_000,
        grant: Grant::Uploads,
    });
    let whole_second = timestamp(expires_ms / 1000 * 1000);
    Ok(Json(json!({
        "token": token,
        "token_type": "Bearer",
        "base_url": origin.cdn,
        "expires_at": whole_second.replace('Z', "+00:00"),
    })))
}

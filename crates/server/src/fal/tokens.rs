//! `rest.fal.ai/tokens`: short-lived tokens for browsers, which must not know a key.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use zoetrope_api::fal::Problem;

use crate::answer::Failure;
use crate::auth::{Purpose, caller};
use crate::extract::Small;
use crate::fal::submit::json_of;
use crate::state::App;
use crate::token::{Claims, Grant};

/// The longest that a token may live: a day.
const SECONDS_MAX: u64 = 86_400;
const SECONDS_DEFAULT: u64 = 120;

/// `{allowed_apps, token_expiration}` to a bare string.
pub(crate) async fn make(
    State(app): State<App>,
    headers: HeaderMap,
    Small(body): Small,
) -> Result<Json<Value>, Failure> {
    Ok(Json(Value::String(token(&app, &headers, &body).await?)))
}

/// `{allowed_apps, duration}` to `{token}`.
pub(crate) async fn make_realtime(
    State(app): State<App>,
    headers: HeaderMap,
    Small(body): Small,
) -> Result<Json<Value>, Failure> {
    Ok(Json(json!({"token": token(&app, &headers, &body).await?})))
}

async fn token(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<String, Failure> {
    let caller = caller(app, headers, None, Purpose::Account).await?;
    let sent = json_of(body)?;
    let wrong = |field: &str, kind, message: String| {
        Failure::problems(&[Problem::new(&[json!(field)], kind, message)])
    };
    let apps: Vec<String> = serde_json::from_value(sent["allowed_apps"].clone()).map_err(|_| {
        wrong("allowed_apps", "list_type", "Input should be a list of applications".into())
    })?;
    let seconds = match [&sent["token_expiration"], &sent["duration"]]
        .into_iter()
        .find(|v| !v.is_null())
    {
        None => SECONDS_DEFAULT,
        Some(sent) => sent.as_u64().filter(|s| (1..=SECONDS_MAX).contains(s)).ok_or_else(|| {
            wrong(
                "token_expiration",
                "value_error",
                format!(
                    "It is {sent}; it must be a whole number of seconds from 1 to {SECONDS_MAX}"
                ),
            )
        })?,
    };
    // A little longer than promised: clocks differ, and the client counts from when it asked.
    let expires_ms = app.now_ms() + 1000 * seconds as i64 + 5000;
    Ok(app.signer.sign(&Claims { owner: caller.owner, expires_ms, grant: Grant::Apps(apps) }))
}

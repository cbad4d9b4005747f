//! fal's protocol: a file for each thing that its clients do.

pub(crate) mod direct;
pub(crate) mod history;
pub(crate) mod lifecycle;
pub(crate) mod queue;
mod realtime;
pub(crate) mod run;
mod storage;
mod stream;
pub(crate) mod submit;
mod tokens;
mod wait;

pub(crate) use submit::json_of;

use axum::Router;
use axum::routing::{get, post};

use crate::state::App;

/// `rest.fal.ai`: uploads, tokens, and the keys that webhooks are signed with.
pub(crate) fn rest(app: &App) -> Router {
    Router::new()
        .route("/storage/upload/initiate", post(storage::initiate))
        .route("/storage/upload/initiate-multipart", post(storage::initiate))
        .route("/storage/auth/token", post(storage::token))
        .route("/tokens", post(tokens::make))
        .route("/tokens/", post(tokens::make))
        .route("/tokens/realtime", post(tokens::make_realtime))
        .route("/.well-known/jwks.json", get(crate::webhook::jwks))
        .fallback(crate::own::not_found)
        .with_state(app.clone())
}

//! `/playground`: an endpoint's form, what it makes, and `/requests`, where a request and its end are seen.

pub(crate) mod code;
mod form;
mod read;
mod recent;
mod request;
mod result;
mod watch;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use zoetrope_server::App;

/// Bytes of a form: two pictures of fal's 50 MB, and words.
const FORM_BYTES_MAX: usize = 104 << 20;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/playground", get(form::first))
        .route("/playground/recent", get(recent::show))
        .route("/playground/upload", post(form::upload))
        .route("/playground/read", post(read::read))
        .route("/playground/code/{*id}", post(code::show))
        .route("/playground/{*id}", get(form::show).post(form::submit))
        .route("/requests/{id}", get(request::show))
        .route("/requests/{id}/events", get(watch::events))
        .route("/requests/{id}/cancel", post(request::cancel))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
}

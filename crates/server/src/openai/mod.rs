//! OpenAI's Images API over the gateway, under `/v1` and `/openai/v1`: a file for each thing that its clients do.

mod account;
mod answer;
mod caller;
mod dry_run;
mod form;
mod gallery;
mod idempotency;
mod images;
mod log;
mod models;
mod page;
mod performance;
mod stream;
mod window;

pub(crate) use answer::refusal;
pub(crate) use caller::{caller, problem};
pub(crate) use models::sheet;
pub(crate) use page::{listed, page, plain};

use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use zoetrope_api::images::{Code, Problem};

use crate::answer::json_answer;
use crate::state::App;
use crate::surface::Origin;

/// Everything under `/v1`.
pub(crate) fn router(app: &App) -> Router {
    Router::new()
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/images/variations", post(images::variations))
        .route("/v1/openapi.json", get(document))
        .route("/v1/models", get(models::list))
        // Ids with a slash come as one part, `%2F`, or as two.
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/balance", get(account::balance))
        .route("/v1/usage", get(account::usage))
        .route("/v1/keys", get(account::keys))
        .route("/v1/requests", get(log::requests))
        .route("/v1/requests/{id}", get(log::request))
        .route("/v1/requests/{id}/payloads", delete(log::purge))
        .route("/v1/providers/performance", get(performance::performance))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing)
        .with_state(app.clone())
}

/// Everything here for programs that write clients.
async fn document(Extension(origin): Extension<Origin>) -> Response {
    json_answer(StatusCode::OK, &zoetrope_api::images::openapi(&origin.run))
}

async fn nothing(method: Method, uri: Uri) -> Response {
    let message = format!(
        "There is no {method} {}; there are images/generations, images/edits, images/variations, models, requests, keys, balance, usage and providers/performance",
        uri.path()
    );
    refusal(&Problem::new(Code::NotFound, message))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let problem = Problem::new(Code::NotFound, format!("{} does not take {method}", uri.path()));
    refusal(&Problem { status: Some(405), ..problem })
}

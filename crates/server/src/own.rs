//! What is this server's own: health, metrics, and fal's documents about its endpoints.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use zoetrope_api::fal::{ENDPOINTS, Endpoint, llms, schema};
use zoetrope_api::images::{Listed, catalogue_txt};
use zoetrope_files::Name;
use zoetrope_jobs::Scope;

use crate::answer::{Failure, json_answer};
use crate::auth::{Purpose, caller};
use crate::extract;
use crate::openai::{listed, plain};
use crate::state::App;
use crate::surface::Origin;

pub(crate) fn router(app: &App) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/openapi/queue/openapi.json", get(openapi))
        .route("/llms.txt", get(catalogue))
        .route("/models/{*page}", get(page))
        .fallback(not_found)
        .with_state(app.clone())
}

/// Everything that is not there.
pub(crate) async fn not_found(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("Path {} not found", uri.path()))
}

/// What there is, for programs; browsers go where people look.
async fn index(Extension(origin): Extension<Origin>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        return Redirect::to("/playground").into_response();
    }
    let endpoints: Vec<Value> = ENDPOINTS
        .iter()
        .map(|e| json!({"id": e.id, "title": e.title, "llms_txt": format!("{}/models/{}/llms.txt", origin.run, e.id)}))
        .collect();
    Json(
        json!({"name": "zoetrope", "endpoints": endpoints, "queue": origin.queue, "openai": format!("{}/v1", origin.run), "health": format!("{}/healthz", origin.run)}),
    )
    .into_response()
}

/// Whether requests would be accepted and their files kept now.
async fn ready(State(app): State<App>) -> Response {
    let queued = match app.settings.queue.queued().await {
        Ok(queued) => queued,
        Err(error) => return unready("database", &error),
    };
    match app.settings.store.head(&Name::new("probe")).await {
        Ok(_) => json_answer(StatusCode::OK, &json!({"status": "ready", "queued": queued})),
        Err(error) => unready("storage", &error),
    }
}

fn unready(part: &str, error: &dyn std::fmt::Display) -> Response {
    tracing::warn!(%error, part, "not ready");
    let status = format!("the {part} does not answer");
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": status}))
}

async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failure> {
    let caller = caller(&app, &headers, None, Purpose::Account).await?;
    if caller.scope != Scope::Admin {
        return Err(Failure::new(StatusCode::FORBIDDEN, "Metrics are for keys of scope admin"));
    }
    Ok(crate::metrics::answer(&app.settings.metrics))
}

#[derive(Deserialize)]
struct Asked {
    endpoint_id: Option<String>,
}

async fn openapi(
    Extension(origin): Extension<Origin>,
    extract::Asked(asked): extract::Asked<Asked>,
) -> Response {
    match asked.endpoint_id.as_deref().and_then(Endpoint::find) {
        Some(endpoint) => {
            json_answer(StatusCode::OK, &schema::openapi(endpoint, &origin.queue, &origin.run))
        }
        None => json_answer(StatusCode::NOT_FOUND, &Value::Null),
    }
}

/// `/models/{endpoint}/llms.txt`, and the same of the gateway's models.
async fn page(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    Path(page): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if let Some(page) = crate::openai::page(&app, &origin, &headers, &page).await {
        return Ok(page);
    }
    let endpoint = page.strip_suffix("/llms.txt").and_then(Endpoint::find);
    let endpoint = endpoint
        .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("There is no page {page}")))?;
    let text = llms::llms_txt(endpoint, &origin.run, &origin.run);
    Ok(plain(text))
}

/// All models and endpoints, with the way to their pages.
async fn catalogue(State(app): State<App>, Extension(origin): Extension<Origin>) -> Response {
    let endpoints: Vec<Listed> = ENDPOINTS
        .iter()
        .map(|one| Listed {
            title: one.title.into(),
            summary: format!("`{}`. {}", one.id, one.summary),
            page: format!("{}/models/{}/llms.txt", origin.run, one.id),
        })
        .collect();
    plain(catalogue_txt(&listed(&app, &origin), &endpoints, &origin.run, &origin.queue))
}

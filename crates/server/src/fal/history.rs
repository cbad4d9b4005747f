//! `api.fal.ai/v1`: what was done, and forgetting it.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use zoetrope_api::fal::ENDPOINTS;
use zoetrope_jobs::{Outcome, Request, Scope, State as Stand};

use crate::answer::Failure;
use crate::auth::{Purpose, caller};
use crate::extract;
use crate::fal::queue::timestamp;
use crate::janitor::forget as forget_request;
use crate::state::App;

pub(crate) fn router(app: &App) -> Router {
    Router::new()
        .route("/v1/meta", get(async || Json(json!({"webhook_ip_ranges": []}))))
        .route("/v1/models/pricing", get(pricing))
        .route("/v1/models/requests/by-endpoint", get(list))
        .route("/v1/models/requests/{id}", get(show))
        .route("/v1/models/requests/{id}/payloads", delete(forget))
        .fallback(crate::own::not_found)
        .with_state(app.clone())
}

#[derive(Deserialize, Default)]
struct Asked {
    endpoint_id: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
    request_id: Option<String>,
    expand: Option<String>,
}

/// What is charged for a megapixel: fal's prices, unless the configuration has others.
async fn pricing(
    State(app): State<App>,
    extract::Asked(asked): extract::Asked<Asked>,
) -> Json<Value> {
    let wanted: Vec<&str> = asked
        .endpoint_id
        .as_deref()
        .unwrap_or_default()
        .split(',')
        .filter(|id| !id.is_empty())
        .collect();
    let chosen = ENDPOINTS.iter().filter(|e| wanted.is_empty() || wanted.contains(&e.id));
    let prices: Vec<Value> = chosen
        .map(|e| json!({"endpoint_id": e.id, "unit_price": app.price(e.id), "unit": "megapixels", "currency": "USD"}))
        .collect();
    Json(json!({"prices": prices, "next_cursor": null, "has_more": false}))
}

/// The caller's requests, newest first; an administrator's key sees everybody's.
async fn list(
    State(app): State<App>,
    extract::Asked(asked): extract::Asked<Asked>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let caller = caller(&app, &headers, None, Purpose::Account).await?;
    let owner = if caller.scope == Scope::Admin { "" } else { caller.owner.as_str() };
    let most = asked.limit.unwrap_or(50).clamp(1, 100);
    let payloads =
        asked.expand.as_deref().is_some_and(|list| list.split(',').any(|name| name == "payloads"));
    let found = match &asked.request_id {
        Some(id) => {
            Vec::from_iter(app.settings.queue.request(id).await?.filter(|r| caller.sees(&r.owner)))
        }
        None => {
            let (endpoint, before) =
                (asked.endpoint_id.unwrap_or_default(), asked.cursor.unwrap_or_default());
            app.settings.queue.history(owner, &endpoint, &before, most).await?
        }
    };
    let next = (found.len() as i64 == most).then(|| found.last().map(|r| r.id.clone())).flatten();
    let items: Vec<Value> = found.iter().map(|request| item(&app, request, payloads)).collect();
    Ok(Json(json!({"items": items, "has_more": next.is_some(), "next_cursor": next})))
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    Ok(Json(item(&app, &own(&app, &id, &headers).await?, true)))
}

async fn own(app: &App, id: &str, headers: &HeaderMap) -> Result<Request, Failure> {
    let caller = caller(app, headers, None, Purpose::Account).await?;
    let found = app.settings.queue.request(id).await?.filter(|request| caller.sees(&request.owner));
    found.ok_or_else(|| {
        Failure::new(axum::http::StatusCode::NOT_FOUND, format!("Request {id} not found"))
    })
}

/// Forgets a request that has ended, and deletes the files that it made; files that were sent stay.
async fn forget(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let request = own(&app, &id, &headers).await?;
    if request.state != Stand::Done {
        let detail = format!("Request {id} has not ended; cancel it first");
        return Err(Failure::new(axum::http::StatusCode::CONFLICT, detail));
    }
    let files = forget_request(&app.settings.queue, &app.settings.store, &request).await?;
    // What went wrong names this machine's folders.
    let later = "it cannot be deleted now and will be later";
    let result = |(name, problem): (String, Option<String>)| {
        let link = format!("{}/files/{name}", request.base);
        json!({"link": link, "exception": problem.map(|_| later)})
    };
    let results: Vec<Value> = files.into_iter().map(result).collect();
    Ok(Json(json!({"cdn_delete_results": results})))
}

/// A request as a line of the history.
fn item(app: &App, request: &Request, payloads: bool) -> Value {
    let end = request.end.as_ref();
    let status = end.map(|end| match (end.outcome, end.status_code) {
        (Outcome::Completed, _) => "success",
        (_, 400..=499) => "user_error",
        _ => "error",
    });
    let units = end.and_then(|end| end.billable_units);
    let price = app.price(&request.endpoint);
    let mut out = json!({
        "request_id": request.id,
        "endpoint_id": request.endpoint,
        "sent_at": timestamp(request.created_ms),
        "started_at": request.started_ms.map(timestamp),
        "ended_at": request.finished_ms.map(timestamp),
        "status": status,
        "status_code": end.map(|end| end.status_code),
        "duration": end.and_then(|end| end.inference_ms).map(|ms| ms as f64 / 1000.0),
        "billable_units": units,
        "unit_price": price,
        "cost": units.zip(price).map(|(units, price)| units * price),
        "attempts": request.attempts,
    });
    if payloads {
        out["json_input"] = serde_json::from_str(&request.input).unwrap_or_default();
        out["json_output"] =
            end.and_then(|end| serde_json::from_str(&end.response).ok()).unwrap_or_default();
    }
    out
}

//! `api.fal.ai/v1`: what was done, and forgetting it.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zoetrope_api::fal::ENDPOINTS;
use zoetrope_jobs::{Page, Request, Scope, Sort, Standing, State as Stand, Status};

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
    status: Option<String>,
    sort_by: Option<String>,
    start: Option<String>,
    end: Option<String>,
}

impl Asked {
    /// Which of `owner`'s requests are meant; what cannot be read is an error and never left out.
    fn page(&self, owner: &str) -> Result<Page, Failure> {
        let wrong = |name: &str, value: &str, known: &str| {
            let detail = format!("`{name}` is `{value}`; it must be {known}");
            Failure::typed(StatusCode::BAD_REQUEST, "bad_request", detail)
        };
        let status = match self.status.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => {
                let found = Status::ALL.into_iter().find(|status| status.name() == name);
                Some(found.ok_or_else(|| wrong("status", name, "success, user_error or error"))?)
            }
            None => None,
        };
        let sort = match self.sort_by.as_deref() {
            None | Some("") => Sort::Arrival,
            Some("ended_at") => Sort::End,
            Some("duration") => Sort::Duration,
            Some(other) => return Err(wrong("sort_by", other, "ended_at or duration")),
        };
        let moment = |name: &str, value: &Option<String>, none: i64| match value.as_deref() {
            None | Some("") => Ok(none),
            Some(text) => moment(text)
                .ok_or_else(|| wrong(name, text, "a time, as 2026-01-31T12:00:00Z or 2026-01-31")),
        };
        Ok(Page {
            owner: owner.into(),
            endpoint: self.endpoint_id.clone().unwrap_or_default(),
            status,
            from_ms: moment("start", &self.start, 0)?,
            until_ms: moment("end", &self.end, i64::MAX)?,
            sort,
            after: self.cursor.clone().unwrap_or_default(),
            most: self.limit.unwrap_or(50).clamp(1, 100),
        })
    }
}

/// Milliseconds since 1970 of a time as RFC 3339 has it, or of a day's begin in UTC.
fn moment(text: &str) -> Option<i64> {
    // A `+` that was not escaped arrives as a blank.
    let text = text.trim().replace(' ', "+");
    let parsed = OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339));
    parsed.ok().map(|time| (time.unix_timestamp_nanos() / 1_000_000) as i64)
}

/// What is charged for a unit: fal's prices, unless the configuration has others.
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
        .map(|e| json!({"endpoint_id": e.id, "unit_price": app.price(e.id), "unit": e.unit(), "currency": "USD"}))
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
    let page = asked.page(owner)?;
    let payloads =
        asked.expand.as_deref().is_some_and(|list| list.split(',').any(|name| name == "payloads"));
    let (found, mut next) = match &asked.request_id {
        Some(id) => {
            let found = app.settings.queue.standing(id).await?;
            (Vec::from_iter(found.filter(|r| caller.sees(&r.owner) && shown(r))), None)
        }
        None => app.settings.queue.history(&page).await?,
    };
    let (mut items, mut bytes) = (Vec::new(), 0);
    for (at, standing) in found.iter().enumerate() {
        if at > 0 && bytes > PAGE_BYTES_MAX {
            next = Some(page.sort.cursor(&found[at - 1]));
            break;
        }
        items.push(match payloads {
            true => match app.settings.queue.request(&standing.id).await? {
                Some(request) => {
                    bytes += size(&request);
                    with_payloads(&request)
                }
                None => continue, // deleted at this moment
            },
            false => item(standing),
        });
    }
    Ok(Json(json!({"items": items, "has_more": next.is_some(), "next_cursor": next})))
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let request = own(&app, &id, &headers).await?;
    match shown(&request) {
        true => Ok(Json(with_payloads(&request))),
        false => Err(missing(&id)),
    }
}

/// Of what is not to be kept, nothing is shown once it has ended.
fn shown(request: &Standing) -> bool {
    request.keep_io || request.state != Stand::Done
}

fn missing(id: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("Request {id} not found"))
}

async fn own(app: &App, id: &str, headers: &HeaderMap) -> Result<Request, Failure> {
    let caller = caller(app, headers, None, Purpose::Account).await?;
    let found = app.settings.queue.request(id).await?.filter(|request| caller.sees(&request.owner));
    found.ok_or_else(|| missing(id))
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
        return Err(Failure::new(StatusCode::CONFLICT, detail));
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

/// Bytes of inputs and outputs after which a page ends: they are all in memory at once.
const PAGE_BYTES_MAX: usize = 16 << 20;

fn size(request: &Request) -> usize {
    request.input.len() + request.end.as_ref().map_or(0, |end| end.response.len())
}

/// The same with input and output.
fn with_payloads(request: &Request) -> Value {
    let mut out = item(request);
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    out["json_input"] = parsed(&request.input);
    out["json_output"] = request.end.as_ref().map_or(Value::Null, |end| parsed(&end.response));
    out
}

/// A request as a line of the history.
fn item(request: &Standing) -> Value {
    let end = request.ended.as_ref();
    let units = end.and_then(|end| end.billable_units);
    let price = request.unit_price;
    json!({
        "request_id": request.id,
        "endpoint_id": request.endpoint,
        "sent_at": timestamp(request.created_ms),
        "started_at": request.started_ms.map(timestamp),
        "ended_at": request.finished_ms.map(timestamp),
        "status": end.map(|end| Status::of(end).name()),
        "status_code": end.map(|end| end.status_code),
        "duration": end.and_then(|end| end.inference_ms).map(|ms| ms as f64 / 1000.0),
        "billable_units": units,
        "flagged_images": end.and_then(|end| end.flagged),
        "unit_price": price,
        "cost": units.zip(price).map(|(units, price)| units * price),
        "attempts": request.attempts,
    })
}

//! The log of requests for pictures: `requests`, one of them, and forgetting what it made.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use zoetrope_api::Micros;
use zoetrope_api::images::{Code, Problem};
use zoetrope_files::Name;
use zoetrope_jobs::{LogPage, LogPlace, ModelCall, ModelRequest, ModelStatus};

use crate::extract;
use crate::openai::account::whose;
use crate::openai::answer::rendered;
use crate::openai::caller::{asks, failed, problem};
use crate::openai::window::{moment, short, time};
use crate::state::App;

#[derive(Deserialize, Default)]
struct Asked {
    limit: Option<String>,
    starting_after: Option<String>,
    ending_before: Option<String>,
    created_after: Option<String>,
    created_before: Option<String>,
    key_id: Option<String>,
    status: Option<String>,
}

pub(super) async fn requests(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    rendered(requests_of(&app, &headers, &uri).await)
}

async fn requests_of(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<Value, Problem> {
    let caller = asks(app, headers).await?;
    let asked: Asked = extract::query(uri).map_err(problem)?;
    let limit = match asked.limit.as_deref().filter(|text| !text.is_empty()) {
        None => 20,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=100).contains(limit)).ok_or_else(|| {
                let text = format!("`limit` is `{}`; write a number from 1 to 100", short(text));
                Problem::invalid("limit", text)
            })?
        }
    };
    let status = match asked.status.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(name) => Some(ModelStatus::named(name).ok_or_else(|| {
            let names = ModelStatus::ALL.map(ModelStatus::name).join(", ");
            let text = format!("`status` is `{}`; write one of {names}", short(name));
            Problem::invalid("status", text)
        })?),
    };
    let some = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    let place = match (some(&asked.starting_after), some(&asked.ending_before)) {
        (Some(_), Some(_)) => {
            let text = "`starting_after` and `ending_before` exclude each other.";
            return Err(Problem::invalid("ending_before", text));
        }
        (Some(id), None) => LogPlace::Before(id),
        (None, Some(id)) => LogPlace::After(id),
        (None, None) => LogPlace::Newest,
    };
    let page = LogPage {
        owner: whose(&caller, &asked.key_id)?,
        status,
        from_ms: moment("created_after", &asked.created_after)?.unwrap_or(0),
        until_ms: moment("created_before", &asked.created_before)?.unwrap_or(i64::MAX),
        most: limit,
        place,
    };
    let found = app.settings.queue.model_requests(&page).await.map_err(failed)?;
    let full = found.len() as i64 == limit;
    let after = matches!(page.place, LogPlace::After(_));
    // Newest first: the next page is the older one.
    let next =
        found.last().filter(|_| full || after).map(|last| link(uri, "starting_after", &last.id));
    let first = found.first().filter(|_| page.place != LogPlace::Newest && (full || !after));
    let previous = first.map(|first| link(uri, "ending_before", &first.id));
    Ok(json!({
        "object": "list",
        "data": found.iter().map(shown).collect::<Vec<_>>(),
        "next_page_url": next,
        "previous_page_url": previous,
    }))
}

/// The same list from another place on.
fn link(uri: &Uri, name: &str, id: &str) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        !pair.is_empty()
            && !pair.starts_with("starting_after=")
            && !pair.starts_with("ending_before=")
    });
    let mut pairs: Vec<String> = kept.map(String::from).collect();
    pairs.push(format!("{name}={id}"));
    format!("/v1/requests?{}", pairs.join("&"))
}

pub(super) async fn request(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    rendered(request_of(&app, &headers, &id).await)
}

async fn request_of(app: &App, headers: &HeaderMap, id: &str) -> Result<Value, Problem> {
    Ok(shown(&own(app, headers, id).await?))
}

/// The request called `id`, if whoever asks may see it.
async fn own(app: &App, headers: &HeaderMap, id: &str) -> Result<ModelRequest, Problem> {
    let caller = asks(app, headers).await?;
    let found = app.settings.queue.model_request(id).await.map_err(failed)?;
    found.filter(|found| caller.sees(&found.owner)).ok_or_else(|| {
        let text = format!("There is no request '{}' that has ended.", short(id));
        Problem::new(Code::NotFound, text)
    })
}

pub(super) async fn purge(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    rendered(purged(&app, &headers, &id).await)
}

/// Deletes the pictures that a request made and the answer that is kept of it; what the log says of it stays. A second time
/// finds nothing left to do.
async fn purged(app: &App, headers: &HeaderMap, id: &str) -> Result<Value, Problem> {
    let request = own(app, headers, id).await?;
    let settings = &app.settings;
    let mut deleted = 0;
    for name in &request.files {
        let Some(parsed) = Name::parse(name) else { continue };
        if settings.queue.file(name).await.map_err(failed)?.is_none() {
            continue; // its time was over
        }
        settings.store.delete(&parsed).await.map_err(|error| {
            tracing::error!(%error, "a picture could not be deleted");
            Problem::new(Code::InternalError, "A picture could not be deleted; try again.")
        })?;
        settings.queue.forget_file(name).await.map_err(failed)?;
        deleted += 1;
    }
    settings.queue.purge_model_request(&request).await.map_err(failed)?;
    Ok(json!({
        "id": request.id,
        "object": "request.payloads",
        "purged": true,
        "already_purged": request.purged_ms.is_some(),
        "media_deleted": deleted,
    }))
}

fn shown(request: &ModelRequest) -> Value {
    let executed = request.provider.as_ref().zip(request.upstream.as_ref());
    json!({
        "id": request.id,
        "object": "request",
        "created_at": time(request.created_ms),
        "model": request.model,
        "modality": "image",
        "endpoint": request.mode,
        "status": request.status.name(),
        "provider": request.provider,
        "executed_model": executed.map(|(provider, upstream)| format!("{provider}/{upstream}")),
        "images": request.pictures,
        "cost": Micros(request.cost_micros).dollars(),
        "currency": "usd",
        "duration_ms": request.duration_us / 1000,
        "upstream_ms": request.upstream_us / 1000,
        "key_id": request.owner,
        "error_code": request.error_code,
        "error_message": request.error,
        "trace_id": request.trace.as_deref().and_then(|trace| trace.split('-').nth(1)),
        "user": request.user,
        "purged_at": request.purged_ms.map(time),
        "attempts": request.calls.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn attempt(call: &ModelCall) -> Value {
    let completed = call.outcome == "completed";
    json!({
        "provider": call.provider,
        "executed_model": format!("{}/{}", call.provider, call.upstream),
        "status": if completed { "completed" } else { "failed" },
        "error_code": (!completed).then_some(&call.outcome),
        "duration_ms": call.duration_us / 1000,
        "time_to_first_byte_ms": call.first_byte_us.map(|us| us / 1000),
        "cost": Micros(call.cost_micros).dollars(),
    })
}

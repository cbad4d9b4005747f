//! What a key has left, what was asked by it, and what came of it: `balance`, `usage`, `requests`, and how providers do.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zoetrope_api::Micros;
use zoetrope_api::images::{Code, Problem};
use zoetrope_jobs::{
    Balance, Calls, Histogram, LogPage, LogPlace, ModelCall, ModelRequest, ModelStatus, Scope,
    Whose,
};

use crate::answer::json_answer;
use crate::auth::{self, Caller, Purpose};
use crate::extract;
use crate::openai::answer::refusal;
use crate::openai::caller::problem;
use crate::state::App;

/// What a window is where nobody says.
const WINDOW_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

pub(super) async fn balance(State(app): State<App>, headers: HeaderMap) -> Response {
    rendered(balance_of(&app, &headers).await)
}

async fn balance_of(app: &App, headers: &HeaderMap) -> Result<Value, Problem> {
    let caller = asks(app, headers).await?;
    let balance = app.settings.queue.balance(&caller.owner).await.map_err(failed)?;
    let Balance { budget, spent, held } = balance;
    let dollars = |micros: i64| Micros(micros).dollars();
    Ok(json!({
        "object": "balance",
        "billing_type": if budget.is_some() { "prepaid" } else { "postpaid" },
        "available": {"amount": balance.available().map(dollars), "currency": "usd"},
        "budget": budget.map(dollars),
        "spent": dollars(spent),
        "held": dollars(held),
    }))
}

#[derive(Deserialize, Default)]
struct Window {
    /// As `30d` or `12h`.
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    key_id: Option<String>,
}

impl Window {
    /// Milliseconds since 1970, from and until.
    fn span(&self, now_ms: i64) -> Result<(i64, i64), Problem> {
        let until = moment("end", &self.end)?.unwrap_or(now_ms + 1);
        let from = match (moment("start", &self.start)?, self.window.as_deref()) {
            (Some(from), _) => from,
            (None, None | Some("")) => until - WINDOW_DAYS * DAY_MS,
            (None, Some(text)) => until - duration(text)?,
        };
        Ok((from, until))
    }

    fn admits(&self, calls: &Calls) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == found)
        };
        is(&self.model, &calls.model) && is(&self.provider, &calls.provider)
    }
}

/// Milliseconds of `30d` or `12h`.
fn duration(text: &str) -> Result<i64, Problem> {
    let read = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let number: i64 = number.parse().ok().filter(|number| (1..=10_000).contains(number))?;
        match unit {
            "d" => Some(number * DAY_MS),
            "h" => Some(number * HOUR_MS),
            _ => None,
        }
    });
    read.ok_or_else(|| {
        Problem::invalid(
            "window",
            format!("`window` is `{}`; write days or hours, as 30d or 12h", short(text)),
        )
    })
}

fn moment(name: &str, value: &Option<String>) -> Result<Option<i64>, Problem> {
    let Some(text) = value.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.replace(' ', "+"), // a plus sign that was not encoded
    };
    match OffsetDateTime::parse(&whole, &Rfc3339) {
        Ok(time) => Ok(Some((time.unix_timestamp_nanos() / 1_000_000) as i64)),
        Err(_) => {
            let text = format!(
                "`{name}` is `{}`; write a time, as 2026-01-31T12:00:00Z or 2026-01-31",
                short(text)
            );
            Err(Problem::invalid(name, text))
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

pub(super) async fn performance(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    rendered(performance_of(&app, &headers, &uri).await)
}

async fn performance_of(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<Value, Problem> {
    asks(app, headers).await?;
    let window: Window = extract::query(uri).map_err(problem)?;
    let (from, until) = window.span(app.now_ms())?;
    let calls = app.settings.queue.calls(from, until, Whose::All).await.map_err(failed)?;
    let catalogue = app.settings.gateway.catalogue();
    let title = |name: &str| {
        catalogue.providers.get(name).map_or(name.to_string(), |entry| entry.title.clone())
    };
    // A provider may serve one model under several ids.
    let mut sums: Vec<Calls> = Vec::new();
    for calls in calls.into_iter().filter(|calls| window.admits(calls)) {
        let same = |sum: &&mut Calls| sum.provider == calls.provider && sum.model == calls.model;
        match sums.iter_mut().find(same) {
            Some(sum) => add(sum, &calls),
            None => sums.push(calls),
        }
    }
    let median = |sum: &Calls| sum.total.quantile_us(0.5).unwrap_or(f64::INFINITY);
    sums.sort_by(|one, other| {
        one.model.cmp(&other.model).then(median(one).total_cmp(&median(other)))
    });
    let data: Vec<Value> = sums.iter().map(|sum| performed(sum, &title(&sum.provider))).collect();
    Ok(json!({
        "object": "list",
        "window": {"start": time(from), "end": time(until)},
        "data": data,
    }))
}

fn add(sum: &mut Calls, other: &Calls) {
    sum.calls += other.calls;
    sum.completed += other.completed;
    sum.faults += other.faults;
    sum.pictures += other.pictures;
    sum.cost_micros += other.cost_micros;
    sum.completed_us += other.completed_us;
    sum.total.merge(&other.total);
    sum.first_byte.merge(&other.first_byte);
}

fn performed(sum: &Calls, title: &str) -> Value {
    let average = (sum.completed > 0).then(|| sum.completed_us as f64 / sum.completed as f64);
    json!({
        "object": "provider_performance",
        "provider": sum.provider,
        "provider_name": title,
        "model": sum.model,
        "total_requests": sum.calls,
        "completed_requests": sum.completed,
        // What callers did wrong, and load, are no failures of the provider.
        "success_rate": percent(sum.completed, sum.completed + sum.faults),
        "raw_success_rate": percent(sum.completed, sum.calls),
        "generation_time_ms": {
            "p50": ms(sum.total.quantile_us(0.5)),
            "p95": ms(sum.total.quantile_us(0.95)),
            "average": ms(average),
        },
        "time_to_first_byte_ms": {
            "p50": quantile(&sum.first_byte, 0.5),
            "p95": quantile(&sum.first_byte, 0.95),
        },
        "images": sum.pictures,
        "cost": Micros(sum.cost_micros).dollars(),
        "total_cost_micros": sum.cost_micros,
    })
}

fn quantile(histogram: &Histogram, quantile: f64) -> Value {
    ms(histogram.quantile_us(quantile))
}

/// Milliseconds with one decimal.
fn ms(us: Option<f64>) -> Value {
    us.map_or(Value::Null, |us| json!((us / 100.0).round() / 10.0))
}

/// With one decimal; null of nothing.
fn percent(part: i64, whole: i64) -> Value {
    match whole {
        0 => Value::Null,
        whole => json!((1000.0 * part as f64 / whole as f64).round() / 10.0),
    }
}

pub(super) async fn usage(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    rendered(usage_of(&app, &headers, &uri).await)
}

async fn usage_of(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<Value, Problem> {
    let caller = asks(app, headers).await?;
    let window: Window = extract::query(uri).map_err(problem)?;
    let (from, until) = window.span(app.now_ms())?;
    let only = whose(&caller, &window.key_id)?;
    let whose = if only.is_empty() { Whose::Each } else { Whose::Only(&only) };
    let calls = app.settings.queue.calls(from, until, whose).await.map_err(failed)?;
    let keys = app.settings.queue.keys().await.map_err(failed)?;
    let mut data: Vec<Value> = Vec::new();
    let mut calls: Vec<Calls> = calls.into_iter().filter(|one| window.admits(one)).collect();
    calls.sort_by(|one, other| one.owner.cmp(&other.owner));
    for of_key in calls.chunk_by(|one, other| one.owner == other.owner) {
        let owner = &of_key[0].owner;
        let key = keys.iter().find(|key| key.id == *owner);
        let sum = |read: fn(&Calls) -> i64| of_key.iter().map(read).sum::<i64>();
        let each = of_key.iter().map(|one| {
            json!({
                "model": one.model,
                "provider": one.provider,
                "deployment": one.deployment,
                "calls": one.calls,
                "completed": one.completed,
                "images": one.pictures,
                "cost": Micros(one.cost_micros).dollars(),
            })
        });
        data.push(json!({
            "object": "usage",
            "key_id": owner,
            "alias": key.map(|key| key.alias.as_str()),
            "calls": sum(|one| one.calls),
            "completed": sum(|one| one.completed),
            "images": sum(|one| one.pictures),
            "cost": Micros(sum(|one| one.cost_micros)).dollars(),
            "total_cost_micros": sum(|one| one.cost_micros),
            "deployments": each.collect::<Vec<_>>(),
        }));
    }
    Ok(json!({
        "object": "list",
        "window": {"start": time(from), "end": time(until)},
        "data": data,
    }))
}

/// Whose things are shown: those of the key `wanted`, all of them to an admin, and their own to everybody else.
fn whose(caller: &Caller, wanted: &Option<String>) -> Result<String, Problem> {
    let wanted = wanted.as_deref().filter(|wanted| !wanted.is_empty());
    match (wanted, caller.scope) {
        (None, Scope::Admin) => Ok(String::new()),
        (None, Scope::Api) => Ok(caller.owner.clone()),
        (Some(key), _) if caller.sees(key) => Ok(key.into()),
        (Some(_), _) => {
            let text = "This key sees its own requests only; leave `key_id` out.";
            Err(Problem::new(Code::PermissionDenied, text))
        }
    }
}

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
    let caller = asks(app, headers).await?;
    let found = app.settings.queue.model_request(id).await.map_err(failed)?;
    match found.filter(|found| caller.sees(&found.owner)) {
        Some(found) => Ok(shown(&found)),
        None => {
            let text = format!("There is no request '{}' that has ended.", short(id));
            Err(Problem::new(Code::NotFound, text))
        }
    }
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

async fn asks(app: &App, headers: &HeaderMap) -> Result<Caller, Problem> {
    auth::caller(app, headers, None, Purpose::Account).await.map_err(problem)
}

fn failed(error: zoetrope_jobs::Error) -> Problem {
    problem(error.into())
}

fn rendered(result: Result<Value, Problem>) -> Response {
    match result {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(problem) => refusal(&problem),
    }
}

fn time(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

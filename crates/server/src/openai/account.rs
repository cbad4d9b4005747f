//! What a key is, has left, and has used: `keys`, `balance`, `usage`.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use zoetrope_api::Micros;
use zoetrope_api::images::{Code, Problem};
use zoetrope_jobs::{Balance, Calls, Scope, Whose};

use crate::auth::Caller;
use crate::extract;
use crate::openai::answer::rendered;
use crate::openai::caller::{asks, failed, problem};
use crate::openai::window::{Window, time};
use crate::state::App;

pub(super) async fn balance(State(app): State<App>, headers: HeaderMap) -> Response {
    rendered(balance_of(&app, &headers).await)
}

async fn balance_of(app: &App, headers: &HeaderMap) -> Result<Value, Problem> {
    let caller = asks(app, headers).await?;
    let balance = app.settings.queue.balance(&caller.owner).await.map_err(failed)?;
    let Balance { budget, spent, held, renewed_ms } = balance;
    let dollars = |micros: i64| Micros(micros).dollars();
    Ok(json!({
        "object": "balance",
        "billing_type": if budget.is_some() { "prepaid" } else { "postpaid" },
        "available": {"amount": balance.available().map(dollars), "currency": "usd"},
        "budget": budget.map(dollars),
        "spent": dollars(spent),
        "held": dollars(held),
        "renewed_at": renewed_ms.map(time),
    }))
}

pub(super) async fn keys(State(app): State<App>, headers: HeaderMap) -> Response {
    rendered(keys_of(&app, &headers).await)
}

/// All of them to an administrator, and to everybody else their own.
async fn keys_of(app: &App, headers: &HeaderMap) -> Result<Value, Problem> {
    let caller = asks(app, headers).await?;
    let keys = app.settings.queue.keys().await.map_err(failed)?;
    let seen = keys.iter().filter(|key| caller.sees(&key.id));
    let data: Vec<Value> = seen.map(|key| crate::keys::shown(key, time)).collect();
    Ok(json!({"object": "list", "data": data}))
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
pub(super) fn whose(caller: &Caller, wanted: &Option<String>) -> Result<String, Problem> {
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

//! What each key has used.

use std::collections::BTreeMap;

use maud::{Markup, html};
use zoetrope_jobs::{Key, Scope, Status, Whose};
use zoetrope_server::App;

use super::share;
use super::window::Window;
use crate::fault::Fault;
use crate::plot::scrolled;
use crate::show::dollars;
use crate::text::performance::Performance;
use crate::visitor::Visitor;

/// What one owner did in the window.
#[derive(Default)]
struct Used {
    calls: i64,
    pictures: i64,
    requests: i64,
    completed: i64,
    faults: i64,
    cost_micros: i64,
}

pub(super) async fn section(
    visitor: &Visitor,
    app: &App,
    words: &Performance,
    window: &Window,
) -> Result<Markup, Fault> {
    let owner = visitor.owner();
    let whose = if owner.is_empty() { Whose::Each } else { Whose::Only(owner) };
    let mut used = BTreeMap::<String, Used>::new();
    for calls in app.queue().calls(window.from_ms, window.until_ms, whose).await? {
        let sum = used.entry(calls.owner).or_default();
        sum.calls += calls.calls;
        sum.pictures += calls.pictures;
        sum.cost_micros += calls.cost_micros;
    }
    for request in app.queue().finished(window.from_ms, window.until_ms).await? {
        if !owner.is_empty() && request.owner != owner {
            continue;
        }
        let sum = used.entry(request.owner).or_default();
        sum.requests += 1;
        sum.completed += i64::from(request.status == Status::Success);
        sum.faults += i64::from(request.status == Status::Error);
        sum.cost_micros += request.cost_micros;
    }
    let keys: Vec<Key> = match visitor.caller.scope {
        Scope::Admin => app.queue().keys().await?,
        Scope::Api => app.queue().key(owner).await?.into_iter().collect(),
    };
    for key in keys.iter().filter(|key| key.revoked_ms.is_none()) {
        used.entry(key.id.clone()).or_default();
    }
    let find = |id: &str| keys.iter().find(|key| key.id == id);
    Ok(html! {
        section aria-labelledby="usage" {
            h2 #usage { (words.usage) }
            p.soft.small { (words.usage_why) }
            @if used.is_empty() { p.empty { (words.nothing) } } @else {
                (scrolled(&format!("{}: {}", words.usage, words.numbers), html! {
                    table {
                        thead {
                            tr {
                                th scope="col" { (words.key) }
                                @for head in [words.requests, words.success, words.calls, words.pictures, words.cost, words.budget] {
                                    th.number scope="col" { (head) }
                                }
                            }
                        }
                        tbody { @for (id, used) in &used { (row(words, (id, find(id)), used)) } }
                    }
                }))
            }
        }
    })
}

fn row(words: &Performance, (id, key): (&str, Option<&Key>), used: &Used) -> Markup {
    let micros = |micros: i64| dollars(micros as f64 / 1e6);
    html! {
        tr {
            th scope="row" {
                @match key {
                    Some(key) => {
                        (key.alias) " " code.soft { (key.id) }
                        @if key.revoked_ms.is_some() { " " span.tag { (words.revoked) } }
                    },
                    None if id == "local" => (words.nobody),
                    None => code { (id) },
                }
            }
            td.number { (used.requests) }
            td.number { (share(used.completed, used.completed + used.faults)) }
            td.number { (used.calls) }
            td.number { (used.pictures) }
            td.number { (micros(used.cost_micros)) }
            td.number {
                @match key.and_then(|key| key.limits.budget_micros.map(|budget| (key.spent_micros, budget))) {
                    Some((spent, budget)) => (format!("{} / {}", micros(spent), micros(budget))),
                    None => span.soft { (words.no_budget) },
                }
            }
        }
    }
}

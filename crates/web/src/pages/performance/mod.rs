//! `/performance`: how quick providers and the engine are, how busy everything is, and what keys have used.

mod engine;
mod providers;
mod usage;
mod window;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use zoetrope_jobs::{Load, Scope, WorkerRow};
use zoetrope_server::App;

use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::plot::{Kind, Plot, Series, scrolled};
use crate::show::{ago, link};
use crate::text::common::Common;
use crate::text::filled;
use crate::text::performance::Performance;
use crate::visitor::Visitor;
use window::Window;

pub(super) fn router() -> Router<App> {
    Router::new().route("/performance", get(show))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    window: String,
    #[serde(default)]
    by: String,
}

/// By what calls are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Provider,
    Model,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }
}

async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    let words = Performance::of(visitor.look.language);
    let window = Window::named(&asked.window, app.now_ms());
    let by = if asked.by == By::Model.name() { By::Model } else { By::Provider };
    // How busy everything is, and what others ask for, is for who runs the server, as the metrics are.
    let all = visitor.caller.scope == Scope::Admin;
    let body = html! {
        div.head {
            h1 { (Common::of(visitor.look.language).performance) }
            (switches(words, &window, by))
        }
        @if all { (load(&visitor, &app, words, &window).await?) }
        (providers::section(&app, words, (&window, by), all).await?)
        @if all { (engine::section(&app, words, &window).await?) }
        (usage::section(&visitor, &app, words, &window).await?)
    };
    let title = Common::of(visitor.look.language).performance;
    Ok(page(&visitor.look, Page { title, tab: Some(Tab::Performance), scripts: &[], body }))
}

/// Links, so that they work without scripts and can be kept.
fn switches(words: &Performance, window: &Window, by: By) -> Markup {
    let to = |name: &str, by: By| link("/performance", &[("window", name), ("by", by.name())]);
    html! {
        nav.row.push aria-label=(words.window) {
            @for (name, title) in [("day", words.day), ("week", words.week), ("month", words.month)] {
                a.button.small href=(to(name, by)) aria-current=[(window.name == name).then_some("true")] { (title) }
            }
        }
        nav.row aria-label=(words.by) {
            @for (each, title) in [(By::Provider, words.by_provider), (By::Model, words.by_model)] {
                a.button.small href=(to(window.name, each)) aria-current=[(by == each).then_some("true")] { (title) }
            }
        }
    }
}

/// What waits and runs, who works, and how that was.
async fn load(
    visitor: &Visitor,
    app: &App,
    words: &Performance,
    window: &Window,
) -> Result<Markup, Fault> {
    let queue = app.queue();
    let (queued, running) = (queue.queued().await?, queue.running("").await?);
    let workers = queue.workers().await?;
    let loads = queue.loads(window.from_ms, window.until_ms, window.load_step_ms).await?;
    let memory: i64 = workers.iter().map(|worker| worker.memory_bytes).sum();
    let installed: i64 = hosts(&workers).map(|worker| worker.memory_bytes_all).sum();
    let line = |name: &str, of: fn(&Load) -> f64| Series {
        name: name.into(),
        values: window
            .load_ticks()
            .map(|at| loads.iter().find(|load| load.at_ms == at).map(of))
            .collect(),
    };
    let plot = |title, series, write: fn(f64) -> String| Plot {
        title,
        ticks: window.load_ticks().map(|at| window.tick(at)).collect(),
        tick: words.time,
        series,
        write,
        kind: Kind::Lines,
        numbers: words.numbers,
        nothing: words.nothing,
    };
    Ok(html! {
        section aria-labelledby="now" {
            h2 #now { (words.now) }
            dl.figures {
                div { dt { (words.waiting) } dd { (queued) } }
                div { dt { (words.running) } dd { (running) } }
                div { dt { (words.workers) } dd { (workers.len()) } }
                div {
                    dt { (words.memory) }
                    dd {
                        (bytes(memory)) " "
                        @if installed > 0 { small { (filled(words.memory_of, &[&bytes(installed)])) } }
                    }
                }
            }
            @if workers.is_empty() { p.fault { (words.no_workers) } } @else { (table_of(visitor, app, words, &workers)) }
            h2 { (words.load) }
            div.plots {
                (plot(words.queue_plot, vec![line(words.waiting, |l| l.queued as f64), line(words.running, |l| l.running as f64)], whole).render())
                (plot(words.memory_plot, vec![line(words.memory, |l| l.memory_bytes as f64 / 1e9)], short).render())
                (plot(words.workers_plot, vec![line(words.workers, |l| l.workers as f64)], whole).render())
            }
        }
    })
}

/// One worker of each machine: several share its memory.
fn hosts(workers: &[WorkerRow]) -> impl Iterator<Item = &WorkerRow> {
    let first = |at: &usize| !workers[..*at].iter().any(|before| before.host == workers[*at].host);
    (0..workers.len()).filter(first).map(|at| &workers[at])
}

fn table_of(visitor: &Visitor, app: &App, words: &Performance, workers: &[WorkerRow]) -> Markup {
    html! {
        (scrolled(words.works_on, html! {
            table {
                thead { tr { th scope="col" { (words.worker) } th scope="col" { (words.since) } th scope="col" { (words.works_on) } th.number scope="col" { (words.memory) } } }
                tbody {
                    @for worker in workers {
                        tr {
                            th scope="row" { (worker.host) }
                            td { (ago(visitor.look.language, worker.since_ms, app.now_ms())) }
                            td { @match &worker.request { Some(id) => code { (id) }, None => span.soft { (words.idle) } } }
                            td.number { (bytes(worker.memory_bytes)) }
                        }
                    }
                }
            }
        }))
    }
}

fn bytes(count: i64) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{:.1} GB", count / 1e9),
        count => format!("{:.0} MB", count / 1e6),
    }
}

/// Numbers of things.
fn whole(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Three digits that tell something.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

/// Microseconds as seconds, for tables.
fn seconds_of(us: Option<f64>) -> String {
    us.map_or("–".into(), |us| format!("{} s", short(us / 1e6)))
}

/// A share as per cent; nothing of nothing is none.
fn share(part: i64, of: i64) -> String {
    if of == 0 { "–".into() } else { format!("{:.1} %", 100.0 * part as f64 / of as f64) }
}

//! A training while it runs and afterwards: its loss, its samples, its log, and the adapter.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde_json::Value;
use zoetrope_jobs::{LogLine, Outcome, Request, Standing, State as Stand, TrainingRun};
use zoetrope_server::App;

use super::log::Told;
use super::status;
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::plot::{Kind, Plot, Series};
use crate::show::{ago, link, own_path, seconds};
use crate::text::common::Common;
use crate::text::filled;
use crate::text::training::Training as Words;
use crate::visitor::Visitor;

/// Lines that are read: a training of ten thousand steps has some six hundred.
const LINES_MAX: i64 = 2000;
/// Lines that are shown.
const SHOWN: usize = 200;
/// Points of the plot.
const POINTS: usize = 100;

async fn mine(visitor: &Visitor, app: &App, id: &str) -> Result<(TrainingRun, Request), Fault> {
    let missing = || Fault::not_found("There is no such training; it may have been forgotten.");
    let run = app.queue().training_run(id).await?.filter(|run| visitor.caller.sees(&run.owner));
    let run = run.ok_or_else(missing)?;
    let request = app.queue().request(&run.request).await?.ok_or_else(missing)?;
    Ok((run, request))
}

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Markup, Fault> {
    let words = Words::of(visitor.look.language);
    let (run, request) = mine(&visitor, &app, &id).await?;
    let shown = live_of(&visitor, &app, &run, &request).await?;
    let lines = app.queue().logs(&request.id, 0, LINES_MAX).await?;
    let over = request.state == Stand::Done;
    let body = html! {
        div.head {
            h1 { (run.name) }
            span.soft.small { (filled(words.begun, &[&ago(visitor.look.language, run.created_ms, app.now_ms())])) }
            a.button.push href=(format!("/training/sets/{}", run.set)) { (words.sets) }
        }
        (shown)
        @if over { (log(words, &lines)) }
    };
    let scripts = &["training.js"];
    Ok(page(&visitor.look, Page { title: &run.name, tab: Some(Tab::Training), scripts, body }))
}

/// The part that changes while it runs, for the script.
pub(super) async fn live(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Markup, Fault> {
    let (run, request) = mine(&visitor, &app, &id).await?;
    live_of(&visitor, &app, &run, &request).await
}

async fn live_of(
    visitor: &Visitor,
    app: &App,
    run: &TrainingRun,
    request: &Request,
) -> Result<Markup, Fault> {
    let words = Words::of(visitor.look.language);
    let lines = app.queue().logs(&request.id, 0, LINES_MAX).await?;
    let told = Told::of(&lines);
    let over = request.state == Stand::Done;
    let path = format!("/training/runs/{}/live", run.request);
    let before = match request.state {
        Stand::Queued => Some(app.queue().position(request).await?),
        Stand::Running | Stand::Done => None,
    };
    Ok(html! {
        div #live data-path=[(!over).then_some(path)] {
            div.row {
                span.tag { (status(words, request)) }
                @if let Some(before) = before { span.soft { (filled(words.position, &[&before])) } }
                @if told.of > 0 { span.numbers { (filled(words.progress, &[&told.step(), &told.of])) } }
                @if !over && !told.left.is_empty() { span.soft.numbers { (filled(words.left, &[&told.left])) } }
                (timing(words, request))
            }
            @if told.of > 0 && !over { progress.wide value=(told.step()) max=(told.of) aria-label=(words.steps) {} }
            (end(words, request))
            (loss(words, &told))
            (samples(words, &told))
            @if !over {
                @if let Some(last) = lines.last() { p.soft.small.mono { (last.message) } }
                form method="post" action=(format!("/training/runs/{}/cancel", run.request)) data-confirm=(words.cancel_sure) {
                    button.danger { (Common::of(visitor.look.language).cancel) }
                }
                noscript { a.button href=(format!("/training/runs/{}", run.request)) { (words.refresh) } }
            }
        }
    })
}

fn timing(words: &Words, standing: &Standing) -> Markup {
    let took = standing.ended.as_ref().and_then(|end| end.inference_ms);
    html! { @if let Some(ms) = took { span.soft.numbers { (filled(words.took, &[&seconds(ms)])) } } }
}

/// What came of it.
fn end(words: &Words, request: &Request) -> Markup {
    let Some(end) = &request.end else { return html! {} };
    if end.outcome != Outcome::Completed {
        let body: Value = serde_json::from_str(&end.response).unwrap_or_default();
        let problem = body["detail"].get(0).unwrap_or(&body["detail"]);
        let text = problem["msg"].as_str().or(problem.as_str()).or(end.error.as_deref());
        return html! { p.card.fault role="alert" { (text.unwrap_or(words.status_failed)) } };
    }
    let response: Value = serde_json::from_str(&end.response).unwrap_or_default();
    let file = |name: &str| response[name]["url"].as_str().map(String::from);
    let Some(lora) = file("diffusers_lora_file") else { return html! {} };
    let Some(path) = own_path(&lora) else { return html! {} };
    let endpoint = match request.endpoint.contains("base") {
        true => "fal-ai/z-image/base/lora",
        false => "fal-ai/z-image/turbo/lora",
    };
    let playground = link(&format!("/playground/{endpoint}"), &[("loras.0.path", &path)]);
    html! {
        div.card.ready {
            p { strong { (words.ready) } }
            div.row {
                a.button.primary href=(playground) { (words.use_it) }
                a.button href=(format!("{path}?download=1")) download { (words.get_it) }
                @if let Some(config) = file("config_file").and_then(|url| own_path(&url)) {
                    a.button.quiet href=(format!("{config}?download=1")) download { (words.get_config) }
                }
            }
            p.help { (words.kept) }
        }
    }
}

fn loss(words: &Words, told: &Told) -> Markup {
    let means = told.means(POINTS);
    let finite = |value: f64| value.is_finite().then_some(value);
    let plot = Plot {
        title: words.loss_plot,
        ticks: means.iter().map(|(step, ..)| step.to_string()).collect(),
        tick: words.step,
        series: vec![
            Series {
                name: words.loss.into(),
                values: means.iter().map(|(_, loss, _)| finite(*loss)).collect(),
            },
            Series {
                name: words.loss_mean.into(),
                values: means.iter().map(|(.., mean)| finite(*mean)).collect(),
            },
        ],
        write: |value| format!("{value:.3}"),
        kind: Kind::Lines,
        numbers: words.numbers,
        nothing: words.loss_nothing,
    };
    html! { div.plots { (plot.render()) } }
}

fn samples(words: &Words, told: &Told) -> Markup {
    let own = |url: &String| own_path(url);
    html! {
        @if !told.samples.is_empty() {
            section aria-labelledby="samples" {
                h2 #samples { (words.samples) }
                p.help { (words.samples_help) }
                ul.samples {
                    @for (step, url) in &told.samples {
                        @if let Some(path) = own(url) {
                            li {
                                figure {
                                    img src=(path) alt=(filled(words.sample_alt, &[step])) loading="lazy";
                                    figcaption.small.soft.numbers { (words.step) " " (step) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn log(words: &Words, lines: &[LogLine]) -> Markup {
    let shown = &lines[lines.len().saturating_sub(SHOWN)..];
    html! {
        @if !lines.is_empty() {
            details.more {
                summary { (words.log) }
                pre tabindex="0" { @for line in shown { (line.message) "\n" } }
            }
        }
    }
}

pub(super) async fn cancel(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let (run, _) = mine(&visitor, &app, &id).await?;
    app.queue().cancel(&run.request).await?;
    let to = format!("/training/runs/{}", run.request);
    match visitor.look.partial {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Ok(Redirect::to(&to).into_response()),
    }
}

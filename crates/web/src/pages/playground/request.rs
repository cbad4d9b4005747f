//! `/requests/{id}`: a request on its way, and what became of it; a page of its own, or a part of the playground.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use zoetrope_api::task::{Size, Task};
use zoetrope_jobs::{LogLine, Request, Standing, State as Stand};
use zoetrope_server::App;

use super::form::to;
use super::result;
use crate::fault::Fault;
use crate::icons::{self, icon};
use crate::layout::{Page, Tab, page};
use crate::text::playground::Run;
use crate::text::{Language, filled};
use crate::visitor::Visitor;

/// Lines of a log that are shown.
pub(super) const LOGS_MAX: i64 = 1000;

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Markup, Fault> {
    let shown = part(&app, &visitor, &id).await?;
    if visitor.look.partial {
        return Ok(shown);
    }
    let words = Run::of(visitor.look.language);
    let body = html! {
        section.alone {
            h1 { (words.title) " " code.soft { (id.get(..8).unwrap_or(&id)) } }
            (shown)
        }
    };
    let scripts = &["playground.js"];
    Ok(page(&visitor.look, Page { title: words.title, tab: Some(Tab::Playground), scripts, body }))
}

/// The request `id`, if it is the visitor's; others' look like none.
pub(super) async fn standing(app: &App, visitor: &Visitor, id: &str) -> Result<Standing, Fault> {
    let found = app.queue().standing(id).await?;
    let found = found.filter(|request| visitor.caller.sees(&request.owner));
    found.ok_or_else(|| Fault::not_found(format!("There is no request {id} (any more).")))
}

/// What is shown of the request `id` now.
pub(super) async fn part(app: &App, visitor: &Visitor, id: &str) -> Result<Markup, Fault> {
    if id.starts_with("req_") {
        return by_name(app, visitor, id).await;
    }
    let standing = standing(app, visitor, id).await?;
    let request = app.queue().request(&standing.id).await?;
    let request = request.ok_or_else(|| Fault::not_found("The request was deleted."))?;
    let logs = app.queue().logs(&request.id, 0, LOGS_MAX).await?;
    if request.state == Stand::Done {
        let pictures = app.queue().pictures_of(&request.id).await?;
        return Ok(result::show(visitor, &request, &logs, &pictures, app.now_ms()));
    }
    Ok(under_way(app, visitor, &request, &logs).await)
}

/// What was made by a model's name: its pictures are all that is kept of it.
async fn by_name(app: &App, visitor: &Visitor, id: &str) -> Result<Markup, Fault> {
    let mut pictures = app.queue().pictures_of(id).await?;
    pictures.retain(|picture| visitor.caller.sees(&picture.owner));
    if pictures.is_empty() {
        return Err(Fault::not_found(format!("There is no request {id} (any more).")));
    }
    Ok(result::by_name(visitor.look.language, &pictures))
}

/// A request that waits or runs: `playground.js` keeps it up to date, and without scripts the page comes again.
async fn under_way(app: &App, visitor: &Visitor, request: &Request, logs: &[LogLine]) -> Markup {
    let language = visitor.look.language;
    let words = Run::of(language);
    let said = said(app, language, &request.standing, None).await;
    let here = format!("/requests/{}", request.id);
    html! {
        live-run data-events={ (here) "/events" } data-page=(here) {
            div.run-head {
                p role="status" data-status { (said) }
                form method="post" action={ (here) "/cancel" } hx-post={ (here) "/cancel" } hx-swap="none" {
                    button.small data-cancel { (icon(icons::CROSS)) (words.cancel) }
                }
            }
            progress data-progress aria-label=(words.running) {}
            div.frame {
                (room_for(request))
                img data-preview hidden alt=(words.preview);
            }
            (log(words, logs))
            // Scripts that put parts into a page read what is in here as well, and the page would come again under their hands.
            @if !visitor.look.partial {
                noscript { meta http-equiv="refresh" content="2"; p.help { (words.refresh) } }
            }
        }
    }
}

/// What a request is doing, in a few words; `step` is the last step taken, and of how many.
pub(super) async fn said(
    app: &App,
    language: Language,
    standing: &Standing,
    step: Option<(i64, i64)>,
) -> String {
    let words = Run::of(language);
    match (standing.state, step) {
        _ if standing.cancel => words.cancelling.into(),
        (Stand::Queued, _) => match app.queue().position(standing).await {
            Ok(0) | Err(_) => words.starting.into(),
            Ok(before) => filled(words.waiting, &[&before]),
        },
        (_, Some((step, of))) => filled(words.step, &[&step, &of]),
        _ => words.running.into(),
    }
}

/// Where the picture will be: as large as it, so that nothing moves when it comes.
fn room_for(request: &Request) -> Markup {
    let (width, height) = match serde_json::from_str(&request.task) {
        Ok(Task::Generate(task)) => match task.size {
            Size::Pixels { width, height } => (width, height),
            Size::Auto => (1024, 1024),
        },
        _ => (1024, 512),
    };
    html! { svg.room viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) aria-hidden="true" {} }
}

/// The lines that a worker said.
pub(super) fn log(words: &Run, lines: &[LogLine]) -> Markup {
    html! {
        details.logs {
            summary { (words.logs) }
            ol data-logs { @for line in lines { li data-level=(line.level) { (line.message) } } }
        }
    }
}

/// Ends a request that waits, and asks the worker of one that runs.
pub(super) async fn cancel(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let standing = standing(&app, &visitor, &id).await?;
    app.queue().cancel(&standing.id).await?;
    match visitor.look.partial {
        true => Ok(axum::http::StatusCode::NO_CONTENT.into_response()),
        false => Ok(to(&format!("/requests/{}", standing.id), false)),
    }
}

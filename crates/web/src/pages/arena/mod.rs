//! `/arena`: challenges, voting, boards.

mod board;
mod challenge;
mod create;
mod enter;
mod vote;

use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Extension, Router};
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zoetrope_arena::{Arena, Error, Wrong};
use zoetrope_gateway::caller::Caller;
use zoetrope_jobs::{ArenaProgress, Challenge};
use zoetrope_server::App;

use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::text::arena::Arena as Words;
use crate::text::common::Common;
use crate::text::filled;
use crate::visitor::Visitor;

/// A form of two hundred long prompts.
const FORM_BYTES_MAX: usize = 2 << 20;
/// Challenges on the first page.
const LISTED: i64 = 200;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/arena", get(list))
        .route("/arena/new", get(create::form).post(create::made))
        .route("/arena/{id}", get(challenge::show))
        .route("/arena/{id}/progress", get(challenge::progress))
        .route("/arena/{id}/contenders", post(enter::entered))
        .route("/arena/{id}/again", post(challenge::again))
        .route("/arena/{id}/close", post(challenge::close))
        .route("/arena/{id}/delete", post(challenge::delete))
        .route("/arena/{id}/vote", get(vote::show).post(vote::cast))
        .route("/arena/{id}/pairs/{pair}", get(vote::revealed))
        .route("/arena/{id}/{file}", get(board::export))
        .route("/arena/use-cases/{name}", get(board::of_use_case))
        .route("/arena/use-cases/{name}/{file}", get(board::export_use_case))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(Extension(Hall::default()))
}

/// The arena of this process, made when somebody first comes: boards that were computed are kept in it.
#[derive(Clone, Default)]
struct Hall(std::sync::Arc<std::sync::OnceLock<Arena>>);

/// The arena, as handlers take it.
pub(super) struct In(pub(super) Arena);

impl FromRequestParts<App> for In {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        let hall = parts.extensions.get::<Hall>().cloned().unwrap_or_default();
        let arena = hall.0.get_or_init(|| {
            let clock = app.clone();
            let now_ms = std::sync::Arc::new(move || clock.now_ms());
            Arena::new(app.queue().clone(), app.store().clone(), app.gateway().clone(), now_ms)
        });
        Ok(Self(arena.clone()))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Rows(error) => error.into(),
            Error::Wrong(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            Error::NotFound(text) => Self::not_found(text),
            Error::Refused(text) => Self::new(StatusCode::CONFLICT, text),
        }
    }
}

/// For whom pictures are drawn.
fn caller_of(visitor: &Visitor) -> Caller {
    Caller {
        owner: visitor.caller.owner.clone(),
        concurrency_max: visitor.caller.concurrency_max,
        base: visitor.origin.files.clone(),
        trace: None,
        limits: visitor.caller.limits.clone(),
    }
}

/// What is wrong with `field`, under it.
fn fault_of(wrong: &[Wrong], field: &str) -> Markup {
    html! {
        @for each in wrong.iter().filter(|each| each.field == field) {
            p.fault id=(format!("{field}-wrong")) role="alert" { (each.message) }
        }
    }
}

/// For `aria-invalid`.
fn invalid(wrong: &[Wrong], field: &str) -> Option<&'static str> {
    wrong.iter().any(|each| each.field == field).then_some("true")
}

/// The path of a use case's board.
fn use_case_path(name: &str) -> String {
    const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    format!("/arena/use-cases/{}", utf8_percent_encode(name, PART))
}

async fn list(visitor: Visitor, State(app): State<App>) -> Result<Markup, Fault> {
    let words = Words::of(visitor.look.language);
    let challenges = app.queue().challenges("", "", LISTED).await?;
    let progress = app.queue().arena_progress().await?;
    let use_cases = app.queue().use_cases().await?;
    let title = Common::of(visitor.look.language).arena;
    let body = html! {
        div.head {
            h1 { (title) }
            a.button.primary.push href="/arena/new" { (words.new) }
        }
        p.soft { (words.about) }
        @if challenges.is_empty() { div.empty { p { (words.no_challenges) } } } @else {
            nav.row.cases aria-label=(words.use_cases) {
                span.label { (words.use_cases) }
                @for (name, count) in &use_cases { a.tag href=(use_case_path(name)) { (name) " · " (count) } }
            }
            h2.hidden { (words.challenges) }
            ul.challenges {
                @for challenge in &challenges {
                    (card(words, challenge, progress.get(&challenge.id).copied().unwrap_or_default()))
                }
            }
        }
    };
    Ok(page(&visitor.look, Page { title, tab: Some(Tab::Arena), scripts: &[], body }))
}

fn card(words: &Words, challenge: &Challenge, progress: ArenaProgress) -> Markup {
    let ArenaProgress { waiting, made, failed, votes } = progress;
    html! {
        li.card {
            h3 { a href=(format!("/arena/{}", challenge.id)) { (challenge.name) } }
            p.row.small {
                a.tag href=(use_case_path(&challenge.use_case)) { (challenge.use_case) }
                @if challenge.closed { span.tag { (words.closed) } }
            }
            p.soft.small.numbers {
                (filled(words.pictures, &[&made, &(waiting + made + failed)])) " · " (filled(words.votes, &[&votes]))
            }
            div.row {
                @if !challenge.closed && made > 1 { a.button.primary href=(format!("/arena/{}/vote", challenge.id)) { (words.vote) } }
                a.button href=(format!("/arena/{}", challenge.id)) { (words.board) }
            }
        }
    }
}

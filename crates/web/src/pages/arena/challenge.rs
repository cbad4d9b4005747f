//! One challenge: how far its pictures are, who takes part, and its board.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};
use zoetrope_arena::contender::described;
use zoetrope_arena::{Arena, Wrong};
use zoetrope_jobs::{ArenaEntry, ArenaPicture, ArenaState, Challenge, Of};
use zoetrope_server::App;

use super::enter::{self, Sent};
use super::{In, board, use_case_path};
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::plot::scrolled;
use crate::show::seconds;
use crate::text::arena::Arena as Words;
use crate::text::common::Common;
use crate::text::filled;
use crate::visitor::Visitor;

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(id): Path<String>,
) -> Result<Markup, Fault> {
    let challenge = arena.challenge(&id).await?;
    page_of(&visitor, &app, &arena, &challenge, (&Sent::default(), &[])).await
}

/// Whether `visitor` may change `challenge`.
pub(super) fn changeable(visitor: &Visitor, challenge: &Challenge) -> Result<(), Fault> {
    match visitor.caller.sees(&challenge.owner) {
        true => Ok(()),
        false => Err(Fault::new(StatusCode::FORBIDDEN, Words::of(visitor.look.language).not_yours)),
    }
}

pub(super) async fn page_of(
    visitor: &Visitor,
    app: &App,
    arena: &Arena,
    challenge: &Challenge,
    (sent, wrong): (&Sent, &[Wrong]),
) -> Result<Markup, Fault> {
    let (words, common) = (Words::of(visitor.look.language), Common::of(visitor.look.language));
    let id = &challenge.id;
    let entries = app.queue().entries(Of::Challenge(id)).await?;
    let pictures = app.queue().arena_pictures(id).await?;
    let prompts = app.queue().challenge_prompts(id).await?;
    let standings = arena.standings(Of::Challenge(id)).await?;
    let mine = visitor.caller.sees(&challenge.owner);
    let votable =
        !challenge.closed && pictures.iter().any(|picture| picture.state == ArenaState::Made);
    let body = html! {
        div.head {
            h1 { (challenge.name) }
            a.tag href=(use_case_path(&challenge.use_case)) { (challenge.use_case) }
            @if challenge.closed { span.tag { (words.closed) } }
            @if votable { a.button.primary.push href=(format!("/arena/{id}/vote")) { (words.vote) } }
        }
        (progress_of(words, challenge, &pictures, mine))
        section aria-labelledby="board" {
            h2 #board { (words.board) }
            (board::table(words, words.rating, &standings))
            (board::bias(words, &standings))
            (board::downloads(words, &format!("/arena/{id}")))
        }
        section aria-labelledby="contenders" {
            h2 #contenders { (words.contenders) }
            @if entries.is_empty() { p.soft { (words.no_contenders) } } @else { (contenders(words, &entries, &pictures)) }
            @if mine { (enter::form(words, app, challenge, sent, wrong)) }
        }
        details.more {
            summary { (words.all_prompts) " · " (filled(words.pixels, &[&challenge.width, &challenge.height])) }
            ol { @for prompt in &prompts { li { (prompt.prompt) " " span.soft.small.numbers { (words.seed) " " (prompt.seed) } } } }
        }
        @if mine {
            div.row.end {
                form method="post" action=(format!("/arena/{id}/close")) {
                    button name="closed" value=(!challenge.closed) { (if challenge.closed { words.reopen } else { words.close }) }
                }
                form method="post" action=(format!("/arena/{id}/delete")) data-confirm=(words.delete_sure) {
                    button.danger { (common.delete) }
                }
            }
        }
    };
    Ok(page(
        &visitor.look,
        Page { title: &challenge.name, tab: Some(Tab::Arena), scripts: &[], body },
    ))
}

/// How far the pictures are; it looks again by itself until all are there.
fn progress_of(
    words: &Words,
    challenge: &Challenge,
    pictures: &[ArenaPicture],
    mine: bool,
) -> Markup {
    let count = |state| pictures.iter().filter(|picture| picture.state == state).count();
    let (made, failed) = (count(ArenaState::Made), count(ArenaState::Failed));
    let path = format!("/arena/{}/progress", challenge.id);
    let errors = pictures.iter().filter(|picture| picture.state == ArenaState::Failed);
    let mut errors: Vec<&str> = errors.filter_map(|picture| picture.error.as_deref()).collect();
    errors.sort_unstable();
    errors.dedup();
    let waits = count(ArenaState::Waiting) > 0;
    html! {
        div #progress hx-get=[waits.then_some(path)] hx-trigger=[waits.then_some("every 1s")] hx-swap=[waits.then_some("outerHTML")] {
            @if waits {
                p { (filled(words.drawing, &[&made, &pictures.len()])) }
                progress.wide value=(made) max=(pictures.len()) aria-label=(words.made) {}
            }
            @if failed > 0 {
                div.card.fault {
                    p { (filled(words.failed, &[&failed])) }
                    ul { @for error in errors.iter().take(5) { li { (error) } } }
                    @if mine {
                        form method="post" action=(format!("/arena/{}/again", challenge.id)) { button { (words.try_again) } }
                    }
                }
            }
        }
    }
}

pub(super) async fn progress(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let challenge = arena.challenge(&id).await?;
    let pictures = app.queue().arena_pictures(&id).await?;
    if !pictures.iter().any(|picture| picture.state == ArenaState::Waiting) {
        // There is something to vote on now, and times to show: all of the page is another.
        return Ok((StatusCode::OK, [("hx-refresh", "true")], "").into_response());
    }
    let words = Words::of(visitor.look.language);
    let mine = visitor.caller.sees(&challenge.owner);
    Ok(progress_of(words, &challenge, &pictures, mine).into_response())
}

/// Who takes part with what, without their pictures: whoever has seen them by name votes no more.
fn contenders(words: &Words, entries: &[ArenaEntry], pictures: &[ArenaPicture]) -> Markup {
    let of = |entry: &ArenaEntry| -> Vec<&ArenaPicture> {
        pictures.iter().filter(|picture| picture.contender == entry.contender).collect()
    };
    html! {
        (scrolled(words.settings, html! {
            table {
                thead {
                    tr {
                        th scope="col" { (words.contender) } th scope="col" { (words.model) } th scope="col" { (words.settings) }
                        th.number scope="col" { (words.made) } th.number scope="col" { (words.took) }
                    }
                }
                tbody {
                    @for entry in entries {
                        @let all = of(entry);
                        @let made: Vec<i64> = all.iter().filter(|p| p.state == ArenaState::Made).filter_map(|p| p.took_ms).collect();
                        tr {
                            th scope="row" { (entry.name) }
                            td { code { (entry.model) } }
                            td { (shown(&entry.settings)) }
                            td.number { (made.len()) " / " (all.len()) }
                            td.number { @match median(&made) { Some(ms) => { (seconds(ms)) " s" }, None => "–" } }
                        }
                    }
                }
            }
        }))
    }
}

/// Settings in a line.
pub(super) fn shown(settings: &str) -> String {
    let settings: Map<String, Value> = serde_json::from_str(settings).unwrap_or_default();
    described(&settings)
}

fn median(times: &[i64]) -> Option<i64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

pub(super) async fn again(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(id): Path<String>,
) -> Result<Redirect, Fault> {
    changeable(&visitor, &arena.challenge(&id).await?)?;
    app.queue().try_pictures_again(&id).await?;
    Ok(Redirect::to(&format!("/arena/{id}")))
}

#[derive(Deserialize)]
pub(super) struct Close {
    closed: bool,
}

pub(super) async fn close(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(id): Path<String>,
    Form(sent): Form<Close>,
) -> Result<Redirect, Fault> {
    changeable(&visitor, &arena.challenge(&id).await?)?;
    app.queue().close_challenge(&id, sent.closed).await?;
    Ok(Redirect::to(&format!("/arena/{id}")))
}

pub(super) async fn delete(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(id): Path<String>,
) -> Result<Redirect, Fault> {
    changeable(&visitor, &arena.challenge(&id).await?)?;
    app.queue().delete_challenge(&id).await?;
    Ok(Redirect::to("/arena"))
}

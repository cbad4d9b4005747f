//! Voting: two pictures side by side, one choice, and then the names.

use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use zoetrope_arena::pairs::{Next, Shown};
use zoetrope_jobs::{ArenaEntry, ArenaState, Challenge, Of, Verdict};
use zoetrope_server::App;

use super::In;
use super::challenge::shown;
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::text::arena::Arena as Words;
use crate::text::filled;
use crate::visitor::Visitor;

pub(super) async fn show(
    visitor: Visitor,
    In(arena): In,
    Path(id): Path<String>,
) -> Result<Markup, Fault> {
    let challenge = arena.challenge(&id).await?;
    let words = Words::of(visitor.look.language);
    if challenge.closed {
        let text = "This challenge is closed; votes are taken no more.";
        return Err(Fault::new(StatusCode::CONFLICT, text));
    }
    let board = html! { a.button href=(format!("/arena/{id}")) { (words.to_board) } };
    let body = match arena.next(&challenge, &visitor.caller.owner).await? {
        Next::Pair(pair) => choice(words, &challenge, &pair),
        Next::Done => html! { div.empty { p { (words.all_done) } p { (board) } } },
        Next::NotReady => html! {
            div.empty hx-get=(format!("/arena/{id}/vote")) hx-trigger="every 2s" hx-select="main" hx-target="main" hx-swap="outerHTML" { p { (words.not_ready) } p { (board) } }
        },
    };
    Ok(page(
        &visitor.look,
        Page { title: words.which, tab: Some(Tab::Arena), scripts: &["arena.js"], body },
    ))
}

/// What can be said, the key that says it, and its sign.
const KEYS: [(Verdict, &str, &str); 4] = [
    (Verdict::Left, "ArrowLeft", "←"),
    (Verdict::BothBad, "ArrowUp", "↑"),
    (Verdict::Tie, "ArrowDown", "↓"),
    (Verdict::Right, "ArrowRight", "→"),
];

fn said(words: &Words, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Left => words.left_better,
        Verdict::Right => words.right_better,
        Verdict::Tie => words.tie,
        Verdict::BothBad => words.both_bad,
    }
}

/// A pair without names.
fn choice(words: &Words, challenge: &Challenge, pair: &Shown) -> Markup {
    html! {
        div.head {
            h1 { (words.which) }
            span.soft.small.numbers { (challenge.name) " · " (filled(words.left_over, &[&pair.left_over])) }
        }
        p.asked { (pair.prompt) }
        div.duel {
            figure { (picture(challenge, &pair.left, words.left_picture)) }
            figure { (picture(challenge, &pair.right, words.right_picture)) }
        }
        form.verdicts method="post" action=(format!("/arena/{}/vote", challenge.id)) {
            input type="hidden" name="pair" value=(pair.pair);
            @for (verdict, key, sign) in KEYS {
                button name="verdict" value=(verdict.name()) data-key=(key) aria-keyshortcuts=(key) class=(verdict.name()) {
                    kbd aria-hidden="true" { (sign) } (said(words, verdict))
                }
            }
        }
        p.help.center { (words.keys) }
    }
}

fn picture(challenge: &Challenge, file: &str, alt: &str) -> Markup {
    html! { img src=(format!("/files/{file}")) width=(challenge.width) height=(challenge.height) alt=(alt); }
}

#[derive(Deserialize)]
pub(super) struct Cast {
    pair: String,
    verdict: String,
}

pub(super) async fn cast(
    visitor: Visitor,
    In(arena): In,
    Path(id): Path<String>,
    Form(sent): Form<Cast>,
) -> Result<Response, Fault> {
    let Some(verdict) = Verdict::named(&sent.verdict) else {
        let names = Verdict::ALL.map(Verdict::name).join(", ");
        let text = format!("`{}` is no verdict; send one of {names}.", sent.verdict);
        return Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    };
    let (pair, counted) = arena.cast(&sent.pair, &visitor.caller.owner, verdict).await?;
    if pair.challenge != id {
        return Err(Fault::not_found("There is no such pair in this challenge."));
    }
    // Of another pair of the same two pictures nothing was written; names are told where a vote is.
    let to = match arena.said(&pair.id, &visitor.caller.owner).await? {
        Some(_) if counted => format!("/arena/{id}/pairs/{}", pair.id),
        Some(_) => format!("/arena/{id}/pairs/{}?again=1", pair.id),
        None => format!("/arena/{id}/vote"),
    };
    Ok(Redirect::to(&to).into_response())
}

#[derive(Deserialize)]
pub(super) struct Again {
    again: Option<String>,
}

/// The same pair with names: only to who has voted on it.
pub(super) async fn revealed(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path((id, pair)): Path<(String, String)>,
    Query(Again { again }): Query<Again>,
) -> Result<Markup, Fault> {
    let words = Words::of(visitor.look.language);
    let challenge = arena.challenge(&id).await?;
    let vote =
        arena.said(&pair, &visitor.caller.owner).await?.filter(|vote| vote.pair.challenge == id);
    let vote = vote.ok_or_else(|| Fault::not_found("You have not voted on this pair."))?;
    let entries = app.queue().entries(Of::Challenge(&id)).await?;
    let pictures = app.queue().arena_pictures(&id).await?;
    let standings = arena.standings(Of::Challenge(&id)).await?;
    let prompts = app.queue().challenge_prompts(&id).await?;
    let prompt = prompts.iter().find(|prompt| prompt.number == vote.pair.prompt);
    let side = |contender: &str, alt: &str, chosen: bool| {
        let entry = entries.iter().find(|entry| entry.contender == contender);
        let file = pictures.iter().find(|picture| {
            picture.contender == contender
                && picture.prompt == vote.pair.prompt
                && picture.state == ArenaState::Made
        });
        let file = file.and_then(|picture| picture.file.as_deref());
        let player = standings.players.iter().position(|player| player.contender == contender);
        let rating = player.and_then(|player| standings.board.row(player)).map(|row| row.rating);
        html! {
            figure.chosen[chosen] {
                @if let Some(file) = file { (picture(&challenge, file, alt)) }
                @if let Some(entry) = entry { (caption(words, entry, rating)) }
            }
        }
    };
    let body = html! {
        div.head { h1 { (filled(words.you_said, &[&said(words, vote.verdict)])) } }
        @if again.is_some() { p.fault { (words.counted_before) } }
        p.asked { (prompt.map_or("", |prompt| &prompt.prompt)) }
        div.duel {
            (side(&vote.pair.left, words.left_picture, vote.verdict == Verdict::Left))
            (side(&vote.pair.right, words.right_picture, vote.verdict == Verdict::Right))
        }
        div.row.center {
            @if !challenge.closed {
                a.button.primary data-key="Enter" href=(format!("/arena/{id}/vote")) { (words.next) kbd aria-hidden="true" { "↵" } }
            }
            a.button href=(format!("/arena/{id}")) { (words.to_board) }
        }
        p.help.center { (words.keys_next) }
    };
    Ok(page(
        &visitor.look,
        Page { title: words.which, tab: Some(Tab::Arena), scripts: &["arena.js"], body },
    ))
}

fn caption(words: &Words, entry: &ArenaEntry, rating: Option<f64>) -> Markup {
    html! {
        figcaption {
            strong { (entry.name) }
            span.soft.small { code { (entry.model) } " " (shown(&entry.settings)) }
            @if let Some(rating) = rating { span.small.numbers { (words.rating) " " (format!("{rating:.0}")) } }
        }
    }
}

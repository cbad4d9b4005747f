//! Boards: of a challenge, of a use case, and the votes behind them as files.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use zoetrope_arena::Arena;
use zoetrope_arena::boards::Standings;
use zoetrope_arena::rating::board::{BATTLES_MIN, Row};
use zoetrope_jobs::{Of, Scope};
use zoetrope_server::App;

use super::{In, use_case_path};
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::plot::scrolled;
use crate::text::arena::Arena as Words;
use crate::text::filled;
use crate::visitor::Visitor;

/// Ratings as a table, best first.
pub(super) fn table(words: &Words, label: &str, standings: &Standings) -> Markup {
    let Standings { players, board } = standings;
    html! {
        @if board.battles == 0 { p.soft { (words.no_votes) } } @else {
            (scrolled(label, html! {
                table.board {
                    thead {
                        tr {
                            th.number scope="col" { (words.rank) } th scope="col" { (words.contender) }
                            @for head in [words.rating, words.interval, words.elo, words.wins, words.losses, words.ties, words.win_rate] {
                                th.number scope="col" { (head) }
                            }
                        }
                    }
                    tbody { @for row in &board.rows { (line(words, &players[row.player].name, row)) } }
                }
            }))
            p.help { (words.rating_help) }
        }
    }
}

fn line(words: &Words, name: &str, row: &Row) -> Markup {
    let Row { rating, interval, ranks, skill, record, .. } = row;
    html! {
        tr {
            td.number {
                @if ranks.0 == ranks.1 { (ranks.0) } @else { (filled(words.ranks, &[&ranks.0, &ranks.1])) }
            }
            th scope="row" { (name) @if record.battles() < BATTLES_MIN { " " span.tag { (words.few) } } }
            td.number { strong { (format!("{rating:.0}")) } }
            td.number { (format!("{:.0} – {:.0}", interval.0, interval.1)) }
            td.number { (format!("{:.0}", skill.shown())) }
            td.number { (record.wins) }
            td.number { (record.losses) }
            td.number { (record.ties) }
            td.number { (format!("{:.1} %", 100.0 * record.win_rate())) }
        }
    }
}

/// Whether the side decided.
pub(super) fn bias(words: &Words, standings: &Standings) -> Markup {
    let bias = standings.board.bias;
    let count = bias.left + bias.right;
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let p = format!("{:.3}", bias.p_value);
    html! {
        h3 { (words.bias) }
        @if count == 0 { p.soft { (words.bias_none) } } @else {
            p {
                (filled(words.bias_said, &[
                    &bias.left, &count, &percent(bias.left as f64 / count as f64), &percent(bias.interval.0), &percent(bias.interval.1),
                ]))
                " "
                @if bias.is_told() { strong { (filled(words.bias_told, &[&p])) } } @else { (filled(words.bias_fine, &[&p])) }
            }
        }
    }
}

/// The votes behind a board at `path`.
pub(super) fn downloads(words: &Words, path: &str) -> Markup {
    html! {
        h3 { (words.export) }
        p.help { (words.export_help) }
        div.row {
            a.button.small href=(format!("{path}/votes.csv")) download { "CSV" }
            a.button.small href=(format!("{path}/votes.json")) download { "JSON" }
        }
    }
}

pub(super) async fn of_use_case(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    let words = Words::of(visitor.look.language);
    let challenges = app.queue().challenges(&name, "", 200).await?;
    if challenges.is_empty() {
        return Err(Fault::not_found("There is no challenge of this use case."));
    }
    let contenders = arena.standings(Of::UseCase(&name)).await?;
    let models = arena.models(Of::UseCase(&name)).await?;
    let body = html! {
        div.head { h1 { (name) } span.soft { (words.use_case) } }
        p.row { @for challenge in &challenges { a.tag href=(format!("/arena/{}", challenge.id)) { (challenge.name) } } }
        section aria-labelledby="by-contender" {
            h2 #by-contender { (words.by_contender) }
            (table(words, &format!("{}: {}", words.by_contender, words.rating), &contenders))
            (bias(words, &contenders))
        }
        @if models.players.len() > 1 {
            section aria-labelledby="by-model" {
                h2 #by-model { (words.by_model) }
                (table(words, &format!("{}: {}", words.by_model, words.rating), &by_family(&models)))
            }
        }
        (downloads(words, &use_case_path(&name)))
    };
    Ok(page(&visitor.look, Page { title: &name, tab: Some(Tab::Arena), scripts: &[], body }))
}

/// Called by their models.
fn by_family(standings: &Standings) -> Standings {
    let mut named = standings.clone();
    named.players.iter_mut().for_each(|player| player.name = player.family.clone());
    named
}

pub(super) async fn export(
    visitor: Visitor,
    In(arena): In,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let challenge = arena.challenge(&id).await?;
    // Whose votes they are is hidden, but not from themselves: whoever made the challenge may have them.
    super::challenge::changeable(&visitor, &challenge)?;
    exported(&arena, Of::Challenge(&id), &file).await
}

pub(super) async fn export_use_case(
    visitor: Visitor,
    In(arena): In,
    Path((name, file)): Path<(String, String)>,
) -> Result<Response, Fault> {
    if visitor.caller.scope != Scope::Admin {
        let text = "Votes of a use case are of many people's challenges; they are for keys of scope admin.";
        return Err(Fault::new(StatusCode::FORBIDDEN, text));
    }
    exported(&arena, Of::UseCase(&name), &file).await
}

async fn exported(arena: &Arena, of: Of<'_>, file: &str) -> Result<Response, Fault> {
    let export = arena.export(of).await?;
    let (kind, text) = match file {
        "votes.csv" => ("text/csv; charset=utf-8", export.csv()),
        "votes.json" => ("application/json", export.json().to_string()),
        _ => return Err(Fault::not_found("There is no such file; votes.csv and votes.json are.")),
    };
    let as_file = format!("attachment; filename=\"{file}\"");
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, as_file.as_str())], text)
        .into_response())
}

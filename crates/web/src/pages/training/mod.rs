//! `/training`: sets of pictures with captions, and the trainings that are begun from them.

mod log;
mod packed;
mod pictures;
mod run;
mod set;
mod start;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use maud::{Markup, html};
use zoetrope_jobs::{Outcome, Standing, State as Stand, TrainingRun};
use zoetrope_server::App;

use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::show::ago;
use crate::text::common::Common;
use crate::text::filled;
use crate::text::training::Training as Words;
use crate::visitor::Visitor;

/// What one upload may have: a set of photographs.
const UPLOAD_BYTES_MAX: usize = 2 << 30;
/// Captions of five hundred pictures.
const FORM_BYTES_MAX: usize = 4 << 20;
/// Trainings on the first page.
const LISTED: i64 = 100;

pub(super) fn router() -> Router<App> {
    let uploads = Router::new()
        .route("/training/sets", post(pictures::create))
        .route("/training/sets/{id}/pictures", post(pictures::add))
        .layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX));
    Router::new()
        .route("/training", get(list))
        .route("/training/sets/{id}", get(set::show))
        .route("/training/sets/{id}/captions", post(set::caption))
        .route("/training/sets/{id}/gallery", post(pictures::from_gallery))
        .route("/training/sets/{id}/remove/{picture}", post(set::remove))
        .route("/training/sets/{id}/delete", post(set::delete))
        .route("/training/sets/{id}/start", post(start::start))
        .route("/training/runs/{id}", get(run::show))
        .route("/training/runs/{id}/live", get(run::live))
        .route("/training/runs/{id}/cancel", post(run::cancel))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .merge(uploads)
}

async fn list(visitor: Visitor, State(app): State<App>) -> Result<Markup, Fault> {
    let (words, title) =
        (Words::of(visitor.look.language), Common::of(visitor.look.language).training);
    let sets = app.queue().training_sets(visitor.owner()).await?;
    let mut runs = Vec::new();
    for run in app.queue().training_runs(visitor.owner(), LISTED).await? {
        if let Some(standing) = app.queue().standing(&run.request).await? {
            runs.push((run, standing));
        }
    }
    let body = html! {
        div.head { h1 { (title) } }
        p.soft { (words.about) }
        section aria-labelledby="runs" {
            h2 #runs { (words.runs) }
            @if runs.is_empty() { p.soft { (words.no_runs) } } @else {
                ul.listed { @for (run, standing) in &runs { (line(&visitor, &app, words, run, standing)) } }
            }
        }
        section aria-labelledby="sets" {
            h2 #sets { (words.sets) }
            @if sets.is_empty() { p.soft { (words.no_sets) } } @else {
                ul.listed {
                    @for (set, count) in &sets {
                        li.row {
                            a href=(format!("/training/sets/{}", set.id)) { (set.name) }
                            span.soft.small { (filled(words.pictures_count, &[count])) " · " (ago(visitor.look.language, set.created_ms, app.now_ms())) }
                        }
                    }
                }
            }
        }
        section.upload aria-labelledby="new-set" {
            h2 #new-set { (words.new_set) }
            form.stack method="post" action="/training/sets" enctype="multipart/form-data" {
                div.field {
                    label for="set-name" { (words.set_name) }
                    input #set-name name="name" required maxlength="80";
                }
                (pictures::field(words, true))
                button.primary { (words.create_set) }
            }
        }
    };
    Ok(page(
        &visitor.look,
        Page { title, tab: Some(Tab::Training), scripts: &["training.js"], body },
    ))
}

fn line(
    visitor: &Visitor,
    app: &App,
    words: &Words,
    run: &TrainingRun,
    standing: &Standing,
) -> Markup {
    html! {
        li.row {
            a href=(format!("/training/runs/{}", run.request)) { (run.name) }
            span.tag { (status(words, standing)) }
            span.soft.small { (ago(visitor.look.language, run.created_ms, app.now_ms())) }
        }
    }
}

/// Where a training stands, in a word.
fn status(words: &Words, standing: &Standing) -> &'static str {
    let outcome = standing.ended.as_ref().map(|end| end.outcome);
    match (standing.state, outcome) {
        (Stand::Queued, _) => words.status_queued,
        (Stand::Running, _) => words.status_running,
        (Stand::Done, Some(Outcome::Completed)) => words.status_done,
        (Stand::Done, Some(Outcome::Cancelled)) => words.status_cancelled,
        (Stand::Done, _) => words.status_failed,
    }
}

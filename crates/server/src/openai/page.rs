//! `/models/{creator}/{model}/llms.txt`: what a model is, takes, costs and does, for language models and those who prefer text; and
//! the list of these pages.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use zoetrope_api::images::{ArenaFigure, Board, Listed, Record, llms_txt};
use zoetrope_arena::boards::Figure;
use zoetrope_gateway::catalogue::{Choice, Model, Status};

use crate::openai::caller::asks;
use crate::openai::models::sheet;
use crate::openai::performance::measured;
use crate::openai::window::usual;
use crate::state::App;
use crate::surface::Origin;

/// The page at `path`, `{creator}/{model}/llms.txt` or `{model}/llms.txt`; `None` where no model is called so.
pub(crate) async fn page(
    app: &App,
    origin: &Origin,
    headers: &HeaderMap,
    path: &str,
) -> Option<Response> {
    let name = path.strip_suffix("/llms.txt")?;
    let catalogue = app.settings.gateway.catalogue();
    let model = catalogue.models.iter().find(|model| {
        name == model.id
            || name.split_once('/') == Some((model.owned_by.as_str(), model.id.as_str()))
    })?;
    let record = record(app, headers, &model.id).await;
    Some(plain(llms_txt(&sheet(app, model, &Choice::Any), &record, &origin.run)))
}

/// Where the model `id` stands in the arena; nowhere before there are votes.
async fn arena(app: &App, id: &str) -> Vec<ArenaFigure> {
    let figures = app.arena.figures(id).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the arena's boards could not be looked at");
        Vec::new()
    });
    let figure = |one: Figure| ArenaFigure {
        board: if one.challenge.is_empty() { Board::UseCase } else { Board::Challenge },
        title: one.title,
        mode: None,
        rating: one.figure.rating,
        wins: one.figure.wins,
        losses: one.figure.losses,
        ties: one.figure.ties,
        rank: one.figure.rank as u32,
        of: one.of as u32,
    };
    figures.into_iter().map(figure).collect()
}

/// What is known of the model `id` from its use. How much it is used is only for those who may use it.
async fn record(app: &App, headers: &HeaderMap, id: &str) -> Record {
    let arena = arena(app, id).await;
    if asks(app, headers).await.is_err() {
        return Record { arena, ..Record::default() };
    }
    let of_it = |calls: &zoetrope_jobs::Calls| calls.model == id;
    let performance = measured(app, usual(app.now_ms()), of_it).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what was measured could not be looked at");
        Vec::new()
    });
    Record { performance, arena }
}

/// The models that may be asked for, with the way to their pages.
pub(crate) fn listed(app: &App, origin: &Origin) -> Vec<Listed> {
    let catalogue = app.settings.gateway.catalogue();
    let active = catalogue.models.iter().filter(|model| model.status == Status::Active);
    let listed = |model: &std::sync::Arc<Model>| Listed {
        title: model.name.clone(),
        summary: format!("`{}`. {}", model.id, model.summary),
        page: format!("{}/models/{}/{}/llms.txt", origin.run, model.owned_by, model.id),
    };
    active.map(listed).collect()
}

/// A page of text.
pub(crate) fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

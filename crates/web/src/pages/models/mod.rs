//! `/models`: the catalogue, and a sheet for each endpoint and model.

mod endpoint;
mod model;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use maud::{Markup, html};
use zoetrope_api::fal::{ENDPOINTS, Endpoint, Makes};
use zoetrope_gateway::catalogue::{Catalogue, Model};
use zoetrope_jobs::{Picture, Search};
use zoetrope_server::App;

use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::show::dollars;
use crate::text::common::Common;
use crate::text::models::Models;
use crate::text::playground::Playground;
use crate::visitor::Visitor;

/// Pictures on a sheet.
const SAMPLES: i64 = 8;

pub(super) fn router() -> Router<App> {
    Router::new().route("/models", get(all)).route("/models/{*name}", get(one))
}

async fn all(State(app): State<App>, visitor: Visitor) -> Markup {
    let language = visitor.look.language;
    let (words, common) = (Models::of(language), Common::of(language));
    let (trainers, pictures): (Vec<_>, Vec<_>) = ENDPOINTS.iter().partition(|e| e.trains());
    let catalogue = app.gateway().catalogue();
    let card = |endpoint: &&Endpoint| {
        html! {
            li.card {
                h3 { a href={ "/models/" (endpoint.id) } { (endpoint.title) } }
                p.soft.small { (endpoint.summary) }
                p.row.small.numbers { span.tag { (endpoint.category()) } (price(&app, endpoint, &visitor)) }
            }
        }
    };
    let body = html! {
        h1 { (common.models) }
        h2 { (words.endpoints) }
        p.soft { (words.endpoints_why) }
        ul.cards { @for endpoint in &pictures { (card(endpoint)) } }
        h2 { (words.gateway) }
        p.soft { (words.gateway_why) }
        ul.cards {
            @for model in &catalogue.models {
                li.card {
                    h3 { a href={ "/models/" (model.owned_by) "/" (model.id) } { (model.name) } }
                    p.soft.small { (model.summary) }
                    p.row.small.numbers {
                        @for name in providers(&catalogue, model) { span.tag { (name) } }
                        (least(model, words))
                    }
                }
            }
        }
        h2 { (words.trainers) }
        ul.cards { @for endpoint in &trainers { (card(endpoint)) } }
    };
    page(&visitor.look, Page { title: common.models, tab: Some(Tab::Models), scripts: &[], body })
}

/// Who serves `model`, as people write it, each once.
fn providers(catalogue: &Catalogue, model: &Model) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for deployment in &model.deployments {
        let entry = catalogue.providers.get(&deployment.provider);
        let name = entry.map_or(&deployment.provider, |entry| &entry.title);
        if !out.contains(name) {
            out.push(name.clone());
        }
    }
    out
}

/// What the cheapest provider of `model` asks.
fn least(model: &Model, words: &Models) -> String {
    let prices = model.deployments.iter().filter_map(|deployment| deployment.price.as_ref());
    match prices.min_by_key(|price| price.amount) {
        Some(price) if price.amount.0 == 0 => words.free.into(),
        Some(price) => format!("{} / {}", dollars(price.amount.dollars()), price.unit.name()),
        None => String::new(),
    }
}

/// What a unit of `endpoint` costs.
fn price(app: &App, endpoint: &Endpoint, visitor: &Visitor) -> String {
    let words = Playground::of(visitor.look.language);
    let unit = match endpoint.makes {
        Makes::Pictures { .. } => words.megapixel,
        Makes::Adapter { .. } => words.thousand_steps,
    };
    format!("{} / {unit}", dollars(app.price(endpoint.id).unwrap_or_default()))
}

/// The sheet of an endpoint, or of a model by its creator and name or by its name alone.
async fn one(
    State(app): State<App>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    if let Some(endpoint) = Endpoint::find(name.strip_suffix("/api").unwrap_or(&name)) {
        return endpoint::sheet(&app, &visitor, endpoint).await;
    }
    let catalogue = app.gateway().catalogue();
    let by_creator = |model: &&std::sync::Arc<Model>| {
        name.split_once('/') == Some((model.owned_by.as_str(), model.id.as_str()))
    };
    let found = catalogue.models.iter().find(by_creator).cloned();
    match found.or_else(|| Some(catalogue.resolve(&name).ok()?.model)) {
        Some(model) => model::sheet(&app, &visitor, &model).await,
        None => Err(Fault::not_found(Models::of(visitor.look.language).missing)),
    }
}

/// The last pictures that `model` made for this visitor.
async fn samples(app: &App, visitor: &Visitor, model: &str) -> Result<Markup, Fault> {
    let words = Models::of(visitor.look.language);
    let search = Search {
        owner: visitor.owner().into(),
        model: model.into(),
        most: SAMPLES,
        ..Search::default()
    };
    let pictures: Vec<Picture> = app.queue().pictures(&search).await?;
    Ok(html! {
        h2 { (words.samples) }
        @if pictures.is_empty() {
            p.soft { (words.samples_none) }
        } @else {
            p.soft { (words.samples_why) }
            ul.samples {
                @for picture in &pictures {
                    li {
                        a href={ "/requests/" (picture.request) } {
                            img src={ "/gallery/" (picture.number) "/small.webp" } alt=(picture.prompt) loading="lazy" width="160" height="160";
                        }
                    }
                }
            }
        }
    })
}

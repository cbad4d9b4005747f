//! `models`: which there are, and with `?schema=true` what each takes and who serves it.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use zoetrope_api::images::{
    Code, Modalities, Mode, ModelSheet, Offer, PriceSheet, Problem, ProviderSheet, compile,
};
use zoetrope_gateway::catalogue::{Alias, Catalogue, Choice, Deployment, Model, Status};

use crate::answer::json_answer;
use crate::extract;
use crate::openai::answer::refusal;
use crate::openai::caller::{caller, problem};
use crate::state::App;
use crate::surface::Origin;

#[derive(Deserialize)]
struct Asked {
    schema: Option<String>,
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Response {
    if let Err(problem) = caller(&app, &headers, &origin).await {
        return refusal(&problem);
    }
    let catalogue = app.settings.gateway.catalogue();
    let models = catalogue.models.iter();
    let mut data: Vec<Value> =
        models.map(|model| entry(&model.id, model, &catalogue, &origin)).collect();
    for alias in catalogue.aliases.iter().filter(|alias| alias.listed && !is_pattern(alias)) {
        if let Ok(target) = catalogue.resolve(&alias.pattern) {
            data.push(entry(&alias.pattern, &target.model, &catalogue, &origin));
        }
    }
    json_answer(StatusCode::OK, &json!({"object": "list", "data": data}))
}

pub(super) async fn one(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    match described(&app, &origin, &id, &headers, &uri).await {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(problem) => refusal(&problem),
    }
}

async fn described(
    app: &App,
    origin: &Origin,
    id: &str,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Value, Problem> {
    caller(app, headers, origin).await?;
    let asked: Asked = extract::query(uri).map_err(problem)?;
    let catalogue = app.settings.gateway.catalogue();
    let target = catalogue.resolve(id)?;
    if matches!(asked.schema.as_deref(), Some("true" | "1")) {
        let mut sheet = sheet(app, &target.model, &target.choice);
        sheet.id = id.into();
        return serde_json::to_value(sheet).map_err(|error| {
            tracing::error!(%error, "a sheet could not be written");
            Problem::new(Code::InternalError, "The model's sheet could not be written")
        });
    }
    Ok(entry(id, &target.model, &catalogue, origin))
}

/// What lists tell of a model, under one of its names.
fn entry(id: &str, model: &Model, catalogue: &Catalogue, origin: &Origin) -> Value {
    let modes = modes(model.deployments.iter());
    let prices = model.deployments.iter().filter_map(|deployment| deployment.price.as_ref());
    let least = prices.min_by_key(|price| price.amount);
    let page = format!("{}/models/{}/{}/llms.txt", origin.run, model.owned_by, model.id);
    json!({
        "id": id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "name": model.name,
        "description": model.summary,
        "creator_organization": model.owned_by,
        "model_status": status(model),
        "aliases": aliases(model, catalogue),
        "tags": model.tags,
        "modality": "image",
        "modalities": {"input": inputs(&modes), "output": ["image"]},
        "capabilities": capabilities(&modes),
        "free": least.is_some_and(|price| price.amount.0 == 0),
        "starting_price": least.map(|price| price.amount.dollars()),
        "starting_price_unit": least.map(|price| price.unit.name()),
        "max_resolution": model.size_max.to_string(),
        "model_page_path": page,
    })
}

/// All that is known of a model, by those of its deployments that `choice` admits.
pub(crate) fn sheet(app: &App, model: &Model, choice: &Choice) -> ModelSheet {
    let gateway = &app.settings.gateway;
    let catalogue = gateway.catalogue();
    let admitted = model.deployments.iter().filter(|deployment| match choice {
        Choice::Any => true,
        Choice::Provider(name) => deployment.provider == *name,
        Choice::Deployment(only) => deployment.key == only.key,
    });
    let admitted: Vec<_> = admitted.collect();
    let abilities: Vec<_> = admitted
        .iter()
        .flat_map(|deployment| deployment.modes.iter().map(move |mode| (deployment, *mode)))
        .filter_map(|(deployment, mode)| {
            Some((deployment, mode, gateway.abilities(deployment, mode)?))
        })
        .collect();
    let offers: Vec<_> = abilities
        .iter()
        .map(|(deployment, mode, abilities)| Offer {
            provider: &deployment.provider,
            mode: *mode,
            handling: abilities.handling,
        })
        .collect();
    let modes = modes(admitted.iter().copied());
    ModelSheet {
        id: model.id.clone(),
        object: "model",
        created: model.created,
        owned_by: model.owned_by.clone(),
        name: model.name.clone(),
        description: model.summary.clone(),
        family: model.family.clone(),
        status: status(model),
        aliases: aliases(model, &catalogue),
        tags: model.tags.clone(),
        about: model.about.clone(),
        examples: model.examples.clone(),
        max_resolution: model.size_max.to_string(),
        modalities: Modalities { input: inputs(&modes), output: vec!["image"] },
        modes: modes.iter().map(|mode| mode.name()).collect(),
        schema: compile(&offers),
        providers: admitted.iter().map(|d| provider(app, &catalogue, d)).collect(),
    }
}

fn provider(app: &App, catalogue: &Catalogue, deployment: &Deployment) -> ProviderSheet {
    let entry = catalogue.providers.get(&deployment.provider);
    let pricing = deployment.price.as_ref().map_or_else(Vec::new, |price| {
        let own =
            PriceSheet { unit: price.unit.name(), price_micros: price.amount.0, parameter: None };
        let surcharges = price.surcharges.iter().map(|surcharge| PriceSheet {
            unit: surcharge.unit.name(),
            price_micros: surcharge.amount.0,
            parameter: Some(surcharge.parameter.clone()),
        });
        std::iter::once(own).chain(surcharges).collect()
    });
    ProviderSheet {
        key: deployment.key.clone(),
        provider: deployment.provider.clone(),
        provider_name: entry
            .map_or_else(|| deployment.provider.clone(), |entry| entry.title.clone()),
        provider_model_id: deployment.upstream.clone(),
        modes: deployment.modes.iter().map(|mode| mode.name()).collect(),
        pricing,
        source: deployment.price_source.clone(),
        healthy: app.settings.gateway.is_healthy(deployment),
    }
}

fn status(model: &Model) -> &'static str {
    match model.status {
        Status::Active => "active",
        Status::Disabled => "disabled",
    }
}

/// Whether an alias is many names at once, and so none that could be listed.
fn is_pattern(alias: &Alias) -> bool {
    alias.pattern.contains('*')
}

/// Exact names that stand for `model`; patterns are no names.
fn aliases(model: &Model, catalogue: &Catalogue) -> Vec<String> {
    let names =
        catalogue.aliases.iter().filter(|alias| alias.target == model.id && !is_pattern(alias));
    names.map(|alias| alias.pattern.clone()).collect()
}

fn modes<'a>(
    deployments: impl Iterator<Item = &'a std::sync::Arc<Deployment>> + Clone,
) -> Vec<Mode> {
    let is_offered =
        |mode: &Mode| deployments.clone().any(|deployment| deployment.modes.contains(mode));
    Mode::ALL.into_iter().filter(is_offered).collect()
}

fn inputs(modes: &[Mode]) -> Vec<&'static str> {
    match modes.contains(&Mode::ImageEdit) {
        true => vec!["text", "image"],
        false => vec!["text"],
    }
}

/// In the words by which Lumenfall's clients look for models that edit.
fn capabilities(modes: &[Mode]) -> Vec<&'static str> {
    let word = |mode: &Mode| match mode {
        Mode::TextToImage => "text-to-image",
        Mode::ImageEdit => "editing",
    };
    modes.iter().map(word).collect()
}

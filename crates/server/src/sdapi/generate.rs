//! `txt2img` and `img2img`.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use zoetrope_api::images::{Handling, Mode, Problem, no_object};
use zoetrope_gateway::answer::Answer;
use zoetrope_gateway::catalogue::Model;

use super::{Desk, SAMPLER, refusal, translate};
use crate::answer::json_answer;
use crate::extract;
use crate::openai;
use crate::surface::Origin;

/// Unfinished pictures that wait to be looked at.
const PARTIALS_WAITING: usize = 4;

pub(super) async fn from_text(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    made(&desk, &origin, request, false).await
}

pub(super) async fn from_image(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    made(&desk, &origin, request, true).await
}

async fn made(desk: &Desk, origin: &Origin, request: Request, edits: bool) -> Response {
    match answered(desk, origin, request, edits).await {
        Ok(response) => response,
        Err(problem) => refusal(&problem),
    }
}

async fn answered(
    desk: &Desk,
    origin: &Origin,
    request: Request,
    edits: bool,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = desk.caller(&parts.headers, origin).await?;
    let (sent, held) = extract::input(&desk.app, body).await.map_err(openai::problem)?;
    let Value::Object(mut sent) = sent else { return Err(no_object()) };
    let named = sent.get("override_settings").and_then(|o| o.get("sd_model_checkpoint")?.as_str());
    let model = named.map_or_else(|| desk.checkpoint(&caller.owner), String::from);
    let gateway = &desk.app.settings.gateway;
    let target = gateway.catalogue().resolve(&model)?;
    let wanted = translate::request(&sent, (&model, is_guided(desk, &target.model)), edits)?;
    let steps = wanted.steps.unwrap_or_default();
    // Pictures are not sent back.
    sent.retain(|name, _| !["init_images", "mask"].contains(&name.as_str()));
    let (sender, partials) = mpsc::channel(PARTIALS_WAITING);
    let mut job = desk.jobs.begin(&caller.owner, steps);
    let making = gateway.make(wanted, caller, Some(sender));
    let done = job.until(making, partials).await;
    drop(held);
    match done {
        Some(Ok(done)) => Ok(answer(done, sent)),
        Some(Err(refused)) => Err(refused.problem),
        // Interrupted: what was ready by then, which is nothing.
        None => Ok(json_answer(
            StatusCode::OK,
            &json!({"images": [], "parameters": sent, "info": "{}"}),
        )),
    }
}

/// Whether a model follows a negative prompt, and so takes guidance at all.
fn is_guided(desk: &Desk, model: &Model) -> bool {
    model.deployments.iter().any(|deployment| {
        let abilities = desk.app.settings.gateway.abilities(deployment, Mode::TextToImage);
        abilities.and_then(|abilities| abilities.handling("negative_prompt"))
            == Some(Handling::Native)
    })
}

fn answer(done: Answer, sent: Map<String, Value>) -> Response {
    let first = done.pictures.first();
    let seeds: Vec<_> = done.pictures.iter().map(|picture| picture.seed).collect();
    let prompt = sent.get("prompt").and_then(Value::as_str).unwrap_or_default();
    let size = first.map(|picture| picture.size.to_string()).unwrap_or_default();
    let text = |seed: &Option<u64>| {
        let seed = seed.map_or_else(|| "unknown".into(), |seed| seed.to_string());
        format!(
            "{prompt}\nSampler: {SAMPLER}, Seed: {seed}, Size: {size}, Model: {}",
            done.model.id
        )
    };
    let info = json!({
        "prompt": prompt,
        "all_prompts": vec![prompt; done.pictures.len()],
        "negative_prompt": sent.get("negative_prompt").and_then(Value::as_str).unwrap_or_default(),
        "seed": seeds.first(),
        "all_seeds": seeds,
        "width": first.map(|picture| picture.size.width),
        "height": first.map(|picture| picture.size.height),
        "sampler_name": SAMPLER,
        "sd_model_name": done.model.id,
        "infotexts": seeds.iter().map(text).collect::<Vec<_>>(),
    });
    let images = done.pictures.into_iter().filter_map(|picture| picture.base64.map(Value::from));
    let mut body = Map::new();
    body.insert("images".into(), images.collect());
    body.insert("parameters".into(), sent.into());
    body.insert("info".into(), info.to_string().into());
    json_answer(StatusCode::OK, &body.into())
}

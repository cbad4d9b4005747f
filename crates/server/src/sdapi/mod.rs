//! The part of AUTOMATIC1111's API that front-ends draw with, over the gateway: its checkpoints are the catalogue's models.

mod generate;
mod progress;
mod translate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zoetrope_api::images::Problem;
use zoetrope_gateway::caller::Caller;

use crate::answer::json_answer;
use crate::extract;
use crate::openai;
use crate::state::App;
use crate::surface::Origin;
use progress::Jobs;

/// What these handlers share.
#[derive(Clone)]
struct Desk {
    app: App,
    /// What is being drawn, by owner.
    jobs: Jobs,
    /// Which checkpoint each owner has chosen, until the server ends.
    chosen: Arc<Mutex<HashMap<String, String>>>,
}

/// Owners whose choice is remembered at once.
const CHOICES_MAX: usize = 10_000;
/// Characters of a checkpoint's name.
const NAME_CHARACTERS_MAX: usize = 200;
/// The one sampler and the one schedule that there are, by the names that front-ends know.
const SAMPLER: &str = "Euler";
const SCHEDULER: &str = "Simple";

/// Everything under `/sdapi/v1`.
pub(crate) fn router(app: &App) -> Router {
    let desk = Desk { app: app.clone(), jobs: Jobs::default(), chosen: Arc::default() };
    let none = || get(async || Json(json!([])));
    Router::new()
        .route("/internal/ping", get(async || Json(json!({}))))
        .route("/sdapi/v1/options", get(options).post(set_options))
        .route("/sdapi/v1/sd-models", get(checkpoints))
        .route("/sdapi/v1/refresh-checkpoints", post(async || Json(Value::Null)))
        .route("/sdapi/v1/samplers", get(samplers))
        .route("/sdapi/v1/schedulers", get(schedulers))
        .route("/sdapi/v1/upscalers", none())
        .route("/sdapi/v1/latent-upscale-modes", none())
        .route("/sdapi/v1/sd-vae", none())
        .route("/sdapi/v1/sd-modules", none())
        .route("/sdapi/v1/loras", none())
        .route("/sdapi/v1/prompt-styles", none())
        .route("/sdapi/v1/progress", get(progress::tell))
        .route("/sdapi/v1/interrupt", post(progress::interrupt))
        .route("/sdapi/v1/txt2img", post(generate::from_text))
        .route("/sdapi/v1/img2img", post(generate::from_image))
        .fallback(crate::own::not_found)
        .with_state(desk)
}

impl Desk {
    /// Who asks. These front-ends know HTTP Basic alone: any user name, and the key as the password.
    async fn caller(&self, headers: &HeaderMap, origin: &Origin) -> Result<Caller, Problem> {
        let mut headers = headers.clone();
        if let Some(key) = password(&headers)
            && let Ok(value) = HeaderValue::from_str(&format!("Bearer {key}"))
        {
            headers.insert(header::AUTHORIZATION, value);
        }
        openai::caller(&self.app, &headers, origin).await
    }

    /// The checkpoint that `owner` has chosen, else the catalogue's first.
    fn checkpoint(&self, owner: &str) -> String {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner).get(owner).cloned();
        chosen.unwrap_or_else(|| {
            let catalogue = self.app.settings.gateway.catalogue();
            catalogue.models.first().map(|model| model.id.clone()).unwrap_or_default()
        })
    }
}

/// The password of HTTP Basic.
fn password(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = sent.trim().split_once(' ')?;
    let basic =
        scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(rest.trim()).ok())??;
    let text = String::from_utf8(basic).ok()?;
    text.split_once(':').map(|(_, password)| password.to_string())
}

/// An error as these front-ends show it.
fn refusal(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let body = json!({"error": problem.code.name(), "detail": problem.message, "body": "", "errors": problem.message});
    json_answer(status, &body)
}

async fn options(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Response {
    match desk.caller(&headers, &origin).await {
        Ok(caller) => {
            let checkpoint = desk.checkpoint(&caller.owner);
            let body = json!({
                "sd_model_checkpoint": checkpoint,
                "sd_checkpoint_hash": "",
                "sd_vae": "Automatic",
                "samples_format": "png",
                "CLIP_stop_at_last_layers": 1,
            });
            json_answer(StatusCode::OK, &body)
        }
        Err(problem) => refusal(&problem),
    }
}

/// Remembers the checkpoint; the other options mean nothing here.
async fn set_options(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    match chosen(&desk, &origin, request).await {
        Ok(()) => json_answer(StatusCode::OK, &Value::Null),
        Err(problem) => refusal(&problem),
    }
}

async fn chosen(desk: &Desk, origin: &Origin, request: Request) -> Result<(), Problem> {
    let (parts, body) = request.into_parts();
    let caller = desk.caller(&parts.headers, origin).await?;
    let (sent, _) = extract::input(&desk.app, body).await.map_err(openai::problem)?;
    let Some(name) = sent["sd_model_checkpoint"].as_str() else { return Ok(()) };
    // What cannot be drawn with is told now, and not with the next picture.
    desk.app.settings.gateway.catalogue().resolve(name)?;
    if name.chars().nth(NAME_CHARACTERS_MAX).is_some() {
        return Err(Problem::invalid(
            "sd_model_checkpoint",
            "`sd_model_checkpoint` is no name of a model",
        ));
    }
    let mut chosen = desk.chosen.lock().unwrap_or_else(PoisonError::into_inner);
    if chosen.len() >= CHOICES_MAX {
        chosen.clear();
    }
    chosen.insert(caller.owner, name.into());
    Ok(())
}

async fn checkpoints(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Response {
    if let Err(problem) = desk.caller(&headers, &origin).await {
        return refusal(&problem);
    }
    let catalogue = desk.app.settings.gateway.catalogue();
    let models = catalogue.models.iter().map(|model| {
        json!({
            "title": model.id,
            "model_name": model.id,
            "hash": null,
            "sha256": null,
            "filename": model.id,
            "config": null,
        })
    });
    json_answer(StatusCode::OK, &models.collect())
}

async fn samplers() -> Json<Value> {
    Json(json!([{"name": SAMPLER, "aliases": ["k_euler"], "options": {}}]))
}

async fn schedulers() -> Json<Value> {
    Json(
        json!([{"name": SCHEDULER.to_lowercase(), "label": SCHEDULER, "aliases": null, "default_rho": -1, "need_inner_model": false}]),
    )
}

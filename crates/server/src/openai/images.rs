//! `images/generations`, `images/edits` and `images/variations`: parse, call, render.

use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use zoetrope_api::images::{Code, ImageRequest, Problem, Route, no_object, parse_form, parse_json};

use crate::extract::{self, FORM_BYTES_MAX, INPUT_BYTES_MAX};
use crate::fal::json_of;
use crate::openai::caller::{caller, problem};
use crate::openai::{answer, dry_run, form, gallery, idempotency, stream};
use crate::state::App;
use crate::surface::Origin;

pub(super) async fn generations(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    made(&app, &origin, request, Route::Generations).await
}

pub(super) async fn edits(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    made(&app, &origin, request, Route::Edits).await
}

pub(super) async fn variations(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    made(&app, &origin, request, Route::Variations).await
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "dryRun", alias = "dry_run")]
    dry_run: Option<String>,
}

async fn made(app: &App, origin: &Origin, request: Request, route: Route) -> Response {
    match answered(app, origin, request, route).await {
        Ok(response) => response,
        Err(problem) => answer::refusal(&problem),
    }
}

async fn answered(
    app: &App,
    origin: &Origin,
    request: Request,
    route: Route,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let asked: Asked = extract::query(&parts.uri).map_err(problem)?;
    // Who may not ask is not read from.
    let caller = caller(app, &parts.headers, origin).await?;
    let content_type = text(&parts.headers, header::CONTENT_TYPE.as_str());
    let boundary = form::boundary(content_type);
    let bytes_max = if boundary.is_some() { FORM_BYTES_MAX } else { INPUT_BYTES_MAX };
    let (bytes, held) = extract::bytes(app, body, bytes_max).await.map_err(problem)?;
    let mut wanted = parsed(&bytes, boundary.as_deref(), route)?;
    drop(bytes);
    if matches!(text(&parts.headers, "x-gateway-strict"), "1" | "true") {
        wanted.reply.strict = true;
    }
    let gateway = app.settings.gateway.clone();
    if matches!(asked.dry_run.as_deref(), Some("true" | "1")) {
        let estimate = gateway.estimate(&wanted, &caller).await;
        return Ok(estimate.map_or_else(
            |refusal| answer::refused(&refusal),
            |estimate| dry_run::answer(&estimate, &wanted),
        ));
    }
    if wanted.reply.partials.is_some() {
        return Ok(stream::answer(app, wanted, caller, held).await);
    }
    let twice = idempotency::key(&parts.headers)?;
    let twice = twice.map(|key| ((caller.owner.clone(), key), idempotency::digest(&wanted)));
    let (told, state) = (answer::Told::of(&wanted, app.now_ms()), app.clone());
    let (owner, prompt) = (caller.owner.clone(), wanted.prompt.clone());
    let work = async move {
        let done = gateway.make(wanted, caller, None).await;
        drop(held);
        match done {
            Ok(done) => {
                let took = begun.elapsed();
                gallery::show(&state, &owner, &prompt, &done).await;
                answer::answer(done, &told, took, &state)
            }
            Err(refusal) => answer::refused(&refusal),
        }
    };
    match twice {
        Some((name, digest)) => idempotency::once(app, name, digest, work).await,
        None => Ok(work.await),
    }
}

fn parsed(bytes: &Bytes, boundary: Option<&str>, route: Route) -> Result<ImageRequest, Problem> {
    if let Some(boundary) = boundary {
        let form = form::parse(bytes, boundary);
        let form =
            form.map_err(|wrong| Problem::new(Code::InvalidRequest, format!("The form {wrong}")))?;
        return parse_form(form.texts, form.files, route);
    }
    match json_of(bytes).map_err(|failure| {
        // Of everything that can be wrong with a body, only that it is no JSON has fal's status.
        let told = problem(failure);
        let status = told.status.filter(|status| *status != 422).unwrap_or(400);
        Problem { status: Some(status), ..told }
    })? {
        Value::Object(body) => parse_json(&body, route),
        _ => Err(no_object()),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

//! Answers in OpenAI's shape with Lumenfall's `metadata`, and refusals in the words of both.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Change, ImageRequest, Pixels, Problem};
use zoetrope_gateway::answer::{Answer, Attempt, Picture, Refusal};
use zoetrope_gateway::fresh_id;

use crate::answer::text_answer;
use crate::state::App;

/// OpenAI's clients show it as `_request_id`.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Whether OpenAI's clients may send the same again by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Seconds that a client is told to wait at most: Python's gives up above, JavaScript's sleeps as long as it is told.
const RETRY_AFTER_MS_MAX: u64 = 120_000;
/// Pixels that one token of the transformer covers, in each direction.
const TOKEN_SIDE: u32 = 16;
/// Bytes of a prompt to a token, for people's usage pages: nobody here has the tokenizer.
const BYTES_A_TOKEN: usize = 4;

/// What an answer repeats of its request.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Seconds since 1970.
    created: i64,
    prompt_tokens: usize,
    /// Those of the input pictures are not known here.
    edits: bool,
    quality: Value,
    background: Value,
}

impl Told {
    pub(super) fn of(request: &ImageRequest, now_ms: i64) -> Self {
        let extra = |name: &str, default: &str| {
            request
                .extras
                .get(name)
                .filter(|value| value.is_string())
                .cloned()
                .unwrap_or(default.into())
        };
        Self {
            created: now_ms / 1000,
            prompt_tokens: request.prompt.len().div_ceil(BYTES_A_TOKEN),
            edits: request.edit.is_some(),
            quality: extra("quality", "auto"),
            // No model here makes anything transparent.
            background: "opaque".into(),
        }
    }

    /// The fields that events and answers have in common.
    pub(super) fn common(&self, size: Pixels, format: Format) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("size".into(), size.to_string().into());
        fields.insert("output_format".into(), format.extension().into());
        fields.insert("quality".into(), self.quality.clone());
        fields.insert("background".into(), self.background.clone());
        fields
    }

    /// The prefix of event names.
    pub(super) fn event(&self) -> &'static str {
        if self.edits { "image_edit" } else { "image_generation" }
    }

    pub(super) fn created(&self) -> i64 {
        self.created
    }

    /// Sums that mean something: the prompt's tokens, about, and the transformer's of each picture.
    pub(super) fn usage(&self, sizes: impl Iterator<Item = Pixels>) -> Value {
        let tokens = |size: Pixels| {
            u64::from(size.width.div_ceil(TOKEN_SIDE)) * u64::from(size.height.div_ceil(TOKEN_SIDE))
        };
        let output: u64 = sizes.map(tokens).sum();
        let input = self.prompt_tokens as u64;
        json!({
            "input_tokens": input,
            "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
            "output_tokens": output,
            "total_tokens": input + output,
        })
    }
}

/// The pictures. Megabytes of base64 are moved, not copied.
pub(super) fn answer(done: Answer, told: &Told, took: Duration, app: &App) -> Response {
    let headers = headers_of(&done, took);
    let metadata = metadata(&done, app);
    let sizes: Vec<_> = done.pictures.iter().map(|picture| picture.size).collect();
    let first = done.pictures.first().map(|picture| (picture.size, picture.format));
    let mut body = first.map_or_else(Map::new, |(size, format)| told.common(size, format));
    body.insert("id".into(), done.id.into());
    body.insert("created".into(), told.created.into());
    body.insert("usage".into(), told.usage(sizes.into_iter()));
    body.insert("metadata".into(), metadata);
    body.insert("data".into(), done.pictures.into_iter().map(item).collect());
    let mut response = text_answer(StatusCode::OK, Value::Object(body).to_string());
    response.headers_mut().extend(headers);
    response
}

fn item(picture: Picture) -> Value {
    let mut item = Map::new();
    if let Some(url) = picture.url {
        item.insert("url".into(), url.into());
    }
    if let Some(base64) = picture.base64 {
        item.insert("b64_json".into(), base64.into());
    }
    if let Some(prompt) = picture.revised_prompt {
        item.insert("revised_prompt".into(), prompt.into());
    }
    Value::Object(item)
}

/// What ran, what it cost, and what was made of the parameters.
pub(super) fn metadata(done: &Answer, app: &App) -> Value {
    let catalogue = app.settings.gateway.catalogue();
    let provider = catalogue.providers.get(&done.deployment.provider);
    let (dropped, converted) = changes(&done.changes);
    let first = done.pictures.first();
    json!({
        "model": done.model.id,
        "executed_model": executed(&done.deployment),
        "provider": done.deployment.provider,
        "provider_name": provider.map_or(done.deployment.provider.as_str(), |entry| entry.title.as_str()),
        "cost": done.cost.dollars(),
        "cost_currency": "USD",
        "requested_n": done.requested,
        "seed": first.and_then(|picture| picture.seed),
        "seeds": done.pictures.iter().map(|picture| picture.seed).collect::<Vec<_>>(),
        "width": first.map(|picture| picture.size.width),
        "height": first.map(|picture| picture.size.height),
        "dropped_parameters": dropped,
        "converted_parameters": converted,
        "attempts": attempts(&done.attempts),
    })
}

/// `provider/what it calls the model`.
fn executed(deployment: &zoetrope_gateway::catalogue::Deployment) -> String {
    format!("{}/{}", deployment.provider, deployment.upstream)
}

/// Names of what was left out, and what was changed into what.
pub(super) fn changes(changes: &[Change]) -> (Vec<Value>, Vec<Value>) {
    let (dropped, converted): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| change.to.is_null());
    let dropped = dropped
        .iter()
        .map(|change| json!({"parameter": change.parameter, "reason": change.reason}));
    let converted = converted.iter().map(|change| {
        json!({"parameter": change.parameter, "from": change.from, "to": change.to, "reason": change.reason})
    });
    (dropped.collect(), converted.collect())
}

fn attempts(attempts: &[Attempt]) -> Vec<Value> {
    let shown = |attempt: &Attempt| {
        json!({
            "provider": attempt.deployment.provider,
            "executed_model": executed(&attempt.deployment),
            "status": if attempt.failure.is_some() { "failed" } else { "completed" },
            "error_code": attempt.failure.map(|kind| kind.name()),
            "duration_ms": attempt.duration.as_millis() as u64,
            "cost": attempt.cost.dollars(),
        })
    };
    attempts.iter().map(shown).collect()
}

/// Who made it, what it cost, and how long it took besides.
pub(super) fn headers_of(done: &Answer, took: Duration) -> Vec<(HeaderName, HeaderValue)> {
    let own = took.saturating_sub(done.upstream);
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let timing = format!("gw;dur={:.3}, upstream;dur={:.3}", ms(own), ms(done.upstream));
    let cost = format!("{:.6}", done.cost.dollars());
    let mut headers = ids(&done.id);
    headers.extend(
        [
            header("x-lumenfall-provider", &done.deployment.provider),
            header("x-lumenfall-model", &done.model.id),
            header("x-gateway-cost", &cost),
            header("server-timing", &timing),
        ]
        .into_iter()
        .flatten(),
    );
    headers
}

/// What the request is called, in the words of both.
pub(super) fn ids(id: &str) -> Vec<(HeaderName, HeaderValue)> {
    let ids = [header("x-request-id", id), header("x-lumenfall-request-id", id)];
    ids.into_iter().flatten().collect()
}

fn header(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
}

/// A document, or why there is none.
pub(super) fn rendered(result: Result<Value, Problem>) -> Response {
    match result {
        Ok(body) => text_answer(StatusCode::OK, body.to_string()),
        Err(problem) => refusal(&problem),
    }
}

/// Why there are no pictures, once somebody was asked for them.
pub(crate) fn refused(refusal: &Refusal) -> Response {
    let mut body = refusal.problem.body();
    let Some(last) = refusal.attempts.last() else {
        return told(&refusal.problem, refusal.id.as_deref(), &body);
    };
    body["error"]["metadata"] = json!({"attempts": attempts(&refusal.attempts)});
    let mut response = told(&refusal.problem, refusal.id.as_deref(), &body);
    response.headers_mut().extend(header("x-lumenfall-provider", &last.deployment.provider));
    response
}

/// Why there are no pictures, before anybody was asked for them.
pub(crate) fn refusal(problem: &Problem) -> Response {
    told(problem, None, &problem.body())
}

fn told(problem: &Problem, id: Option<&str>, body: &Value) -> Response {
    let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let id = id.map_or_else(fresh_id, String::from);
    let mut response = text_answer(status, body.to_string());
    let headers = response.headers_mut();
    headers.extend(ids(&id));
    let retry = if problem.should_retry() { "true" } else { "false" };
    headers.insert(SHOULD_RETRY, HeaderValue::from_static(retry));
    if let Some(ms) = problem.retry_after_ms {
        let ms = ms.min(RETRY_AFTER_MS_MAX);
        headers.insert("retry-after-ms", ms.into());
        headers.insert("retry-after", ms.div_ceil(1000).into());
    }
    debug_assert!(headers.contains_key(REQUEST_ID));
    response
}

//! fal's queue: submit, ask how far it is, fetch the result; cancelled when nobody waits any more. Large pictures are uploaded first.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, try_join_all};
use reqwest::Method;
use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Form, Handling, Mode, SizeRule};

use Handling::{Converted, Emulated, Passthrough, Renamed};

use super::http::{ANSWER_BYTES_MAX, Guard, Http, Reply, answer_bytes_max, is_id};
use super::said::Said;
use super::upload::Storage;
use super::{PROMPT_CHARS_MAX, extras, with};
use crate::catalogue::{ConfigError, Deployment, ProviderEntry};
use crate::failure::{Billed, Failure, FailureKind};
use crate::gateway::House;
use crate::price::Bill;
use crate::provider::{Abilities, Call, Outcome, Provider};
use crate::source::Source;

/// Pictures of one request, by its schemas.
const COUNT_MAX: u32 = 4;
/// Pixels of a picture: four million and a little.
const PIXELS_MAX: u64 = 2048 * 2048;
/// The word in front of a key.
const SCHEME: &str = "Key";
/// Characters of a data URI that it takes.
const DATA_URI_CHARACTERS_MAX: usize = 10 << 20;

/// How `z-image/turbo` takes a text.
const TEXT: &[(&str, Handling)] = &[
    ("prompt", Passthrough),
    ("seed", Passthrough),
    ("n", Renamed),
    ("size", Converted),
    ("aspect_ratio", Converted),
    ("resolution", Converted),
    ("width", Converted),
    ("height", Converted),
    ("response_format", Emulated),
    ("output_format", Passthrough),
    ("output_compression", Emulated),
    ("output_quality", Emulated),
    ("num_inference_steps", Passthrough),
    ("acceleration", Passthrough),
    ("enable_prompt_expansion", Passthrough),
    ("enable_safety_checker", Passthrough),
    ("sync_mode", Passthrough),
];

/// How `z-image/turbo/image-to-image` does.
const EDIT: [(&str, Handling); 19] = with(TEXT, [("image", Renamed), ("strength", Passthrough)]);

/// How `z-image/base` does, the one with guidance.
const BASE: [(&str, Handling); 19] =
    with(TEXT, [("negative_prompt", Passthrough), ("cfg_scale", Renamed)]);

/// An account at fal.
pub(super) struct Fal {
    http: Http,
    /// Where what is too large for a request is uploaded, if that is known.
    storage: Option<Storage>,
}

impl Fal {
    pub(super) fn open(entry: &ProviderEntry, house: &House) -> Result<Self, ConfigError> {
        let http = Http::with_key(entry, house, SCHEME)?;
        let storage = entry.upload_url.as_ref();
        let storage = storage.map(|_| Storage::open(entry, house, SCHEME)).transpose()?;
        Ok(Self { http, storage })
    }
}

impl Provider for Fal {
    fn abilities(&self, deployment: &Deployment, mode: Mode) -> Abilities {
        Abilities {
            sizes: SizeRule { multiple: 16, side_min: 64, ..SizeRule::up_to(PIXELS_MAX) },
            count_max: COUNT_MAX,
            formats: &[Format::Png, Format::Jpeg, Format::Webp],
            inputs_max: 1,
            prompt_chars_max: PROMPT_CHARS_MAX,
            partials: false,
            handling: match mode {
                _ if deployment.upstream.contains("/base") => &BASE,
                Mode::TextToImage => TEXT,
                Mode::ImageEdit => &EDIT,
            },
            passes_unknown: true,
            bounds: &[],
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(self.run(call))
    }
}

impl Fal {
    async fn run(&self, call: &Call) -> Result<Outcome, Failure> {
        let abilities = self.abilities(&call.deployment, call.request.mode());
        let image = match call.sources.images.first() {
            Some(image) => Some(self.image_url(image, call).await?),
            None => None,
        };
        let body = body(call, &abilities, image);
        let begun = Instant::now();
        let (id, guard) = self.submit(call, &body).await?;
        let work = work(&call.deployment.upstream, &id);
        self.http.follow(call, begun, || self.done(call, &work)).await?;
        let reply = self.result(call, &work).await;
        if let Some(guard) = guard {
            guard.ended();
        }
        let reply = reply?;
        if !reply.is_success() {
            return Err(self.refused(&reply, call));
        }
        self.outcome(call, &reply).await
    }

    /// `image` as it goes into a body: a data URI is one call less than an upload, and is taken up to a size.
    async fn image_url(&self, image: &Source, call: &Call) -> Result<String, Failure> {
        let uri = format!("data:{};base64,{}", image.content_type, STANDARD.encode(&image.bytes));
        match &self.storage {
            _ if uri.len() <= DATA_URI_CHARACTERS_MAX => Ok(uri),
            Some(storage) => storage.upload(image, call).await,
            None => {
                let most = (DATA_URI_CHARACTERS_MAX / 4 * 3) >> 20;
                let text = format!(
                    "the image is larger than {} takes with a request, which is {most} MiB; the operator can set its `upload_url`",
                    self.http.name()
                );
                let failure = Failure::new(FailureKind::Rejected, text);
                Err(Failure { parameter: Some("image".into()), ..failure })
            }
        }
    }

    /// Puts it into the queue; the request's id there, and what cancels it.
    async fn submit(&self, call: &Call, body: &Value) -> Result<(String, Option<Guard>), Failure> {
        let left = call.deadline.saturating_duration_since(Instant::now());
        let endpoint = call.deployment.upstream.clone();
        let request = self
            .http
            .post(&format!("/{endpoint}"), body)
            // Seconds until it must have begun: nobody waits after that.
            .header("x-fal-request-timeout", left.as_secs().max(1).to_string());
        let cancel = move |http: &Http, reply: &Reply| {
            let path = format!("{}/cancel", work(&endpoint, &id(reply)?));
            Some(http.request(Method::PUT, &path))
        };
        let (reply, guard) =
            self.http.submit(request, ANSWER_BYTES_MAX, call.deadline, cancel).await?;
        if !reply.is_success() {
            return Err(self.refused(&reply, call));
        }
        self.http.json(&reply)?;
        let id =
            id(&reply).ok_or_else(|| self.http.broken("took the request without an id for it"))?;
        Ok((id, guard))
    }

    /// Something once it is done, one way or the other.
    async fn done(&self, call: &Call, work: &str) -> Result<Option<()>, Failure> {
        let request = self.http.request(Method::GET, &format!("{work}/status"));
        let reply = self.http.send(request, ANSWER_BYTES_MAX, call.deadline).await?;
        if !reply.is_success() {
            return Err(self.refused(&reply, call));
        }
        match self.http.json(&reply)?["status"].as_str() {
            Some("COMPLETED") => Ok(Some(())),
            Some("IN_QUEUE" | "IN_PROGRESS") => Ok(None),
            _ => Err(self.http.broken("tells no status of the request")),
        }
    }

    /// The result, of any status. It is there and paid for, so that it is asked for twice.
    async fn result(&self, call: &Call, work: &str) -> Result<Reply, Failure> {
        let fetch = || {
            let request = self.http.request(Method::GET, work);
            self.http.send(request, answer_bytes_max(call.part.count), call.deadline)
        };
        let paid = |failure| Failure { billed: Billed::Maybe, ..failure };
        match fetch().await {
            Err(failure) if failure.kind == FailureKind::TimedOut => Err(paid(failure)),
            Ok(reply) if !matches!(reply.status, 429 | 502..=504) => Ok(reply),
            _ => fetch().await.map_err(paid),
        }
    }

    async fn outcome(&self, call: &Call, reply: &Reply) -> Result<Outcome, Failure> {
        let result = self.http.json(reply)?;
        let flagged = result["has_nsfw_concepts"].as_array();
        if flagged.is_some_and(|flags| flags.iter().any(|flag| flag == true)) {
            let text = format!("{}'s safety checker refused the picture", self.http.name());
            let failure = Failure::new(FailureKind::Policy, text);
            let first_byte = Some(reply.first_byte);
            return Err(Failure { billed: Billed::Yes, first_byte, ..failure });
        }
        let images = result["images"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wanted = call.part.count as usize;
        let urls: Vec<&str> = images.iter().filter_map(|image| image["url"].as_str()).collect();
        if urls.len() < wanted {
            let problem = format!("answers {} pictures of {wanted}", urls.len());
            return Err(self.http.no_image(&problem, reply.first_byte));
        }
        let fetched = urls[..wanted]
            .iter()
            .map(|url| self.http.picture(url, reply.first_byte, call.deadline));
        let mut pictures = try_join_all(fetched).await?;
        let drawn = result["prompt"].as_str().filter(|prompt| *prompt != call.request.prompt);
        let revised = drawn.filter(|_| call.request.prompt_expansion == Some(true));
        for (at, made) in pictures.iter_mut().enumerate() {
            // One number starts them all; only the first is drawn from it alone.
            made.seed = result["seed"].as_u64().filter(|_| at == 0);
            made.revised_prompt = revised.map(String::from);
        }
        Ok(Outcome { pictures, first_byte: reply.first_byte, bill: bill(reply) })
    }

    /// By the types of its errors, which say more than their status.
    fn refused(&self, reply: &Reply, call: &Call) -> Failure {
        let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let detail = &value["detail"][0];
        let kind = detail["type"].as_str().or_else(|| value["error_type"].as_str());
        let kind = kind.or_else(|| reply.header("x-fal-error-type")).map(String::from);
        let said = Said {
            code: kind.clone(),
            parameter: detail["loc"]
                .as_array()
                .and_then(|loc| loc.iter().rev().find_map(Value::as_str))
                .map(|field| canonical(field).into()),
            ..Said::read(&reply.body)
        };
        let kind = match kind.as_deref() {
            Some("content_policy_violation") => FailureKind::Policy,
            Some("no_media_generated") => FailureKind::NoImage,
            Some("request_timeout" | "startup_timeout" | "generation_timeout") => {
                FailureKind::TimedOut
            }
            Some("downstream_service_error") => FailureKind::Broken,
            Some("client_cancelled" | "client_disconnected") => FailureKind::Cancelled,
            _ => return self.http.refused(reply, said, call),
        };
        self.http.failed(kind, reply, said, call)
    }
}

/// The endpoint's fields; `image` is the address that an edit starts from.
fn body(call: &Call, abilities: &Abilities, image: Option<String>) -> Value {
    let request = &call.request;
    let mut body = extras(call, abilities);
    let mut set = |name: &str, value: Value| drop(body.insert(name.into(), value));
    set("prompt", json!(request.prompt));
    set("image_size", json!({"width": call.size.width, "height": call.size.height}));
    set("num_images", json!(call.part.count));
    set("output_format", json!(call.ask.format.extension()));
    if let Some(seed) = call.part.seed {
        set("seed", json!(seed));
    }
    if let Some(steps) = request.steps {
        set("num_inference_steps", json!(steps));
    }
    if let Some(level) = request.acceleration {
        set("acceleration", json!(level));
    }
    if let Some(flag) = request.prompt_expansion {
        set("enable_prompt_expansion", json!(flag));
    }
    if let Some(flag) = request.safety_checker {
        set("enable_safety_checker", json!(flag));
    }
    if request.given.iter().any(|name| name == "sync_mode") {
        set("sync_mode", json!(request.reply.form == Form::DataUri));
    }
    if abilities.handling("cfg_scale").is_some()
        && let Some(scale) = request.guidance_scale
    {
        set("guidance_scale", json!(scale));
    }
    if abilities.handling("negative_prompt").is_some()
        && let Some(text) = &request.negative_prompt
    {
        set("negative_prompt", json!(text));
    }
    if let Some(url) = image {
        set("image_url", json!(url));
    }
    if let Some(strength) = request.edit.as_ref().and_then(|edit| edit.strength) {
        set("strength", json!(strength));
    }
    Value::Object(body)
}

/// What a request is called in the answer to its submission.
fn id(reply: &Reply) -> Option<String> {
    let answer: Value = serde_json::from_slice(&reply.body).ok()?;
    answer["request_id"].as_str().filter(|id| is_id(id)).map(String::from)
}

/// Where a request of `endpoint` is asked about, whatever addresses the answer has: ours is the key that goes there.
fn work(endpoint: &str, id: &str) -> String {
    format!("/{}/requests/{id}", application(endpoint))
}

/// Owner and alias, behind a namespace if there is one: everything after submission is asked there.
fn application(endpoint: &str) -> &str {
    let namespaced = endpoint.starts_with("workflows/") || endpoint.starts_with("comfy/");
    let parts = if namespaced { 3 } else { 2 };
    let end = endpoint.match_indices('/').nth(parts - 1);
    end.map_or(endpoint, |(at, _)| &endpoint[..at])
}

/// Our name of a field.
fn canonical(field: &str) -> &str {
    match field {
        "image_size" | "width" | "height" => "size",
        "num_images" => "n",
        "image_url" => "image",
        "guidance_scale" => "cfg_scale",
        field => field,
    }
}

/// Units of the endpoint's own price.
fn bill(reply: &Reply) -> Bill {
    let units = reply.header("x-fal-billable-units").and_then(|text| text.parse::<f64>().ok());
    match units.map(|units| (units * 1e6).round()) {
        Some(millionths) if (0.0..1e15).contains(&millionths) => Bill::Units(millionths as u64),
        _ => Bill::Unsaid,
    }
}

/// For the test of all tables.
#[cfg(test)]
pub(super) fn tables() -> Vec<&'static [(&'static str, Handling)]> {
    vec![TEXT, &EDIT, &BASE]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_submitted_is_asked_for_at_owner_and_alias() {
        let cases = [
            ("fal-ai/z-image/turbo/lora", "fal-ai/z-image"),
            ("fal-ai/z-image", "fal-ai/z-image"),
            ("workflows/me/mine/x", "workflows/me/mine"),
            ("comfy/me/mine", "comfy/me/mine"),
        ];
        for (endpoint, want) in cases {
            assert_eq!(application(endpoint), want);
        }
    }
}

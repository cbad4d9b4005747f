//! OpenAI's Images API, whoever serves it: OpenAI itself with its own models, or a server of the same form with others.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zoetrope_api::images::{COUNT_MAX, Handling, INPUTS_MAX, Mode, Pixels, SizeRule};
use zoetrope_api::{Format, Micros};
use zoetrope_files::Limits;

use Handling::{Converted, Emulated, Passthrough, Renamed};

use super::form::Form;
use super::http::{Http, Reply, answer_bytes_max};
use super::said::Said;
use super::{PROMPT_CHARS_MAX, extras, with};
use crate::catalogue::{ConfigError, Deployment, ProviderEntry};
use crate::failure::{Failure, FailureKind};
use crate::gateway::House;
use crate::price::Bill;
use crate::provider::{Abilities, Call, Made, Outcome, Provider};
use crate::source::Source;

/// OpenAI's first models draw these and nothing else.
const FIRST_SIZES: &[Pixels] =
    &[Pixels::new(1024, 1024), Pixels::new(1536, 1024), Pixels::new(1024, 1536)];

/// Types of pictures that OpenAI takes, and so everybody who does as it does.
const INPUTS: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

/// How OpenAI's own models take what both routes have.
const OWN: &[(&str, Handling)] = &[
    ("prompt", Passthrough),
    ("n", Passthrough),
    ("size", Converted),
    ("aspect_ratio", Converted),
    ("resolution", Converted),
    ("width", Converted),
    ("height", Converted),
    ("response_format", Emulated),
    ("output_format", Passthrough),
    ("output_compression", Passthrough),
    ("output_quality", Renamed),
    ("quality", Converted),
    ("background", Passthrough),
    ("sync_mode", Emulated),
];

/// How they take a text.
const OWN_TEXT: [(&str, Handling); 15] = with(OWN, [("moderation", Passthrough)]);
/// How they take pictures.
const OWN_EDIT: [(&str, Handling); 17] =
    with(OWN, [("image", Passthrough), ("mask", Passthrough), ("input_fidelity", Passthrough)]);

/// How servers of the same form take everything that is not OpenAI's own: by the names that most of them have, and each may
/// ignore what it does not know.
const OTHERS: &[(&str, Handling)] = &[
    ("prompt", Passthrough),
    ("negative_prompt", Passthrough),
    ("seed", Passthrough),
    ("n", Emulated),
    ("size", Converted),
    ("aspect_ratio", Converted),
    ("resolution", Converted),
    ("width", Converted),
    ("height", Converted),
    ("image", Passthrough),
    ("mask", Passthrough),
    ("strength", Passthrough),
    ("response_format", Emulated),
    ("output_format", Emulated),
    ("output_compression", Emulated),
    ("output_quality", Emulated),
    ("cfg_scale", Renamed),
    ("num_inference_steps", Passthrough),
    ("quality", Passthrough),
    ("style", Passthrough),
    ("background", Passthrough),
    ("sync_mode", Emulated),
];

/// A server with OpenAI's Images API.
pub(super) struct OpenAi(Images);

/// Its two routes, which another Zoetrope has too.
pub(super) struct Images {
    pub(super) http: Http,
    /// In front of `/images/…`.
    pub(super) prefix: &'static str,
    /// Types of pictures that an edit may start from, as `image/png`; others become the first of these. Empty: any.
    pub(super) inputs: &'static [&'static str],
    pub(super) chance: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl OpenAi {
    /// Its address ends in `/v1`, as clients of OpenAI have it.
    pub(super) fn open(entry: &ProviderEntry, house: &House) -> Result<Self, ConfigError> {
        let http = Http::open(entry, house, "Bearer")?;
        let chance = house.chance.clone();
        Ok(Self(Images { http, prefix: "", inputs: &INPUTS, chance }))
    }
}

impl Provider for OpenAi {
    fn abilities(&self, deployment: &Deployment, mode: Mode) -> Abilities {
        let own = is_own(&deployment.upstream);
        Abilities {
            sizes: sizes(&deployment.upstream),
            // Not everybody heeds `n`, and fewer pictures than were asked for would be lost.
            count_max: if own { COUNT_MAX } else { 1 },
            formats: match own {
                true => &[Format::Png, Format::Jpeg, Format::Webp],
                false => &[Format::Png],
            },
            inputs_max: INPUTS_MAX,
            prompt_chars_max: PROMPT_CHARS_MAX,
            partials: false,
            handling: match (own, mode) {
                (false, _) => OTHERS,
                (true, Mode::TextToImage) => &OWN_TEXT,
                (true, Mode::ImageEdit) => &OWN_EDIT,
            },
            passes_unknown: true,
            bounds: &[],
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let abilities = self.abilities(&call.deployment, call.request.mode());
            let (reply, answer) = self.0.ask(call, fields(call, &abilities), None).await?;
            let pictures = self.0.pictures(call, &reply, answer).await?;
            Ok(Outcome { pictures, first_byte: reply.first_byte, bill: Bill::Unsaid })
        })
    }
}

/// An answer of success, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    data: Vec<Item>,
    /// Of a failure, whatever the status.
    #[serde(default)]
    error: Value,
    /// What another Zoetrope adds.
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Deserialize)]
struct Item {
    b64_json: Option<String>,
    url: Option<String>,
    revised_prompt: Option<String>,
}

/// What another Zoetrope adds, as far as it is read.
#[derive(Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    cost: Value,
    #[serde(default)]
    cost_currency: Value,
    #[serde(default)]
    seed: Value,
}

impl Metadata {
    /// In dollars, where it says so.
    pub(super) fn bill(&self) -> Bill {
        let in_dollars = self.cost_currency.as_str().is_none_or(|currency| currency == "USD");
        let cost = self.cost.as_f64().filter(|cost| in_dollars && *cost >= 0.0);
        cost.and_then(Micros::of_dollars).map_or(Bill::Unsaid, Bill::Amount)
    }

    /// Of the first picture.
    pub(super) fn seed(&self) -> Option<u64> {
        self.seed.as_u64()
    }
}

impl Images {
    /// Asks for pictures: in JSON, or as a form where there are pictures to start from.
    pub(super) async fn ask(
        &self,
        call: &Call,
        fields: Map<String, Value>,
        trace: Option<&str>,
    ) -> Result<(Reply, Answer), Failure> {
        let request = match call.request.mode() {
            Mode::TextToImage => {
                let path = format!("{}/images/generations", self.prefix);
                self.http.post(&path, &Value::Object(fields))
            }
            Mode::ImageEdit => {
                let (content_type, body) = self.form(call, &fields).await?;
                let path = format!("{}/images/edits", self.prefix);
                let request = self.http.request(Method::POST, &path);
                request.header(CONTENT_TYPE, content_type).body(body)
            }
        };
        let request = match trace {
            Some(trace) => request.header("traceparent", trace),
            None => request,
        };
        let bytes_max = answer_bytes_max(call.part.count);
        let reply = self.http.send(request, bytes_max, call.deadline).await?;
        if !reply.is_success() {
            return Err(self.refused(&reply, call));
        }
        let answer: Answer = serde_json::from_slice(&reply.body).map_err(|_| Failure {
            status: Some(reply.status),
            first_byte: Some(reply.first_byte),
            ..self.http.broken("answers with what is no list of pictures")
        })?;
        match answer.error.is_null() {
            true => Ok((reply, answer)),
            // Servers have been seen to answer errors with a status of success.
            false => Err(self.refused(&reply, call)),
        }
    }

    /// Fields first: servers may read the files as they come.
    async fn form(
        &self,
        call: &Call,
        fields: &Map<String, Value>,
    ) -> Result<(String, Bytes), Failure> {
        let mut form = Form::new(&*self.chance);
        for (name, value) in fields {
            form.field(name, value);
        }
        let images = &call.sources.images;
        let name = if images.len() == 1 { "image" } else { "image[]" };
        for image in images {
            let (content_type, bytes) = self.input(image).await?;
            form.file(name, content_type, &bytes);
        }
        if let Some(mask) = &call.sources.mask {
            form.file("mask", mask.content_type, &mask.bytes);
        }
        Ok(form.end())
    }

    /// `image` as it is sent: as it is, or as a PNG where its type is not taken.
    async fn input(&self, image: &Source) -> Result<(&'static str, Bytes), Failure> {
        let Source { bytes, content_type, .. } = image.clone();
        if self.inputs.is_empty() || self.inputs.contains(&content_type) {
            return Ok((content_type, bytes));
        }
        let made = tokio::task::spawn_blocking(move || {
            let limits = Limits { bytes_max: bytes.len() as u64, ..Limits::default() };
            let picture = zoetrope_files::decode(&bytes, &limits)?.picture;
            zoetrope_files::encode(&picture, zoetrope_files::Format::Png, None)
        });
        match made.await {
            Ok(Ok(png)) => Ok((INPUTS[0], png.into())),
            Ok(Err(error)) => {
                let text = format!("Invalid image file provided: the file {error}");
                let failure = Failure::new(FailureKind::Rejected, text);
                Err(Failure { parameter: Some("image".into()), ..failure })
            }
            Err(_) => Err(Failure::new(FailureKind::Rejected, "the image could not be converted")),
        }
    }

    /// The pictures of an answer, all of them.
    pub(super) async fn pictures(
        &self,
        call: &Call,
        reply: &Reply,
        Answer { data, .. }: Answer,
    ) -> Result<Vec<Made>, Failure> {
        let wanted = call.part.count as usize;
        if data.len() < wanted {
            let problem = format!("answers {} pictures of {wanted}", data.len());
            return Err(self.http.no_image(&problem, reply.first_byte));
        }
        let items = data.into_iter().take(wanted);
        try_join_all(items.map(|item| self.picture(call, reply, item))).await
    }

    /// Base64 where there is any: an address besides may be of the inside there.
    async fn picture(&self, call: &Call, reply: &Reply, item: Item) -> Result<Made, Failure> {
        let made = match (item.b64_json, item.url) {
            (Some(text), _) => self.http.base64(text, reply.first_byte)?,
            (None, Some(url)) => self.http.picture(&url, reply.first_byte, call.deadline).await?,
            (None, None) => {
                return Err(self.http.no_image("answers without a picture", reply.first_byte));
            }
        };
        Ok(Made { revised_prompt: item.revised_prompt, ..made })
    }

    /// By its codes, which say more than their status.
    fn refused(&self, reply: &Reply, call: &Call) -> Failure {
        let said = Said::read(&reply.body);
        let kind = match said.code.as_deref().unwrap_or_default() {
            "content_policy_violation" | "moderation_blocked" | "CONTENT_POLICY_VIOLATION" => {
                FailureKind::Policy
            }
            "insufficient_quota"
            | "billing_hard_limit_reached"
            | "INSUFFICIENT_BALANCE"
            | "invalid_api_key"
            | "AUTHENTICATION_FAILED"
            | "PERMISSION_DENIED" => FailureKind::Configuration,
            "model_not_found" | "MODEL_NOT_FOUND" | "MODEL_DISABLED" => FailureKind::Gone,
            "UNAVAILABLE" => FailureKind::Busy,
            _ if reply.is_success() => FailureKind::Broken,
            _ => return self.http.refused(reply, said, call),
        };
        self.http.failed(kind, reply, said, call)
    }
}

/// Whether `model` is one of OpenAI's own, which take other parameters than everybody else's.
fn is_own(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.starts_with("gpt-image") || name.starts_with("chatgpt-image")
}

fn sizes(model: &str) -> SizeRule {
    let name = model.rsplit('/').next().unwrap_or(model);
    let sixteen = SizeRule { multiple: 16, side_min: 64, ..SizeRule::up_to(2048 * 2048) };
    match name {
        _ if name.starts_with("gpt-image-1") => {
            SizeRule { only: FIRST_SIZES, ..SizeRule::up_to(u64::MAX) }
        }
        _ if is_own(name) => SizeRule { side_max: 3840, pixels_max: 3840 * 2160, ..sixteen },
        _ => SizeRule { side_max: 2048, ..sixteen },
    }
}

/// The fields of either route.
fn fields(call: &Call, abilities: &Abilities) -> Map<String, Value> {
    let (request, own) = (&call.request, is_own(&call.deployment.upstream));
    let mut fields = extras(call, abilities);
    if own && let Some(quality) = fields.get_mut("quality") {
        // DALL·E's words for it.
        match quality.as_str() {
            Some("standard") => *quality = json!("medium"),
            Some("hd") => *quality = json!("high"),
            _ => {}
        }
    }
    let mut set = |name: &str, value: Value| drop(fields.insert(name.into(), value));
    set("model", json!(call.deployment.upstream));
    set("prompt", json!(request.prompt));
    set("n", json!(call.part.count));
    set("size", json!(call.size.to_string()));
    if own {
        // Always base64, and a word about it is an error.
        set("output_format", json!(call.ask.format.extension()));
        if let Some(quality) = call.ask.quality {
            set("output_compression", json!(quality));
        }
        return fields;
    }
    set("response_format", json!("b64_json"));
    if let Some(seed) = call.part.seed {
        set("seed", json!(seed));
    }
    if let Some(text) = &request.negative_prompt {
        set("negative_prompt", json!(text));
    }
    if let Some(steps) = request.steps {
        set("num_inference_steps", json!(steps));
    }
    if let Some(scale) = request.guidance_scale {
        set("guidance_scale", json!(scale));
    }
    if let Some(strength) = request.edit.as_ref().and_then(|edit| edit.strength) {
        set("strength", json!(strength));
    }
    fields
}

/// For the test of all tables.
#[cfg(test)]
pub(super) fn tables() -> Vec<&'static [(&'static str, Handling)]> {
    vec![&OWN_TEXT, &OWN_EDIT, OTHERS]
}

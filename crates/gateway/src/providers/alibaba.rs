//! Alibaba Model Studio, also called DashScope: one call that waits for its picture.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Handling, Mode, SizeRule};

use Handling::{Converted, Emulated, Renamed};

use super::extras;
use super::http::{ANSWER_BYTES_MAX, Http, Reply};
use super::said::Said;
use crate::catalogue::{ConfigError, Deployment, ProviderEntry};
use crate::failure::{Failure, FailureKind};
use crate::gateway::House;
use crate::price::Bill;
use crate::provider::{Abilities, Beyond, Bound, Call, Outcome, Provider};

const PATH: &str = "/api/v1/services/aigc/multimodal-generation/generation";
/// Characters of a prompt; a sibling of the model cuts longer ones without a word.
const PROMPT_CHARS_MAX: usize = 800;

const TEXT: &[(&str, Handling)] = &[
    ("prompt", Renamed),
    ("seed", Converted),
    ("n", Emulated),
    ("size", Converted),
    ("aspect_ratio", Converted),
    ("resolution", Converted),
    ("width", Converted),
    ("height", Converted),
    ("response_format", Emulated),
    ("output_format", Emulated),
    ("output_compression", Emulated),
    ("output_quality", Emulated),
    ("enable_prompt_expansion", Renamed),
    ("sync_mode", Emulated),
];

const BOUNDS: &[Bound] =
    &[Bound { parameter: "seed", least: 0, most: i32::MAX as u64, beyond: Beyond::Rest }];

/// An account at Alibaba Cloud.
pub(super) struct Alibaba(Http);

impl Alibaba {
    pub(super) fn open(entry: &ProviderEntry, house: &House) -> Result<Self, ConfigError> {
        Ok(Self(Http::with_key(entry, house, "Bearer")?))
    }
}

impl Provider for Alibaba {
    fn abilities(&self, _: &Deployment, _: Mode) -> Abilities {
        Abilities {
            sizes: SizeRule {
                multiple: 16,
                side_min: 64,
                side_max: 4096,
                pixels_min: 512 * 512,
                pixels_max: 2048 * 2048,
                only: &[],
            },
            count_max: 1,
            formats: &[Format::Png],
            inputs_max: 0,
            prompt_chars_max: PROMPT_CHARS_MAX,
            partials: false,
            handling: TEXT,
            passes_unknown: true,
            bounds: BOUNDS,
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(self.run(call))
    }
}

impl Alibaba {
    async fn run(&self, call: &Call) -> Result<Outcome, Failure> {
        let abilities = self.abilities(&call.deployment, call.request.mode());
        let request = self.0.post(PATH, &body(call, &abilities));
        let reply = self.0.send(request, ANSWER_BYTES_MAX, call.deadline).await?;
        if !reply.is_success() {
            return Err(self.refused(&reply, call));
        }
        let answer = self.0.json(&reply)?;
        let message = &answer["output"]["choices"][0]["message"];
        let content = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(url) = content.iter().find_map(|item| item["image"].as_str()) else {
            // Errors have been seen with a status of success.
            return Err(match answer["code"].as_str() {
                Some(_) => self.refused(&reply, call),
                None => self.0.no_image("answers without a picture", reply.first_byte),
            });
        };
        let mut made = self.0.picture(url, reply.first_byte, call.deadline).await?;
        made.seed = call.part.seed;
        if call.request.prompt_expansion == Some(true) {
            let drawn = content.iter().find_map(|item| item["text"].as_str());
            made.revised_prompt = drawn.map(String::from);
        }
        Ok(Outcome { pictures: vec![made], first_byte: reply.first_byte, bill: Bill::Unsaid })
    }

    /// By its codes, which say more than their status.
    fn refused(&self, reply: &Reply, call: &Call) -> Failure {
        let said = Said::read(&reply.body);
        let kind = match said.code.as_deref().unwrap_or_default() {
            "DataInspectionFailed" => FailureKind::Policy,
            "Arrearage" | "InvalidApiKey" | "Model.AccessDenied" => FailureKind::Configuration,
            code if code.starts_with("AllocationQuota") => FailureKind::Configuration,
            code if code.starts_with("Throttling") => FailureKind::Throttled,
            code if code.starts_with("InternalError") => FailureKind::Broken,
            "ModelNotFound" => FailureKind::Gone,
            "InvalidParameter" | "UnsupportedOperation" | "InvalidURL" => FailureKind::Rejected,
            code if code.starts_with("BadRequest") => FailureKind::Rejected,
            _ => return self.0.refused(reply, said, call),
        };
        self.0.failed(kind, reply, said, call)
    }
}

/// One message with one text. The size is always sent: its default is not square.
fn body(call: &Call, abilities: &Abilities) -> Value {
    let mut parameters = extras(call, abilities);
    let mut set = |name: &str, value: Value| drop(parameters.insert(name.into(), value));
    set("size", json!(format!("{}*{}", call.size.width, call.size.height)));
    // It costs double: said, whatever their default becomes.
    set("prompt_extend", json!(call.request.prompt_expansion == Some(true)));
    if let Some(seed) = call.part.seed {
        set("seed", json!(seed));
    }
    json!({
        "model": call.deployment.upstream,
        "input": {"messages": [{"role": "user", "content": [{"text": call.request.prompt}]}]},
        "parameters": parameters,
    })
}

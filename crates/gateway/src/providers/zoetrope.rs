//! Another Zoetrope: our own API on another machine, which cancels what nobody waits for by itself.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{COUNT_MAX, Handling, INPUTS_MAX, Mode, SizeRule};

use Handling::{Native, Renamed};

use super::http::Http;
use super::openai::Images;
use super::{PROMPT_CHARS_MAX, extras, with};
use crate::catalogue::{ConfigError, Deployment, ProviderEntry};
use crate::failure::Failure;
use crate::gateway::House;
use crate::provider::{Abilities, Call, Outcome, Provider};

/// Its largest pictures, unless its model draws fewer.
const PIXELS_MAX: u64 = 2048 * 2048;

/// What it cannot do with its own providers it tells itself.
const TEXT: &[(&str, Handling)] = &[
    ("prompt", Native),
    ("negative_prompt", Native),
    ("seed", Native),
    ("n", Native),
    ("size", Native),
    ("aspect_ratio", Native),
    ("resolution", Native),
    ("width", Native),
    ("height", Native),
    ("response_format", Native),
    ("output_format", Native),
    ("output_compression", Native),
    ("output_quality", Renamed),
    ("cfg_scale", Native),
    ("acceleration", Native),
    ("enable_prompt_expansion", Native),
    ("enable_safety_checker", Native),
    ("go_fast", Native),
    ("num_inference_steps", Native),
    ("sampler", Native),
    ("sigmas", Native),
    ("variation_seed", Native),
    ("variation_strength", Native),
    ("prompt_weighting", Native),
    ("sync_mode", Native),
];

/// The same with pictures.
const EDIT: [(&str, Handling); 28] =
    with(TEXT, [("image", Native), ("mask", Native), ("strength", Native)]);

/// Another machine.
pub(super) struct Zoetrope(Images);

impl Zoetrope {
    pub(super) fn open(entry: &ProviderEntry, house: &House) -> Result<Self, ConfigError> {
        let http = Http::open(entry, house, "Bearer")?;
        let chance = house.chance.clone();
        Ok(Self(Images { http, prefix: "/v1", inputs: &[], chance }))
    }
}

impl Provider for Zoetrope {
    fn abilities(&self, _: &Deployment, mode: Mode) -> Abilities {
        Abilities {
            sizes: SizeRule::up_to(PIXELS_MAX),
            count_max: COUNT_MAX,
            formats: &Format::ALL,
            inputs_max: INPUTS_MAX,
            prompt_chars_max: PROMPT_CHARS_MAX,
            partials: false,
            handling: match mode {
                Mode::TextToImage => TEXT,
                Mode::ImageEdit => &EDIT,
            },
            passes_unknown: true,
            bounds: &[],
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let abilities = self.abilities(&call.deployment, call.request.mode());
            let fields = fields(call, &abilities);
            let trace = call.caller.trace.as_deref();
            let (reply, answer) = self.0.ask(call, fields, trace).await?;
            let (bill, seed) = (answer.metadata.bill(), answer.metadata.seed());
            let mut pictures = self.0.pictures(call, &reply, answer).await?;
            for (at, made) in (0..).zip(&mut pictures) {
                made.seed = seed.or(call.part.seed).map(|seed| seed.wrapping_add(at));
            }
            Ok(Outcome { pictures, first_byte: reply.first_byte, bill })
        })
    }
}

/// Our own names.
fn fields(call: &Call, abilities: &Abilities) -> Map<String, Value> {
    let request = &call.request;
    let controls = call.controls();
    let sent = |name: &str| request.given.iter().any(|given| given == name);
    let mut fields = extras(call, abilities);
    let known = [
        ("seed", call.part.seed.map(|seed| json!(seed))),
        ("negative_prompt", request.negative_prompt.as_ref().map(|text| json!(text))),
        ("num_inference_steps", request.steps.map(|steps| json!(steps))),
        ("cfg_scale", request.guidance_scale.map(|scale| json!(scale))),
        ("acceleration", request.acceleration.map(|level| json!(level))),
        ("go_fast", request.go_fast.map(|flag| json!(flag))),
        ("enable_prompt_expansion", request.prompt_expansion.map(|flag| json!(flag))),
        ("enable_safety_checker", request.safety_checker.map(|flag| json!(flag))),
        ("sampler", sent("sampler").then(|| json!(controls.sampler))),
        ("sigmas", controls.sigmas.as_ref().map(|sigmas| json!(sigmas))),
        ("variation_seed", controls.variation.map(|variation| json!(variation.seed))),
        ("variation_strength", controls.variation.map(|variation| json!(variation.strength))),
        ("prompt_weighting", sent("prompt_weighting").then(|| json!(controls.prompt_weighting))),
        ("strength", request.edit.as_ref().and_then(|edit| edit.strength).map(|s| json!(s))),
        ("output_compression", call.ask.quality.map(|quality| json!(quality))),
        ("model", Some(json!(call.deployment.upstream))),
        ("prompt", Some(json!(request.prompt))),
        ("n", Some(json!(call.part.count))),
        ("size", Some(json!(call.size.to_string()))),
        ("output_format", Some(json!(call.ask.format.extension()))),
        // Not by address: that would be kept there, and fetched from there.
        ("response_format", Some(json!("b64_json"))),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
    fields.extend(known);
    fields
}

/// For the test of all tables.
#[cfg(test)]
pub(super) fn tables() -> Vec<&'static [(&'static str, Handling)]> {
    vec![TEXT, &EDIT]
}

//! Which parameters of a request do not reach a provider as they were sent, and why.

use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Change, Finish, Fit, ImageRequest, Parameter, SizeWish, Tier};

use crate::provider::Abilities;

/// What the gateway does itself, whoever makes the pictures.
const OURS: &[&str] = &[
    "model",
    "prompt",
    "n",
    "size",
    "aspect_ratio",
    "resolution",
    "width",
    "height",
    "image",
    "images",
    "image_url",
    "response_format",
    "output_format",
    "output_compression",
    "output_quality",
    "stream",
    // A stream may show fewer than it was asked for, or none.
    "partial_images",
    "strict",
    "sync_mode",
    "user",
];

/// Names under which a size is sent, the most telling first.
const SIZES: [&str; 5] = ["size", "aspect_ratio", "resolution", "width", "height"];

/// Characters of a value that are repeated.
const SHOWN_MAX: usize = 80;

/// What is dropped or changed of `request` for a provider that has `abilities`, in the order in which it was sent; `format` is
/// that of the files that the caller gets.
pub(crate) fn of(
    request: &ImageRequest,
    abilities: &Abilities,
    fit: &Fit,
    format: Format,
) -> Vec<Change> {
    let of = |name: &String| match name.as_str() {
        name if SIZES.contains(&name) => size(request, fit, name),
        "output_compression" | "output_quality" if !format.takes_quality() => {
            let reason = format!("{} has no quality", format.extension());
            Some(Change::dropped(name, sent(request, name), reason))
        }
        name if is_ours(name) => None,
        name if !is_taken(abilities, name) => {
            let reason = match Parameter::named(name) {
                Some(_) => "the provider has nothing like it",
                None => "nobody knows a parameter of this name",
            };
            Some(Change::dropped(name, sent(request, name), reason))
        }
        name => bounded(request, abilities, name),
    };
    request.given.iter().filter_map(of).collect()
}

/// Whether the gateway does what the parameter called `name` says itself.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.contains(&name)
}

/// Whether somebody heeds the parameter called `name`: the provider, or the gateway in its place.
fn is_taken(abilities: &Abilities, name: &str) -> bool {
    let unknown = Parameter::named(name).is_none();
    abilities.handling(name).is_some() || (unknown && abilities.passes_unknown)
}

/// The name under which the size of `request` was sent, if it was.
pub(crate) fn size_parameter(request: &ImageRequest) -> Option<&'static str> {
    SIZES.into_iter().find(|name| request.given.iter().any(|given| given == name))
}

/// Whether the flag called `name` is set.
pub(crate) fn flag(request: &ImageRequest, name: &str) -> bool {
    let set = match name {
        "enable_prompt_expansion" => request.prompt_expansion,
        "enable_safety_checker" => request.safety_checker,
        "go_fast" => request.go_fast,
        _ => request.extras.get(name).and_then(Value::as_bool),
    };
    set == Some(true)
}

/// Pixels are no change: only a shape that became pixels, or pixels that are made from others.
fn size(request: &ImageRequest, fit: &Fit, name: &str) -> Option<Change> {
    let change = |from: String, to: String, reason: String| {
        Some(Change { parameter: name.into(), from: json!(from), to: json!(to), reason })
    };
    let given = fit.given.to_string();
    match (request.size, name) {
        (SizeWish::Exactly(wanted), _) if size_parameter(request) == Some(name) => {
            let how = match fit.finish {
                Finish::None => return None,
                Finish::Crop => "cut",
                Finish::Resize => "made smaller",
            };
            let reason = format!("drawn at {} and {how} to {given}", fit.made);
            change(wanted.to_string(), fit.made.to_string(), reason)
        }
        (SizeWish::Shape { ratio: Some(ratio), .. }, "size" | "aspect_ratio") => {
            let reason = "the nearest size that the provider makes".into();
            change(ratio.to_string(), given, reason)
        }
        (SizeWish::Shape { tier: Some(tier), .. }, "size" | "resolution") => {
            let reason = match tier {
                Tier::Four => "more than the model makes: cut to its most",
                _ => "the nearest size that the provider makes",
            };
            change(tier.name().into(), given, reason.into())
        }
        _ => None,
    }
}

/// A number of which the provider takes fewer.
fn bounded(request: &ImageRequest, abilities: &Abilities, name: &str) -> Option<Change> {
    let value = match name {
        "seed" => request.seed?,
        "num_inference_steps" => u64::from(request.steps?),
        _ => return None,
    };
    let used = abilities.bounded(name, value);
    (used != value).then(|| Change {
        parameter: name.into(),
        from: json!(value),
        to: json!(used),
        reason: "beyond what the provider takes".into(),
    })
}

/// The value of the parameter called `name`, as it was sent but for its length.
fn sent(request: &ImageRequest, name: &str) -> Value {
    let edit = request.edit.as_ref();
    let value = match name {
        "seed" => json!(request.seed),
        "negative_prompt" => json!(request.negative_prompt),
        "mask" => json!("a picture"),
        "strength" => json!(edit.and_then(|edit| edit.strength)),
        "cfg_scale" => json!(request.guidance_scale),
        "num_inference_steps" => json!(request.steps),
        "acceleration" => json!(request.acceleration),
        "go_fast" => json!(request.go_fast),
        "enable_prompt_expansion" => json!(request.prompt_expansion),
        "enable_safety_checker" => json!(request.safety_checker),
        "output_compression" | "output_quality" => json!(request.quality),
        "sampler" => json!(request.controls.sampler),
        "sigmas" => json!(request.controls.sigmas),
        "variation_seed" => json!(request.controls.variation.map(|variation| variation.seed)),
        "variation_strength" => {
            json!(request.controls.variation.map(|variation| variation.strength))
        }
        "prompt_weighting" => json!(request.controls.prompt_weighting),
        name => request.extras.get(name).cloned().unwrap_or_default(),
    };
    match &value {
        Value::String(text) => short(text).map_or(value.clone(), Value::String),
        Value::Array(_) | Value::Object(_) => {
            short(&value.to_string()).map_or(value, Value::String)
        }
        _ => value,
    }
}

/// The beginning of a text that is too long to repeat.
fn short(text: &str) -> Option<String> {
    let (end, _) = text.char_indices().nth(SHOWN_MAX)?;
    Some(format!("{}…", &text[..end]))
}

//! What a model takes, compiled from the table of parameters and from what its providers do with them: one sheet, of which
//! `?schema=true` is the JSON and `llms.txt` the text.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::about::{About, Example};
use super::handling::Handling;
use super::parameter::{Group, Kind, PARAMETERS, Parameter, Scope, Support};
use super::request::Mode;

/// A model as documents show it.
#[derive(Clone, Debug, Serialize)]
pub struct ModelSheet {
    /// Its slug.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: i64,
    /// Who made it.
    pub owned_by: String,
    /// As people write it.
    pub name: String,
    /// One line.
    pub description: String,
    /// As `z-image`.
    pub family: String,
    /// `active` or `disabled`.
    pub status: &'static str,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The largest picture, as `2048x2048`.
    pub max_resolution: String,
    /// What goes in and what comes out.
    pub modalities: Modalities,
    /// What it does, over all its providers.
    pub modes: Vec<&'static str>,
    /// What people say about it.
    pub about: About,
    /// Prompts that show what it does.
    pub examples: Vec<Example>,
    /// What it takes.
    pub schema: Schema,
    /// Who serves it.
    pub providers: Vec<ProviderSheet>,
}

/// What goes in and what comes out.
#[derive(Clone, Debug, Serialize)]
pub struct Modalities {
    /// `text`, and `image` where it edits.
    pub input: Vec<&'static str>,
    /// `image`.
    pub output: Vec<&'static str>,
}

/// The compiled parameters.
#[derive(Clone, Debug, Serialize)]
pub struct Schema {
    /// Of this form.
    pub version: u32,
    /// In the order of documents.
    pub parameters: Vec<ParameterSheet>,
}

/// A parameter of one model.
#[derive(Clone, Debug, Serialize)]
pub struct ParameterSheet {
    /// As it is sent.
    pub name: &'static str,
    /// Where documents show it.
    pub group: Group,
    /// Who promises that it works.
    pub scope: Scope,
    /// JSON Schema's word for its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// One or two sentences.
    pub description: &'static str,
    /// What it is when it is not sent; null where that is the model's or the provider's business.
    pub default: Value,
    /// All values that there are.
    #[serde(rename = "enum")]
    pub values: Option<Vec<&'static str>>,
    /// The least.
    pub minimum: Option<f64>,
    /// The most.
    pub maximum: Option<f64>,
    /// A regular expression.
    pub pattern: Option<&'static str>,
    /// Whether it may be sent, by mode.
    pub modes: BTreeMap<&'static str, Support>,
    /// What becomes of it, by provider: the weakest of its deployments.
    pub handling: BTreeMap<String, Handling>,
    /// Who takes it, where not everybody does.
    pub providers: Option<Vec<String>>,
}

/// A deployment as documents show it.
#[derive(Clone, Debug, Serialize)]
pub struct ProviderSheet {
    /// By which it is forced.
    pub key: String,
    /// The provider's name.
    pub provider: String,
    /// As people write it.
    pub provider_name: String,
    /// What the provider calls the model.
    pub provider_model_id: String,
    /// What it does.
    pub modes: Vec<&'static str>,
    /// What it costs; empty where that is not known.
    pub pricing: Vec<PriceSheet>,
    /// Where that was read.
    pub source: Option<String>,
    /// Whether it is asked at present before all others were.
    pub healthy: bool,
}

/// A line of a price list.
#[derive(Clone, Debug, Serialize)]
pub struct PriceSheet {
    /// What is counted.
    pub unit: &'static str,
    /// Millionths of a dollar for one.
    pub price_micros: i64,
    /// Only where this flag is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

/// What one deployment does with parameters in one mode.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// Its provider.
    pub provider: &'a str,
    /// In which mode.
    pub mode: Mode,
    /// How each parameter reaches it; what is missing does not.
    pub handling: &'a [(&'static str, Handling)],
}

/// Parameters that work whoever makes the picture, because the gateway sees to them where a provider does not.
const EMULATED: [&str; 16] = [
    "model",
    "n",
    "size",
    "aspect_ratio",
    "resolution",
    "width",
    "height",
    "response_format",
    "output_format",
    "output_compression",
    "output_quality",
    "sync_mode",
    "stream",
    "partial_images",
    "strict",
    "user",
];

/// The parameters of a model with these offers.
pub fn compile(offers: &[Offer<'_>]) -> Schema {
    let parameters = PARAMETERS.iter().filter_map(|parameter| sheet(parameter, offers));
    let mut parameters: Vec<_> = parameters.collect();
    // Among the additional ones, what everybody promises comes first in the order of the table, and the rest by name.
    parameters.sort_by_key(|sheet| match (sheet.group, sheet.scope) {
        (Group::Additional, Scope::Provider | Scope::OpenAi) => (sheet.group, sheet.name),
        (group, _) => (group, ""),
    });
    Schema { version: 1, parameters }
}

fn sheet(parameter: &Parameter, offers: &[Offer<'_>]) -> Option<ParameterSheet> {
    let emulated = EMULATED.contains(&parameter.name);
    let of = |offer: &Offer<'_>| {
        let own = offer.handling.iter().find(|(name, _)| *name == parameter.name);
        own.map(|(_, handling)| *handling).or(emulated.then_some(Handling::Emulated))
    };
    let mut handling = BTreeMap::<String, Handling>::new();
    let mut modes = BTreeMap::new();
    for mode in Mode::ALL {
        let mut support = Support::NotAvailable;
        for offer in offers.iter().filter(|offer| offer.mode == mode) {
            let Some(how) = of(offer).filter(|_| parameter.modes.of(mode) != Support::NotAvailable)
            else {
                continue;
            };
            support = parameter.modes.of(mode);
            let weakest = handling.entry(offer.provider.into()).or_insert(how);
            *weakest = how.min(*weakest);
        }
        if offers.iter().any(|offer| offer.mode == mode) {
            modes.insert(mode.name(), support);
        }
    }
    if handling.is_empty() {
        return None; // nobody has it
    }
    let everybody = offers.iter().all(|offer| handling.contains_key(offer.provider));
    let providers = (!everybody).then(|| handling.keys().cloned().collect());
    let (kind, values, (minimum, maximum), pattern) = kind(parameter.kind);
    Some(ParameterSheet {
        name: parameter.name,
        group: parameter.group,
        scope: parameter.scope,
        kind,
        description: parameter.description,
        default: parameter.default.map_or(Value::Null, |default| default.value()),
        values,
        minimum,
        maximum,
        pattern,
        modes,
        handling,
        providers,
    })
}

type Limits = (Option<f64>, Option<f64>);

/// A kind in JSON Schema's words.
fn kind(kind: Kind) -> (&'static str, Option<Vec<&'static str>>, Limits, Option<&'static str>) {
    let free = (None, None);
    match kind {
        Kind::Text => ("string", None, free, None),
        Kind::Pattern(pattern) => ("string", None, free, Some(pattern)),
        Kind::Whole { min, max } => ("integer", None, (Some(min as f64), Some(max as f64)), None),
        Kind::Seed => ("integer", None, free, None),
        Kind::Number { min, max } => ("number", None, (Some(min), Some(max)), None),
        // Limits of each.
        Kind::Numbers { min, max, .. } => ("array", None, (Some(min), Some(max)), None),
        Kind::Flag => ("boolean", None, free, None),
        Kind::Choice(options) => ("string", Some(options.to_vec()), free, None),
        // One, or several under the same name.
        Kind::Picture | Kind::Pictures => ("file", None, free, None),
    }
}

impl Group {
    /// As documents head it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Core => "Core Parameters",
            Self::SizeLayout => "Size & Layout",
            Self::MediaInputs => "Media Inputs",
            Self::OutputFormat => "Output & Format",
            Self::Additional => "Additional Parameters",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: &[(&str, Handling)] = &[
        ("prompt", Handling::Native),
        ("seed", Handling::Native),
        ("size", Handling::Native),
        ("acceleration", Handling::Native),
    ];
    const EDITS: &[(&str, Handling)] = &[
        ("prompt", Handling::Native),
        ("image", Handling::Renamed),
        ("strength", Handling::Native),
        ("size", Handling::Converted),
    ];
    const OTHER: &[(&str, Handling)] =
        &[("prompt", Handling::Renamed), ("go_fast", Handling::Native)];

    fn compiled() -> Schema {
        compile(&[
            Offer { provider: "local", mode: Mode::TextToImage, handling: DRAWS },
            Offer { provider: "local", mode: Mode::ImageEdit, handling: EDITS },
            Offer { provider: "other", mode: Mode::TextToImage, handling: OTHER },
        ])
    }

    #[test]
    fn what_nobody_has_is_left_out_and_what_one_has_is_put_down_to_them() {
        let schema = compiled();
        let named = |name: &str| schema.parameters.iter().find(|sheet| sheet.name == name);
        assert!(named("quality").is_none() && named("mask").is_none());
        let fast = named("go_fast").unwrap();
        assert_eq!(fast.providers.as_deref(), Some(&["other".to_string()][..]));
        assert_eq!(fast.modes["text-to-image"], Support::Supported);
        assert_eq!(fast.modes["image-edit"], Support::NotAvailable);
        let size = named("size").unwrap();
        assert_eq!(size.handling["local"], Handling::Converted, "the weakest counts");
        assert_eq!(size.handling["other"], Handling::Emulated);
        assert_eq!(size.providers, None);
        assert_eq!(named("image").unwrap().modes["image-edit"], Support::Required);
        assert_eq!(named("prompt").unwrap().handling["other"], Handling::Renamed);
    }

    #[test]
    fn groups_are_in_order_and_additional_ones_by_name() {
        let schema = compiled();
        assert!(schema.parameters.is_sorted_by_key(|sheet| sheet.group));
        let additional = schema.parameters.iter().filter(|sheet| sheet.group == Group::Additional);
        let names: Vec<_> = additional.map(|sheet| sheet.name).collect();
        let expected = ["strength", "strict", "user", "acceleration", "go_fast"];
        let own = |name: &&str| !EMULATED.contains(name) || expected.contains(name);
        assert_eq!(names.into_iter().filter(own).collect::<Vec<_>>(), expected);
    }
}

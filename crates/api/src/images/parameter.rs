//! The parameters of a request for pictures: one description of each, from which parsing, `?schema=true`, the OpenAPI document
//! and `llms.txt` are made.

use serde::Serialize;
use serde_json::{Value, json};

use Group::{Additional, Core, MediaInputs, OutputFormat, SizeLayout};

use super::request::{COUNT_MAX, Mode, PARTIALS_MAX};
use crate::{Acceleration, Format, Sampler, Steps, Variation};

/// A parameter of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// As it is sent.
    pub name: &'static str,
    /// Where documents show it.
    pub group: Group,
    /// Who promises that it works.
    pub scope: Scope,
    /// What it may hold.
    pub kind: Kind,
    /// What it is when it is not sent; `None` where that is the model's or the provider's business.
    pub default: Option<Literal>,
    /// Where it may be sent.
    pub modes: Modes,
    /// One or two sentences.
    pub description: &'static str,
}

/// Where documents show a parameter, in the order of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// What is drawn.
    Core,
    /// How large.
    SizeLayout,
    /// What it starts from.
    MediaInputs,
    /// How it is encoded and answered.
    OutputFormat,
    /// Everything else.
    Additional,
}

/// Who promises that a parameter works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The gateway, whichever provider is chosen.
    Universal,
    /// The providers that have it.
    Provider,
    /// Nobody but OpenAI: taken because its clients send it, and told as dropped by everybody else.
    OpenAi,
}

/// What a parameter may hold. Limits are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text of this regular expression (JavaScript's).
    Pattern(&'static str),
    /// A whole number.
    Whole {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A whole number of 64 bits; negative ones are taken modulo 2⁶⁴.
    Seed,
    /// A number.
    Number {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// So many numbers at most, in a list; in a form they may stand beside each other with commas between.
    Numbers {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
        /// How many.
        count: usize,
    },
    /// `true` or `false`.
    Flag,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A picture: a file in a form; an address or a data URI elsewhere.
    Picture,
    /// One such or several.
    Pictures,
}

/// A default.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the kinds of JSON values")]
pub enum Literal {
    Text(&'static str),
    Whole(i64),
    Number(f64),
    Flag(bool),
}

/// Whether a parameter may be sent in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// It must be.
    Required,
    /// It may be.
    Supported,
    /// It would mean nothing.
    NotAvailable,
}

/// Where a parameter may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// In text to image.
    pub text: Support,
    /// In edits.
    pub edit: Support,
}

impl Modes {
    const BOTH: Self = Self { text: Support::Supported, edit: Support::Supported };
    const REQUIRED: Self = Self { text: Support::Required, edit: Support::Required };
    const EDIT: Self = Self { text: Support::NotAvailable, edit: Support::Supported };

    /// That of `mode`.
    pub fn of(self, mode: Mode) -> Support {
        match mode {
            Mode::TextToImage => self.text,
            Mode::ImageEdit => self.edit,
        }
    }
}

impl Literal {
    /// As it would be sent.
    pub fn value(self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Whole(number) => json!(number),
            Self::Number(number) => json!(number),
            Self::Flag(flag) => json!(flag),
        }
    }
}

impl Parameter {
    /// The parameter called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        PARAMETERS.iter().find(|parameter| parameter.name == name)
    }

    const fn new(name: &'static str, group: Group, kind: Kind, description: &'static str) -> Self {
        let (scope, default, modes) = (Scope::Universal, None, Modes::BOTH);
        Self { name, group, scope, kind, default, modes, description }
    }

    const fn or(self, default: Literal) -> Self {
        Self { default: Some(default), ..self }
    }

    const fn of(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    const fn in_modes(self, modes: Modes) -> Self {
        Self { modes, ..self }
    }
}

/// Sides of explicit sizes: what the engine draws.
const SIDE: Kind = Kind::Whole { min: 1, max: crate::ImageSize::SIDE_MAX as i64 };
const PERCENT: Kind = Kind::Whole { min: 0, max: 100 };

/// All of them, in the order of documents. `model` is the only one that no provider sees.
pub const PARAMETERS: &[Parameter] = &[
    Parameter::new(
        "model",
        Core,
        Kind::Text,
        "The model: its id, an alias, or provider/id to have that provider and no other.",
    )
    .in_modes(Modes::REQUIRED),
    Parameter::new("prompt", Core, Kind::Text, "What to show.").in_modes(Modes::REQUIRED),
    Parameter::new(
        "seed",
        Core,
        Kind::Seed,
        "The same seed gives the same picture from the same provider. Further pictures of one request count on from it.",
    ),
    Parameter::new(
        "size",
        SizeLayout,
        Kind::Pattern(r"^(auto|\d+[xX*×]\d+|\d+:\d+)$"),
        "Width and height in pixels as 1024x768, a ratio as 16:9, or auto. Converted to the next size that the provider makes.",
    ),
    Parameter::new(
        "aspect_ratio",
        SizeLayout,
        Kind::Pattern(r"^(auto|\d+:\d+)$"),
        "Width to height as 16:9, or auto; with resolution in place of size.",
    ),
    Parameter::new(
        "resolution",
        SizeLayout,
        Kind::Choice(&["512", "0.5K", "1K", "1.5K", "2K", "4K"]),
        "About how large, whatever the ratio: 1K has as many pixels as 1024x1024. What is above the model's maximum is cut to it.",
    ),
    Parameter::new(
        "image",
        MediaInputs,
        Kind::Pictures,
        "What to start from: a file in a form, an address or a data URI in JSON.",
    )
    .in_modes(Modes { text: Support::NotAvailable, edit: Support::Required }),
    Parameter::new(
        "mask",
        MediaInputs,
        Kind::Picture,
        "A picture of the same size as the first image, transparent where that is drawn anew.",
    )
    .in_modes(Modes::EDIT),
    Parameter::new(
        "response_format",
        OutputFormat,
        Kind::Choice(&["url", "b64_json"]),
        "Whether pictures come as addresses or in the answer. Where it is not sent, edits come as both.",
    )
    .or(Literal::Text("url")),
    Parameter::new(
        "output_format",
        OutputFormat,
        Kind::Choice(&Format::NAMES),
        "How pictures are encoded. Converted where the provider has another format.",
    ),
    Parameter::new(
        "output_compression",
        OutputFormat,
        PERCENT,
        "Quality of jpeg, webp and avif.",
    ),
    Parameter::new(
        "n",
        OutputFormat,
        Kind::Whole { min: 1, max: COUNT_MAX as i64 },
        "How many pictures. Made by several calls where a provider makes fewer at once.",
    )
    .or(Literal::Whole(1)),
    Parameter::new(
        "stream",
        OutputFormat,
        Kind::Flag,
        "Whether the answer is a stream of events.",
    )
    .or(Literal::Flag(false)),
    Parameter::new(
        "partial_images",
        OutputFormat,
        Kind::Whole { min: 0, max: PARTIALS_MAX as i64 },
        "Unfinished pictures that a stream shows at most.",
    )
    .or(Literal::Whole(0)),
    Parameter::new(
        "cfg_scale",
        Additional,
        Kind::Number { min: 0.0, max: 20.0 },
        "How closely to follow the prompt; turbo models need none.",
    ),
    Parameter::new(
        "strength",
        Additional,
        Kind::Number { min: 0.0, max: 1.0 },
        "How far the result may leave the image: 0 keeps it, 1 ignores it.",
    )
    .in_modes(Modes::EDIT),
    Parameter::new(
        "strict",
        Additional,
        Kind::Flag,
        "Whether a parameter that the chosen provider has not is an error; otherwise it is left out, and the answer says so.",
    )
    .or(Literal::Flag(false)),
    Parameter::new(
        "acceleration",
        Additional,
        Kind::Choice(&Acceleration::NAMES),
        "How far the picture may be approximated to be ready sooner.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "enable_prompt_expansion",
        Additional,
        Kind::Flag,
        "Whether a language model may make more of the prompt; some providers charge for it.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "enable_safety_checker",
        Additional,
        Kind::Flag,
        "Whether pictures are checked for unsafe content.",
    )
    .of(Scope::Provider),
    Parameter::new("go_fast", Additional, Kind::Flag, "Replicate's word for acceleration.")
        .of(Scope::Provider),
    Parameter::new("height", Additional, SIDE, "Pixels down; together with width.")
        .of(Scope::Provider),
    Parameter::new("width", Additional, SIDE, "Pixels across; together with height.")
        .of(Scope::Provider),
    Parameter::new(
        "negative_prompt",
        Additional,
        Kind::Text,
        "What the picture should not show; works with guidance only.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "num_inference_steps",
        Additional,
        Kind::Whole { min: 1, max: Steps::MAX as i64 },
        "Network evaluations; the model's own number where it is not sent.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "output_quality",
        Additional,
        PERCENT,
        "Another name of output_compression; ignored for png.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "sampler",
        Additional,
        Kind::Choice(&Sampler::NAMES),
        "How the way from noise to image is walked.",
    )
    .of(Scope::Provider)
    .or(Literal::Text("euler")),
    Parameter::new(
        "sigmas",
        Additional,
        Kind::Numbers { min: 0.0, max: 1.0, count: Steps::MAX as usize },
        "Noise levels before shifting, falling, one a step, in place of num_inference_steps.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "variation_seed",
        Additional,
        Kind::Seed,
        "A seed whose noise the picture leans towards, as far as variation_strength says. It counts on as seed does.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "variation_strength",
        Additional,
        Kind::Number { min: 0.0, max: 1.0 },
        "How far: 0 is the noise of seed, 1 that of variation_seed.",
    )
    .of(Scope::Provider)
    .or(Literal::Number(Variation::STRENGTH_DEFAULT)),
    Parameter::new(
        "prompt_weighting",
        Additional,
        Kind::Flag,
        "Whether (word:1.2) in the prompt is a weight and not text.",
    )
    .of(Scope::Provider)
    .or(Literal::Flag(false)),
    Parameter::new(
        "sync_mode",
        Additional,
        Kind::Flag,
        "Whether pictures come as data URIs where addresses would be.",
    )
    .of(Scope::Provider),
    Parameter::new(
        "quality",
        Additional,
        Kind::Choice(&["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]),
        "OpenAI's levels of effort.",
    )
    .of(Scope::OpenAi),
    Parameter::new("style", Additional, Kind::Choice(&["vivid", "natural"]), "DALL·E 3's styles.")
        .of(Scope::OpenAi),
    Parameter::new(
        "background",
        Additional,
        Kind::Choice(&["auto", "transparent", "opaque"]),
        "Whether the background may be transparent.",
    )
    .of(Scope::OpenAi),
    Parameter::new(
        "moderation",
        Additional,
        Kind::Choice(&["auto", "low"]),
        "How strictly OpenAI looks at prompts.",
    )
    .of(Scope::OpenAi),
    Parameter::new(
        "input_fidelity",
        Additional,
        Kind::Choice(&["high", "low"]),
        "How closely OpenAI's models keep to the image.",
    )
    .of(Scope::OpenAi)
    .in_modes(Modes::EDIT),
    Parameter::new("user", Additional, Kind::Text, "Whom the caller acts for; kept in the log."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_documents() {
        assert!(PARAMETERS.is_sorted_by_key(|parameter| parameter.group));
        for (at, parameter) in PARAMETERS.iter().enumerate() {
            let first = PARAMETERS.iter().position(|other| other.name == parameter.name);
            assert_eq!(first, Some(at), "{} is there twice", parameter.name);
        }
    }
}

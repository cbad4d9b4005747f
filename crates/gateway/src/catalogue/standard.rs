//! What is known without a configuration: the models of this family, and who serves them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use zoetrope_api::Micros;
use zoetrope_api::images::{About, Example, Mode, Pixels};

use super::about;
use super::{Alias, Catalogue, Deployment, Model, Protocol, ProviderEntry, Status, Strategy};
use crate::price::{Price, Surcharge, Unit};

/// The name of the local engine's entry, which is the prefix that forces it.
pub const LOCAL: &str = "local";

/// How long a call to a hosted provider may take. Slow ones need 54 s for one in twenty pictures.
pub(super) const REMOTE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a request may wait and be drawn here: a large picture takes minutes on a processor.
pub(super) const LOCAL_TIMEOUT: Duration = Duration::from_secs(600);
/// Requests that may wait for the local engine before others are asked.
pub(super) const WAITING_MAX: u64 = 4;

impl Catalogue {
    /// The local engine alone.
    pub fn standard() -> Self {
        let local = Arc::new(entry(LOCAL, Protocol::Local));
        let models = models().map(|model| {
            let known = KNOWN.iter().filter(|one| one.protocol == Protocol::Local);
            let known = known.filter(|one| one.model == model.id);
            let deployments = known.map(|one| Arc::new(one.deployment(&local))).collect();
            Arc::new(Model { deployments, ..model })
        });
        Self {
            providers: BTreeMap::from([(LOCAL.into(), local.clone())]),
            models: models.collect(),
            ..Self::default()
        }
    }
}

/// What programs written for OpenAI ask for, some of them whatever they are told.
const OPENAI_NAMES: [&str; 7] = [
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "chatgpt-image-latest",
];

impl Catalogue {
    /// With OpenAI's names for the first model; they are in no list.
    pub fn with_openai_names(mut self) -> Self {
        if let Some(first) = self.models.first() {
            let target = &first.id;
            let alias = |name: &&str| Alias {
                pattern: name.to_string(),
                target: target.clone(),
                listed: false,
            };
            self.aliases.extend(OPENAI_NAMES.iter().map(alias));
        }
        self
    }
}

/// The model that sees pictures, which is there where somebody has it.
const EDIT: &str = "z-image-edit";

impl Catalogue {
    /// With the local engine's model that sees the pictures of an edit, unless the configuration has one of that name.
    pub fn with_edit_model(mut self) -> Self {
        let local = self.providers.values().find(|entry| entry.protocol == Protocol::Local);
        let known = self.models.iter().any(|model| model.id == EDIT);
        let (Some(local), false) = (local, known) else { return self };
        let deployment = Arc::new(self::local(EDIT).deployment(local));
        let summary = "Draws and edits from up to 16 pictures that the prompt speaks of: Z-Image Omni and Edit.";
        let model = family((EDIT, "Z-Image Edit", summary, 1_769_472_000, about::edit()));
        self.models.push(Arc::new(Model { deployments: vec![deployment], ..model }));
        self
    }
}

/// A provider of `protocol` as it is where nobody said more.
pub(super) fn entry(name: &str, protocol: Protocol) -> ProviderEntry {
    // What is above these limits is answered with 429.
    let calls_per_minute = match protocol {
        Protocol::Alibaba => Some(120),
        Protocol::Replicate => Some(600),
        _ => None,
    };
    ProviderEntry {
        name: name.into(),
        title: title(protocol).unwrap_or(name).into(),
        protocol,
        url: address(protocol).map(String::from),
        upload_url: (protocol == Protocol::Fal).then(|| FAL_STORAGE.into()),
        key: None,
        calls_per_minute,
        concurrency_max: None,
        private: false,
    }
}

fn title(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Local => Some("This server"),
        Protocol::Fal => Some("fal.ai"),
        Protocol::Alibaba => Some("Alibaba Model Studio"),
        Protocol::Replicate => Some("Replicate"),
        Protocol::OpenAi | Protocol::Zoetrope => None,
    }
}

/// Where fal takes uploads.
const FAL_STORAGE: &str = "https://rest.fal.ai";

/// Where a protocol's own provider is.
fn address(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Local | Protocol::Zoetrope => None,
        Protocol::Fal => Some("https://queue.fal.run"),
        Protocol::Alibaba => Some("https://dashscope-intl.aliyuncs.com"),
        Protocol::Replicate => Some("https://api.replicate.com"),
        Protocol::OpenAi => Some("https://api.openai.com/v1"),
    }
}

/// The models of this family, without anybody who serves them.
pub(super) fn models() -> impl Iterator<Item = Model> {
    let turbo = (
        "z-image-turbo",
        "Z-Image Turbo",
        "Text to image and image to image in 8 steps, a 6B model of Tongyi-MAI.",
        1_764_547_200,
        about::turbo(),
    );
    let base = (
        "z-image",
        "Z-Image",
        "The undistilled 6B model of Tongyi-MAI: guidance, negative prompts, and more variety.",
        1_769_472_000,
        about::base(),
    );
    [turbo, base].into_iter().map(family)
}

/// A model's id, name, summary, day of publication, and what people say about it.
type Family = (&'static str, &'static str, &'static str, i64, (About, Vec<Example>));

fn family((id, name, summary, created, (about, examples)): Family) -> Model {
    Model {
        id: id.into(),
        name: name.into(),
        summary: summary.into(),
        owned_by: "alibaba".into(),
        family: "z-image".into(),
        created,
        status: Status::Active,
        tags: vec!["image-generation".into(), "image-editing".into()],
        about,
        examples,
        size_max: Pixels::new(2048, 2048),
        deployments: Vec::new(),
        strategy: Strategy::LocalFirst { waiting_max: WAITING_MAX },
    }
}

/// A model at a provider, as its own pages describe it.
pub(super) struct Known {
    pub(super) protocol: Protocol,
    /// Our id of the model.
    pub(super) model: &'static str,
    /// The second half of the key.
    slug: &'static str,
    upstream: &'static str,
    modes: &'static [Mode],
    unit: Unit,
    /// Millionths of a dollar.
    amount: i64,
    /// For rewriting the prompt, by request or by picture as the provider counts.
    expansion: Option<(Unit, i64)>,
    source: Option<&'static str>,
}

impl Known {
    /// At the provider called so.
    pub(super) fn deployment(&self, provider: &ProviderEntry) -> Deployment {
        let local = self.protocol == Protocol::Local;
        let surcharges = self.expansion.iter().map(|(unit, amount)| Surcharge {
            parameter: "enable_prompt_expansion".into(),
            unit: *unit,
            amount: Micros(*amount),
        });
        Deployment {
            key: format!("{}/{}", provider.name, self.slug),
            provider: provider.name.clone(),
            upstream: self.upstream.into(),
            modes: self.modes.to_vec(),
            price: Some(Price {
                unit: self.unit,
                amount: Micros(self.amount),
                surcharges: surcharges.collect(),
            }),
            price_source: self.source.map(String::from),
            priority: 0,
            weight: 1.0,
            timeout: if local { LOCAL_TIMEOUT } else { REMOTE_TIMEOUT },
        }
    }
}

const TEXT: &[Mode] = &[Mode::TextToImage];
const EDITS: &[Mode] = &[Mode::ImageEdit];

/// The local engine serves both models for nothing, unless the configuration prices it.
const fn local(model: &'static str) -> Known {
    Known {
        protocol: Protocol::Local,
        model,
        slug: model,
        upstream: model,
        modes: &Mode::ALL,
        unit: Unit::Megapixel,
        amount: 0,
        expansion: None,
        source: None,
    }
}

const FAL_TURBO: Known = Known {
    protocol: Protocol::Fal,
    model: "z-image-turbo",
    slug: "z-image-turbo",
    upstream: "fal-ai/z-image/turbo",
    modes: TEXT,
    unit: Unit::Megapixel,
    amount: 5_000,
    expansion: Some((Unit::Request, 2_500)),
    source: Some("https://fal.ai/models/fal-ai/z-image/turbo"),
};

/// Everybody who is known, in the order in which they are listed.
pub(super) const KNOWN: &[Known] = &[
    local("z-image-turbo"),
    local("z-image"),
    FAL_TURBO,
    Known {
        slug: "z-image-turbo-edit",
        upstream: "fal-ai/z-image/turbo/image-to-image",
        modes: EDITS,
        source: Some("https://fal.ai/models/fal-ai/z-image/turbo/image-to-image"),
        ..FAL_TURBO
    },
    Known {
        model: "z-image",
        slug: "z-image",
        upstream: "fal-ai/z-image/base",
        amount: 10_000,
        source: Some("https://fal.ai/models/fal-ai/z-image/base"),
        ..FAL_TURBO
    },
    Known {
        protocol: Protocol::Alibaba,
        model: "z-image-turbo",
        slug: "z-image-turbo",
        upstream: "z-image-turbo",
        modes: TEXT,
        unit: Unit::Image,
        amount: 15_000,
        expansion: Some((Unit::Image, 15_000)),
        source: Some("https://www.alibabacloud.com/help/en/model-studio/models"),
    },
    Known {
        protocol: Protocol::Replicate,
        model: "z-image-turbo",
        slug: "z-image-turbo",
        upstream: "prunaai/z-image-turbo",
        modes: TEXT,
        unit: Unit::Megapixel,
        amount: 5_000,
        expansion: None,
        source: Some("https://replicate.com/prunaai/z-image-turbo"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_configuration_there_is_the_local_engine() {
        let catalogue = Catalogue::standard();
        let keys: Vec<_> = catalogue.deployments().map(|(_, one)| one.key.clone()).collect();
        assert_eq!(keys, ["local/z-image-turbo", "local/z-image"]);
        assert!(catalogue.providers.contains_key(LOCAL));
    }

    #[test]
    fn a_model_that_sees_pictures_is_listed_where_there_is_one() {
        let catalogue = Catalogue::standard().with_edit_model().with_edit_model();
        let keys: Vec<_> = catalogue.deployments().map(|(_, one)| one.key.clone()).collect();
        assert_eq!(keys, ["local/z-image-turbo", "local/z-image", "local/z-image-edit"]);
        assert!(catalogue.resolve("z-image-edit").is_ok());
    }
}

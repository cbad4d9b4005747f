//! A file per provider: our call in its words, and its answer in ours.
//!
//! Each keeps a table of how it takes our parameters, from which its documents are made and by which its translation is tested: of
//! every parameter that was sent, the table and the body that goes out say the same.

mod alibaba;
mod fal;
mod form;
mod http;
mod local;
mod openai;
mod replicate;
mod said;
mod zoetrope;

use std::sync::Arc;

use serde_json::{Map, Value};
use zoetrope_api::images::Parameter;

use crate::catalogue::{ConfigError, Protocol, ProviderEntry};
use crate::changes;
use crate::gateway::House;
use crate::provider::{Abilities, Call, Provider};

/// Characters of a prompt, where the provider tells no limit: OpenAI's.
const PROMPT_CHARS_MAX: usize = 32_000;

/// The provider that `entry` describes; an error names the field of the configuration that is in the way.
pub fn open(entry: &Arc<ProviderEntry>, house: &House) -> Result<Arc<dyn Provider>, ConfigError> {
    let provider: Arc<dyn Provider> = match entry.protocol {
        Protocol::Local => Arc::new(local::Local::new(house)),
        Protocol::Fal => Arc::new(fal::Fal::open(entry, house)?),
        Protocol::Alibaba => Arc::new(alibaba::Alibaba::open(entry, house)?),
        Protocol::Replicate => Arc::new(replicate::Replicate::open(entry, house)?),
        Protocol::OpenAi => Arc::new(openai::OpenAi::open(entry, house)?),
        Protocol::Zoetrope => Arc::new(zoetrope::Zoetrope::open(entry, house)?),
    };
    Ok(provider)
}

fn require_key(entry: &ProviderEntry) -> Result<(), ConfigError> {
    if entry.key.as_ref().is_some_and(|key| !key.0.is_empty()) {
        return Ok(());
    }
    let place = format!("gateway.providers.{}.key", entry.name);
    Err(ConfigError::new(place, "is missing; the provider answers nobody without one"))
}

/// What the request has beyond its own fields and the provider takes, as it was sent.
fn extras(call: &Call, abilities: &Abilities) -> Map<String, Value> {
    let taken = |name: &str| match Parameter::named(name) {
        Some(_) => !changes::is_ours(name) && abilities.handling(name).is_some(),
        None => abilities.passes_unknown,
    };
    let extras = call.request.extras.iter().filter(|(name, _)| taken(name));
    extras.map(|(name, value)| (name.clone(), value.clone())).collect()
}

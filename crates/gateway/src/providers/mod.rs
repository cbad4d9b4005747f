//! A file per provider: our call in its words, and its answer in ours.
//!
//! Each keeps a table of how it takes our parameters, from which its documents are made and by which its translation is tested: of
//! every parameter that was sent, the table and the body that goes out say the same.

mod alibaba;
mod fal;
mod follow;
mod form;
mod http;
mod local;
mod openai;
mod picture;
mod replicate;
mod said;
mod upload;
mod verdict;
mod zoetrope;

use std::sync::Arc;

use serde_json::{Map, Value};
use zoetrope_api::images::{Handling, Parameter};

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

/// `table` and `more`, for the tables of how a provider takes parameters. A length that is not theirs is an error when this is
/// compiled, or leaves empty names that a test finds.
const fn with<const M: usize, const N: usize>(
    table: &[(&'static str, Handling)],
    more: [(&'static str, Handling); M],
) -> [(&'static str, Handling); N] {
    let mut all = [("", Handling::Native); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < table.len() { table[at] } else { more[at - table.len()] };
        at += 1;
    }
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_of_the_tables_is_known_and_there_once() {
        let tables = [local::tables(), fal::tables(), zoetrope::tables(), openai::tables()];
        for table in tables.into_iter().flatten() {
            for (at, (name, _)) in table.iter().enumerate() {
                assert!(Parameter::named(name).is_some(), "`{name}`");
                assert_eq!(table.iter().position(|(other, _)| other == name), Some(at), "{name}");
            }
        }
    }
}

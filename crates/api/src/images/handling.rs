//! How a provider treats a parameter, and what becomes of one that it does not have.

use serde::Serialize;
use serde_json::Value;

/// How a parameter reaches a provider, from the weakest promise to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Handling {
    /// As it was sent; the provider may ignore it.
    Passthrough,
    /// The same value under the provider's name.
    Renamed,
    /// The value in the provider's terms.
    Converted,
    /// By the gateway itself, since the provider cannot.
    Emulated,
    /// As the provider has it, and with the same meaning.
    Native,
}

/// A parameter that did not reach the provider as it was sent: what callers of other gateways miss most is being told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Its name, as it was sent.
    pub parameter: String,
    /// Its value, as it was sent; long texts are cut.
    pub from: Value,
    /// What was used in its place; null for what was dropped.
    pub to: Value,
    /// Why, for people.
    pub reason: String,
}

impl Change {
    /// `parameter` was left out.
    pub fn dropped(parameter: &str, from: Value, reason: impl Into<String>) -> Self {
        Self { parameter: parameter.into(), from, to: Value::Null, reason: reason.into() }
    }
}

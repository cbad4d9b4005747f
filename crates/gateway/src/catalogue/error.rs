//! What is wrong with a configuration: all of it, found at once.

use std::fmt;

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order in which they were found; never empty.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the configuration, as `gateway.providers.fal.url`.
    pub place: String,
    /// What is there, what may be there, and what to do.
    pub message: String,
}

impl ConfigError {
    /// One mistake.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { mistakes: vec![Mistake { place: place.into(), message: message.into() }] }
    }
}

/// A line for each mistake.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Mistake { place, message }) in self.mistakes.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{place}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

//! What people say about a model: the parts of its page that no table of parameters tells.

use serde::Serialize;

/// What a model is, is good at, and is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// A paragraph.
    pub overview: String,
    /// A line each.
    pub strengths: Vec<String>,
    /// A line each.
    pub limitations: Vec<String>,
    /// How it works; a paragraph.
    pub background: String,
    /// A line each.
    pub best_for: Vec<String>,
}

/// A prompt that shows what a model does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// As people call it.
    pub title: String,
    /// What was asked for.
    pub prompt: String,
    /// Where what came of it is.
    pub url: Option<String>,
}

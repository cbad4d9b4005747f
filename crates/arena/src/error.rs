//! What can be wrong in the arena.

/// A field of a form and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// As `name`, `prompts` or `settings.num_inference_steps`.
    pub field: String,
    /// What is wrong with which value, what the limit is, and what to do.
    pub message: String,
}

impl Wrong {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Why the arena could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows could not be read or written.
    #[error(transparent)]
    Rows(#[from] zoetrope_jobs::Error),
    /// Fields that cannot be used.
    #[error("{}", .0.iter().map(|wrong| wrong.message.as_str()).collect::<Vec<_>>().join("; "))]
    Wrong(Vec<Wrong>),
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(&'static str),
    /// It may not be done, or not any more.
    #[error("{0}")]
    Refused(&'static str),
}

/// The crate's results.
pub type Result<T> = std::result::Result<T, Error>;

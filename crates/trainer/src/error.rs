//! What can go wrong in training, in words that its reader can act on.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why nothing was trained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be.
    #[error(transparent)]
    Field(#[from] zoetrope_api::InvalidField),
    /// Pictures, captions or archives that cannot be used.
    #[error("{place}: {problem}")]
    Data {
        /// The file or folder, as its owner knows it.
        place: String,
        /// What is wrong with it and what helps.
        problem: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A loss that is no number any more.
    #[error(
        "the loss of update {step} is not a number: lower the learning rate, or let gradients be clipped"
    )]
    NotANumber {
        /// The update, counted from 1.
        step: usize,
    },
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] zoetrope_engine::Error),
    /// What a file of weights or an adapter says.
    #[error(transparent)]
    Checkpoint(#[from] zoetrope_checkpoint::Error),
    /// What a file of the run says.
    #[error(transparent)]
    Files(#[from] zoetrope_files::Error),
    /// What the tensor library says.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// `problem` with what lies at `place`.
    pub fn data(place: impl ToString, problem: impl ToString) -> Self {
        Self::Data { place: place.to_string(), problem: problem.to_string() }
    }
}

//! What can be wrong with a file of weights.

use std::path::PathBuf;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a file of weights: each names the file, and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{file}: {source}")]
    Io {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what its name or place promises.
    #[error("{file}: {problem}")]
    Broken {
        /// Which.
        file: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A tensor that the network needs is not there.
    #[error(
        "{file}: `{tensor}` is missing. The file is of another model, or incomplete: download it again."
    )]
    Missing {
        /// The files that were searched.
        file: String,
        /// Its published name.
        tensor: String,
    },
    /// A tensor of another shape.
    #[error(
        "{file}: `{tensor}` is {found:?}, but the model wants {wanted:?}. The file is of another model, or damaged: \
         download it again."
    )]
    Shape {
        /// Which file.
        file: String,
        /// The tensor's name in the file.
        tensor: String,
        /// As stored.
        found: Vec<usize>,
        /// As the configuration says.
        wanted: Vec<usize>,
    },
    /// Tensors that no layer asked for.
    #[error(
        "{file}: {count} tensors fit no layer of the model, first `{first}`. The file is of another model, or its \
         config.json is of another file."
    )]
    Surplus {
        /// The files.
        file: String,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// A weight that is not a number.
    #[error(
        "{file}: `{tensor}` holds a value that is not a finite number. The file is damaged: download it again."
    )]
    NotFinite {
        /// Which file.
        file: String,
        /// The tensor's name in the file.
        tensor: String,
    },
    /// A part of the model is nowhere.
    #[error("{0}")]
    NoPart(String),
    /// A form of storage that does not exist.
    #[error(
        "`{0}` is no dtype; use auto, f32, bf16, f16, fp8, int8, q8_0, q6_k, q5_k, q4_k or q4_0"
    )]
    Storage(String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn io(file: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { file: file.into().display().to_string(), source }
    }

    pub(crate) fn broken(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Broken { file: file.into(), problem: problem.into() }
    }
}

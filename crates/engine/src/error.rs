//! What can go wrong between a request and its pixels.

use zoetrope_api::InvalidField;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a request and its pixels.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the request.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// A file of weights.
    #[error(transparent)]
    Checkpoint(#[from] zoetrope_checkpoint::Error),
    /// A configuration that cannot be read or does not describe a Z-Image.
    #[error("{file}: {problem}")]
    Config {
        /// The file, or what stands for it.
        file: String,
        /// What is wrong, and what is supported.
        problem: String,
    },
    /// A tokenizer that cannot be read or used.
    #[error("the tokenizer {0}")]
    Tokenizer(String),
    /// Not enough memory, known before it is taken.
    #[error("{0}")]
    Memory(String),
    /// The picture came out as not-a-number.
    #[error(
        "the picture came out as not-a-number at {stage}; the weights are damaged, or their values are too large for \
         the chosen dtype: try --dtype f32 or bf16"
    )]
    NotANumber {
        /// Where it was noticed.
        stage: &'static str,
    },
    /// The caller stopped the work.
    #[error("interrupted")]
    Interrupted,
    /// A tensor operation failed: shapes, device or memory.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Reference pictures on a network without a vision branch.
    pub(crate) fn no_references() -> Self {
        let problem =
            "need a model that sees pictures (Z-Image-Omni, Z-Image-Edit), and this one does not";
        InvalidField::new("references", problem).into()
    }

    /// A control picture without a network that looks at it.
    pub(crate) fn nothing_controls() -> Self {
        let problem = "needs a control network (--controlnet PATH), and there is none";
        InvalidField::new("control", problem).into()
    }

    /// A control network beside a network with a vision branch.
    pub(crate) fn no_control() -> Self {
        let problem = "is for Z-Image-Turbo and the base model; models that see pictures take references instead";
        InvalidField::new("control", problem).into()
    }
}

//! What can go wrong between a hub's name for a model and files on the disk.

use std::path::PathBuf;

use super::plan::gigabytes;

/// A `Result` of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every variant says what, where and what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages below are the documentation of the variants and their fields
pub enum Error {
    #[error(
        "`{id}` is not a model on the hub: {why}. Write `owner/name` or `owner/name@revision`, or the path of a directory."
    )]
    BadId { id: String, why: &'static str },

    #[error("{endpoint} refuses `{repo}` ({status}): {advice}")]
    Denied { endpoint: String, repo: String, status: u16, advice: &'static str },

    #[error(
        "{endpoint} has no `{repo}` with revision `{revision}`. Check the spelling; a private repository needs HF_TOKEN."
    )]
    NotFound { endpoint: String, repo: String, revision: String },

    #[error(
        "{endpoint} cannot be reached. Set HF_ENDPOINT to a mirror, or HTTPS_PROXY to your proxy; without a network, download \
         the model elsewhere and give its directory instead of its name."
    )]
    Unreachable { endpoint: String, source: Box<ureq::Error> },

    #[error(
        "`{repo}` is not complete in {dir}, and HF_HUB_OFFLINE forbids downloading. Unset it, or give a directory."
    )]
    Offline { repo: String, dir: PathBuf },

    #[error(
        "{url} answered {status}, {attempts} times. Try again later: what has arrived is kept."
    )]
    Status { url: String, status: u16, attempts: u32 },

    #[error(
        "{url} answered something that is no listing of a model: {why}. Is HF_ENDPOINT a Hugging Face hub?"
    )]
    BadReply { url: String, why: String },

    #[error(
        "`{repo}` lists the file `{name}`, which would leave the cache's folder. Nothing of it is downloaded."
    )]
    UnsafeName { repo: String, name: String },

    #[error(
        "`{repo}` is no model that can be used here: {why}. Wanted is the diffusers layout (model_index.json and its folders), or \
         for a safety checker or a depth network that of transformers (config.json, preprocessor_config.json, model.safetensors)."
    )]
    NotAModel { repo: String, why: String },

    #[error(
        "{} has {} free, and the download needs {}: {} are missing. Free some space, or set HF_HOME to another disk.",
        .dir.display(), gigabytes(*.available), gigabytes(*.needed), gigabytes(.needed.saturating_sub(*.available))
    )]
    Space { dir: PathBuf, needed: u64, available: u64 },

    #[error(
        "`{file}` arrived damaged: {what} should be {expected}, not {actual}. It was deleted; pull again to fetch it anew."
    )]
    Corrupt { file: String, what: &'static str, expected: String, actual: String },

    #[error(
        "`{file}` broke off {attempts} times at {done} of {total} bytes. Pull again to go on from there."
    )]
    Broken { file: String, attempts: u32, done: u64, total: u64, source: std::io::Error },

    #[error("{} is being downloaded by another process. Wait for it, or stop it.", .path.display())]
    Busy { path: PathBuf },

    #[error("`{id}` is not in {}. `zoetrope models list` shows what is.", .dir.display())]
    NotCached { id: String, dir: PathBuf },

    #[error("stopped; what has arrived is kept, and the next pull goes on from there")]
    Cancelled,

    #[error("{}: cannot {what}", .path.display())]
    Io { path: PathBuf, what: &'static str, source: std::io::Error },
}

impl Error {
    /// For `map_err` on file operations: names the path and what was tried.
    pub(super) fn io(
        path: impl Into<PathBuf>,
        what: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, what, source }
    }
}

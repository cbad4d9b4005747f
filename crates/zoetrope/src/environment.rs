//! The environment, read here and nowhere else.

use std::path::PathBuf;

/// The folder of the Hugging Face hub's cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`.
pub(crate) fn hub_cache() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("HF_HUB_CACHE")
        .or_else(|| Some(path("HF_HOME")?.join("hub")))
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(path("HOME").or_else(|| path("USERPROFILE"))?.join(".cache/huggingface/hub")))
}

//! Repositories that are known to hold Z-Image in another form than the diffusers layout, or what looks at its pictures.

use std::path::{Path, PathBuf};

use super::Repo;

/// A model's weights as three single files in bf16, about two thirds of the published size for Turbo. Tokenizer and
/// configurations still come from the original ([`Part::Configs`](super::Part::Configs), some megabytes).
#[derive(Debug, PartialEq, Eq)]
pub struct Repackaging {
    /// The repository of the original, in the diffusers layout.
    pub of: &'static str,
    /// The repository with the three files.
    pub repository: &'static str,
    /// The transformer's file in it.
    pub transformer: &'static str,
    /// The text encoder's.
    pub text_encoder: &'static str,
    /// The autoencoder's.
    pub vae: &'static str,
    /// About how much they are together: for an offer before the hub has been asked.
    pub bytes_about: u64,
}

impl Repackaging {
    /// The three files' paths in the repository: transformer, text encoder, VAE.
    pub fn files(&self) -> [&'static str; 3] {
        [self.transformer, self.text_encoder, self.vae]
    }

    /// The three files in a snapshot: transformer, text encoder, VAE.
    pub fn paths(&self, snapshot: &Path) -> [PathBuf; 3] {
        self.files().map(|file| snapshot.join(file))
    }
}

/// File names as people link to them (Comfy-Org/ComfyUI#11822, mcmonkeyprojects/SwarmUI#1149, city96/ComfyUI-GGUF#385);
/// sizes as runpod-workers/worker-comfyui#189 rounds them. Neither was checked against the hub itself when this was written:
/// the hub's listing decides, and a file that it no longer has is an error that names it.
pub const KNOWN: &[Repackaging] = &[Repackaging {
    of: "Tongyi-MAI/Z-Image-Turbo",
    repository: "Comfy-Org/z_image_turbo",
    transformer: "split_files/diffusion_models/z_image_turbo_bf16.safetensors",
    text_encoder: "split_files/text_encoders/qwen_3_4b.safetensors",
    vae: "split_files/vae/ae.safetensors",
    bytes_about: 20_700_000_000, // 12.3 + 8.0 + 0.34 GB
}];

/// The smaller form of a model, where one is known. Only for its newest revision: others may have other weights.
pub fn repackaging_of(repo: &Repo) -> Option<&'static Repackaging> {
    KNOWN.iter().find(|known| known.of == repo.name() && repo.revision() == super::MAIN)
}

/// The entry of a repository that is itself a repackaging.
pub(super) fn repackaging_in(repo: &Repo) -> Option<&'static Repackaging> {
    KNOWN.iter().find(|known| known.repository == repo.name())
}

/// A network that looks at pictures, in transformers' layout.
#[derive(Debug, PartialEq, Eq)]
pub struct VisionRepository {
    /// What people call it here.
    pub name: &'static str,
    /// Its repository.
    pub repository: &'static str,
}

/// The checkers that have a name here. The first one is taken where nobody chose.
pub const SAFETY_CHECKERS: &[VisionRepository] = &[
    VisionRepository { name: "safety", repository: "Falconsai/nsfw_image_detection" },
    VisionRepository { name: "safety-clip", repository: "CompVis/stable-diffusion-safety-checker" },
];

/// The networks that have a name here and tell how near things are. The first one that is there is taken where nobody chose.
pub const DEPTH_NETWORKS: &[VisionRepository] = &[
    VisionRepository { name: "depth", repository: "depth-anything/Depth-Anything-V2-Small-hf" },
    VisionRepository { name: "depth-base", repository: "depth-anything/Depth-Anything-V2-Base-hf" },
    VisionRepository {
        name: "depth-large",
        repository: "depth-anything/Depth-Anything-V2-Large-hf",
    },
];

/// The repository of a network that looks at pictures, by its name here.
pub fn vision_repository(name: &str) -> Option<&'static str> {
    vision().find(|known| known.name == name).map(|known| known.repository)
}

/// Whether `repo` is that of a network that looks at pictures.
pub fn is_vision(repo: &Repo) -> bool {
    vision().any(|known| known.repository == repo.name())
}

fn vision() -> impl Iterator<Item = &'static VisionRepository> {
    SAFETY_CHECKERS.iter().chain(DEPTH_NETWORKS)
}

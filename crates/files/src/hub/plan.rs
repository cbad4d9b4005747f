//! What a download consists of and what it costs, before it starts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cache::Layout;
use super::client::Client;
use super::id::{is_hash, is_safe_path};
use super::{Error, Repo, Result, Settings, known};

/// No model of this family has more; a listing beyond it is somebody's data set.
const FILES_MAX: usize = 10_000;

/// The folders of the diffusers layout.
const FOLDERS: [&str; 5] = ["scheduler", "tokenizer", "text_encoder", "transformer", "vae"];

/// How much of a repository is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything that makes pictures: configurations, tokenizer, weights.
    Whole,
    /// Configurations and tokenizer: what a repackaging of the weights lacks.
    Configs,
    /// Of a repository that is a network which looks at pictures, in transformers' layout: its configurations and weights.
    Vision,
}

impl Part {
    /// What of `repo` makes it usable here.
    pub(super) fn usable(repo: &Repo) -> Self {
        if known::is_vision(repo) { Self::Vision } else { Self::Whole }
    }
}

/// The files of a network that looks at pictures.
pub(super) const VISION: [&str; 3] =
    ["config.json", "preprocessor_config.json", "model.safetensors"];

/// A file of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the repository, checked to stay in the snapshot's folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, or git's SHA-1 of a small file: also its name under `blobs/`.
    pub etag: String,
}

/// The files of one commit that a model needs, and which of them are still to come.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The repository and the revision that was asked for.
    pub repo: Repo,
    /// The commit that the revision names now.
    pub commit: String,
    /// What is needed, smallest first: a wrong model shows before the large files are there.
    pub files: Vec<File>,
    /// Size of all of it.
    pub bytes_total: u64,
    /// What is not in the cache yet, parts of files taken into account.
    pub bytes_missing: u64,
    /// Where it goes.
    pub cache_dir: PathBuf,
}

impl Plan {
    /// Whether everything is in the cache already.
    pub fn is_complete(&self) -> bool {
        self.bytes_missing == 0
    }

    /// An error when the cache's disk has less than the plan needs. `available` in bytes.
    pub fn check_space(&self, available: u64) -> Result<()> {
        if available >= self.bytes_missing {
            return Ok(());
        }
        Err(Error::Space { dir: self.cache_dir.clone(), needed: self.bytes_missing, available })
    }
}

/// Asks the hub what the model consists of, and the cache what is there. Nothing is written.
pub fn plan(settings: &Settings, repo: &Repo) -> Result<Plan> {
    plan_part(settings, repo, Part::usable(repo))
}

/// As [`plan`], for a part of the model.
pub fn plan_part(settings: &Settings, repo: &Repo, part: Part) -> Result<Plan> {
    let layout = Layout::new(settings, repo);
    if settings.offline {
        return Err(Error::Offline { repo: repo.to_string(), dir: layout.root });
    }
    let listing = Client::new(settings)?.listing(repo)?;
    if !is_hash(&listing.sha) || listing.siblings.len() > FILES_MAX {
        return Err(not_a_model(repo, "its listing has no commit or too many files"));
    }
    let mut files =
        listing.siblings.into_iter().map(|file| file.parse(repo)).collect::<Result<Vec<_>>>()?;
    files = choose(repo, files, part)?;
    let mut files =
        files.into_iter().map(|file| file.verifiable(repo)).collect::<Result<Vec<_>>>()?;
    files.sort_by_key(|file| file.bytes);

    let mut seen = HashSet::new(); // two names may share a blob
    let (mut bytes_total, mut bytes_missing) = (0, 0);
    for file in files.iter().filter(|file| seen.insert(file.etag.clone())) {
        bytes_total += file.bytes;
        bytes_missing += layout.bytes_missing(file);
    }
    Ok(Plan {
        repo: repo.clone(),
        commit: listing.sha,
        files,
        bytes_total,
        bytes_missing,
        cache_dir: settings.cache_dir.clone(),
    })
}

/// `/api/models/{id}/revision/{revision}?blobs=true`, as far as it matters here.
#[derive(Deserialize)]
pub(super) struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Sibling {
    fn parse(self, repo: &Repo) -> Result<File> {
        if !is_safe_path(&self.rfilename) {
            return Err(Error::UnsafeName { repo: repo.to_string(), name: self.rfilename });
        }
        let (etag, bytes) = match self.lfs {
            Some(lfs) => (lfs.sha256, Some(lfs.size)),
            None => (self.blob_id.unwrap_or_default(), self.size),
        };
        // Files that are not wanted may lack a hash; `verifiable` looks at those that are.
        let etag = if bytes.is_some() { etag } else { String::new() };
        Ok(File { name: self.rfilename, bytes: bytes.unwrap_or(0), etag })
    }
}

impl File {
    fn verifiable(self, repo: &Repo) -> Result<Self> {
        if is_hash(&self.etag) {
            return Ok(self);
        }
        Err(not_a_model(
            repo,
            &format!("the hub names no size or hash for `{}`, so it cannot be verified", self.name),
        ))
    }

    fn folder(&self) -> &str {
        self.name.split_once('/').map_or("", |(folder, _)| folder)
    }

    fn is_weights(&self) -> bool {
        self.name.ends_with(".safetensors")
    }
}

/// The files that are needed; an error when one is missing without which there is no model.
fn choose(repo: &Repo, files: Vec<File>, part: Part) -> Result<Vec<File>> {
    if part == Part::Vision {
        return vision(repo, files);
    }
    if let Some(known) = known::repackaging_in(repo) {
        let has = |name: &&str| files.iter().any(|file| file.name == **name);
        if let Some(name) = known.files().iter().find(|name| !has(name)) {
            return Err(not_a_model(repo, &format!("it no longer has `{name}`")));
        }
        return Ok(files
            .into_iter()
            .filter(|file| known.files().contains(&file.name.as_str()))
            .collect());
    }
    let names: HashSet<String> = files.iter().map(|file| file.name.clone()).collect();
    let wanted = |file: &File| match file.folder() {
        // The readme names the licence.
        "" => matches!(file.name.as_str(), "model_index.json" | "README.md"),
        folder if !FOLDERS.contains(&folder) => false,
        _ if file.is_weights() => part == Part::Whole && !is_duplicate(&file.name, &names),
        _ if file.name.ends_with(".safetensors.index.json") => {
            part == Part::Whole && !is_variant(&file.name, &names)
        }
        _ => {
            [".json", ".txt", ".jinja"].iter().any(|ending| file.name.ends_with(ending))
                && !file.name.contains(".index.")
        }
    };
    let files: Vec<File> = files.into_iter().filter(wanted).collect();
    if !names.contains("model_index.json") {
        return Err(not_a_model(repo, "it has no model_index.json"));
    }
    for folder in ["text_encoder", "transformer", "vae"] {
        let there =
            |file: &File| file.folder() == folder && (part == Part::Configs || file.is_weights());
        if !files.iter().any(there) {
            return Err(not_a_model(repo, &format!("{folder}/ has no safetensors file")));
        }
    }
    Ok(files)
}

/// The files of a network that looks at pictures, and the readme, which names the licence.
fn vision(repo: &Repo, files: Vec<File>) -> Result<Vec<File>> {
    let missing = |name: &&&str| !files.iter().any(|file| file.name == **name);
    if let Some(name) = VISION.iter().find(missing) {
        let why = format!("it has no {name}, which networks in transformers' layout have");
        return Err(not_a_model(repo, &why));
    }
    let wanted = |file: &File| VISION.contains(&file.name.as_str()) || file.name == "README.md";
    Ok(files.into_iter().filter(wanted).collect())
}

/// Whether the same weights are there under another name: as shards, or without a variant's infix.
fn is_duplicate(name: &str, names: &HashSet<String>) -> bool {
    let is_shard = name.contains("-of-");
    (!is_shard && names.contains(&format!("{name}.index.json"))) || is_variant(name, names)
}

/// `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`, `model.safetensors.index.fp16.json` where the plain one exists.
fn is_variant(name: &str, names: &HashSet<String>) -> bool {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let Some((stem, rest)) = file.split_once('.') else { return false };
    let infix = rest.split(['.', '-']).next().unwrap_or_default();
    if infix == "safetensors" {
        return false;
    }
    let plain = format!("{folder}/{stem}.safetensors");
    names.contains(&plain) || names.contains(&format!("{plain}.index.json"))
}

fn not_a_model(repo: &Repo, why: &str) -> Error {
    Error::NotAModel { repo: repo.to_string(), why: why.into() }
}

/// Bytes for people: `24.6 GB`, `335 MB`, `710 B`.
pub fn gigabytes(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 999.5e6 => format!("{:.1} GB", b / 1e9),
        b if b >= 999.5e3 => format!("{:.0} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.0} kB", b / 1e3),
        b => format!("{b:.0} B"),
    }
}

/// The nearest folder that exists: the cache itself may be yet to be made.
pub(super) fn free_bytes(dir: &Path) -> Result<u64> {
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    fs4::available_space(there).map_err(Error::io(there, "ask for the free space"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], part: Part) -> Vec<String> {
        let file = |name: &&str| File { name: name.to_string(), bytes: 1, etag: "a".repeat(40) };
        let repo = "a/b".parse().unwrap();
        let files = choose(&repo, names.iter().map(file).collect(), part).unwrap();
        files.into_iter().map(|file| file.name).collect()
    }

    const MODEL: [&str; 9] = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ];

    #[test]
    fn only_what_makes_pictures_is_chosen_and_each_weight_once() {
        let surplus = [
            "assets/showcase.jpg",
            "README_zh.md",
            "flax_model.msgpack",
            "text_encoder/model.safetensors",
            "text_encoder/pytorch_model.bin",
            "text_encoder/model.fp16-00001-of-00001.safetensors",
            "transformer/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.bf16.safetensors",
            "vae/model.onnx",
            "siglip/model.safetensors",
        ];
        assert_eq!(chosen(&[&MODEL[..], &surplus[..]].concat(), Part::Whole), MODEL);
    }

    #[test]
    fn configs_are_the_model_without_weights() {
        let names = [&MODEL[..], &["transformer/config.json", "vae/config.json"]].concat();
        let kept = chosen(&names, Part::Configs);
        assert_eq!(kept.len(), 6);
        assert!(kept.iter().all(|name| !name.contains("safetensors")));
    }

    #[test]
    fn of_a_network_that_looks_only_its_own_files_are_chosen() {
        let names = ["README.md", "model.safetensors", "config.json", "preprocessor_config.json"];
        let surplus =
            ["pytorch_model.bin", "optimizer.pt", "onnx/model.onnx", "flax_model.msgpack"];
        assert_eq!(chosen(&[&names[..], &surplus[..]].concat(), Part::Vision), names);
    }

    #[test]
    fn a_full_disk_is_named_with_what_is_missing() {
        let repo = "a/b".parse().unwrap();
        let plan = Plan {
            repo,
            commit: String::new(),
            files: vec![],
            bytes_total: 9,
            bytes_missing: 33_000_000_000,
            cache_dir: "/models".into(),
        };
        assert!(plan.check_space(33_000_000_000).is_ok());
        let message = plan.check_space(3_000_000_000).unwrap_err().to_string();
        assert!(
            message.starts_with(
                "/models has 3.0 GB free, and the download needs 33.0 GB: 30.0 GB are missing."
            ),
            "{message}"
        );
    }
}

//! The cache's folders: what is in them, and taking it out again. Nothing here uses the network.
//!
//! ```text
//! models--owner--name/refs/main                the commit that `main` was when it was last pulled
//! models--owner--name/snapshots/<commit>/…     the repository's files, as links
//! models--owner--name/blobs/<etag>             their bytes; `<etag>.incomplete` while they arrive
//! .locks/models--owner--name/<etag>.lock       held by whoever downloads that blob
//! ```

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::id::{is_hash, is_safe_path};
use super::plan::VISION;
use super::{Error, File, Part, Repo, Result, Settings, known};

/// Where one repository's things lie.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    pub(super) blobs: PathBuf,
    pub(super) snapshots: PathBuf,
    pub(super) refs: PathBuf,
    pub(super) locks: PathBuf,
}

impl Layout {
    pub(super) fn new(settings: &Settings, repo: &Repo) -> Self {
        let root = settings.cache_dir.join(repo.folder());
        Self {
            blobs: root.join("blobs"),
            snapshots: root.join("snapshots"),
            refs: root.join("refs"),
            locks: settings.cache_dir.join(".locks").join(repo.folder()),
            root,
        }
    }

    pub(super) fn blob(&self, file: &File) -> PathBuf {
        self.blobs.join(&file.etag)
    }

    pub(super) fn incomplete(&self, file: &File) -> PathBuf {
        self.blobs.join(format!("{}.incomplete", file.etag))
    }

    pub(super) fn lock(&self, file: &File) -> PathBuf {
        self.locks.join(format!("{}.lock", file.etag))
    }

    /// A blob has its name only once it was verified; the size is asked for the sake of other programs' mistakes.
    pub(super) fn has(&self, file: &File) -> bool {
        size(&self.blob(file)) == Some(file.bytes)
    }

    pub(super) fn bytes_missing(&self, file: &File) -> u64 {
        if self.has(file) {
            0
        } else {
            file.bytes.saturating_sub(size(&self.incomplete(file)).unwrap_or(0))
        }
    }

    /// The commit of a branch or tag when it was last pulled, or the commit itself.
    fn commit(&self, revision: &str) -> Option<String> {
        if revision.len() == 40 && is_hash(revision) {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(self.refs.join(revision)).ok()?.trim().to_string();
        is_hash(&commit).then_some(commit)
    }

    /// Branches and tags with their commits.
    fn all_refs(&self) -> Vec<(String, String)> {
        let name =
            |path: &Path| Some(path.strip_prefix(&self.refs).ok()?.to_str()?.replace('\\', "/"));
        let pair = |path: PathBuf| {
            Some((name(&path)?, fs::read_to_string(&path).ok()?.trim().to_string()))
        };
        files_below(&self.refs).into_iter().filter_map(pair).collect()
    }
}

/// A model's directory, when all that it needs is in the cache.
pub fn find(settings: &Settings, repo: &Repo) -> Option<PathBuf> {
    find_part(settings, repo, Part::usable(repo))
}

/// As [`find`], for a part of the model.
pub fn find_part(settings: &Settings, repo: &Repo, part: Part) -> Option<PathBuf> {
    let layout = Layout::new(settings, repo);
    let snapshot = layout.snapshots.join(layout.commit(repo.revision())?);
    is_complete(repo, &snapshot, part).then_some(snapshot)
}

/// A snapshot in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The repository, at its first branch or else at the commit.
    pub repo: Repo,
    /// The commit; `None` when a pull was stopped before its first file.
    pub commit: Option<String>,
    /// Branches and tags that are this commit.
    pub refs: Vec<String>,
    /// The snapshot's folder, or the repository's where there is none.
    pub path: PathBuf,
    /// Size of its files.
    pub bytes: u64,
    /// Bytes of the repository that have arrived of files that are not there yet.
    pub bytes_partial: u64,
    /// Whether it can be used.
    pub complete: bool,
}

/// The snapshots of Z-Image models, safety checkers and depth networks in the cache, by name. Other people's models are left out.
pub fn list(settings: &Settings) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for folder in subfolders(&settings.cache_dir)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(repo) = Repo::of_folder(name) {
            entries.extend(entries_of(settings, &repo)?);
        }
    }
    entries.sort_by(|a, b| (a.repo.name(), &a.commit).cmp(&(b.repo.name(), &b.commit)));
    Ok(entries)
}

fn entries_of(settings: &Settings, repo: &Repo) -> Result<Vec<Entry>> {
    let layout = Layout::new(settings, repo);
    let refs = layout.all_refs();
    let partial = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "incomplete");
    let partial: u64 = files_below(&layout.blobs)
        .iter()
        .filter(|path| partial(path))
        .filter_map(|path| size(path))
        .sum();
    let mut entries = Vec::new();
    for path in subfolders(&layout.snapshots)? {
        let Some(commit) = path.file_name().and_then(|name| name.to_str()).map(String::from) else {
            continue;
        };
        if !is_ours(repo, &path) {
            continue;
        }
        let refs: Vec<String> =
            refs.iter().filter(|(_, to)| *to == commit).map(|(name, _)| name.clone()).collect();
        let bytes = files_below(&path).iter().filter_map(|path| size(path)).sum();
        let complete = is_complete(repo, &path, Part::usable(repo));
        let repo = repo.at(refs.first().unwrap_or(&commit)).unwrap_or_else(|_| repo.clone());
        entries.push(Entry {
            repo,
            commit: Some(commit),
            refs,
            path,
            bytes,
            bytes_partial: partial,
            complete,
        });
    }
    // A known repackaging has no small file that comes first and makes a snapshot.
    if entries.is_empty() && partial > 0 && known::repackaging_in(repo).is_some() {
        let (repo, path) = (repo.clone(), layout.root);
        entries.push(Entry {
            repo,
            commit: None,
            refs: vec![],
            path,
            bytes: 0,
            bytes_partial: partial,
            complete: false,
        });
    }
    Ok(entries)
}

/// How much of a repository [`remove`] takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All snapshots, and what has arrived of others.
    Repository,
    /// The snapshot of the repository's revision, and the blobs that no other one uses.
    Revision,
}

/// Takes a model out of the cache and returns how many bytes that freed.
pub fn remove(settings: &Settings, repo: &Repo, extent: Extent) -> Result<u64> {
    let layout = Layout::new(settings, repo);
    let missing = || Error::NotCached { id: repo.to_string(), dir: settings.cache_dir.clone() };
    if !layout.root.is_dir() {
        return Err(missing());
    }
    let locks = lock_all(&layout)?;
    if extent == Extent::Revision {
        let commit = layout.commit(repo.revision()).ok_or_else(missing)?;
        let snapshot = layout.snapshots.join(&commit);
        if !snapshot.is_dir() {
            return Err(missing());
        }
        remove_tree(&snapshot)?;
        for (name, _) in layout.all_refs().into_iter().filter(|(_, to)| *to == commit) {
            remove_file(&layout.refs.join(name))?;
        }
        if !subfolders(&layout.snapshots)?.is_empty() {
            return sweep(&layout);
        }
    }
    let freed = files_below(&layout.blobs).iter().filter_map(|path| size(path)).sum();
    remove_tree(&layout.root)?;
    drop(locks);
    if layout.locks.is_dir() {
        remove_tree(&layout.locks)?;
    }
    Ok(freed)
}

/// Deletes the blobs that no snapshot links to.
fn sweep(layout: &Layout) -> Result<u64> {
    let target = |path: &PathBuf| Some(fs::read_link(path).ok()?.file_name()?.to_os_string());
    let used: HashSet<_> = files_below(&layout.snapshots).iter().filter_map(target).collect();
    let mut freed = 0;
    for blob in files_below(&layout.blobs) {
        if blob.file_name().is_some_and(|name| !used.contains(name)) {
            freed += size(&blob).unwrap_or(0);
            remove_file(&blob)?;
        }
    }
    Ok(freed)
}

/// Every lock of a repository, so that nothing is pulled from under a download. They are free again when dropped.
fn lock_all(layout: &Layout) -> Result<Vec<fs::File>> {
    let lock = |path: PathBuf| {
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .map_err(Error::io(&path, "open the lock"))?;
        file.try_lock().map_err(|_| Error::Busy { path: layout.root.clone() })?;
        Ok(file)
    };
    files_below(&layout.locks).into_iter().map(lock).collect()
}

/// Whether a snapshot is of a model that can be used here.
fn is_ours(repo: &Repo, snapshot: &Path) -> bool {
    let class = json(&snapshot.join("model_index.json"))
        .and_then(|index| Some(index.get("_class_name")?.as_str()?.to_string()));
    known::repackaging_in(repo).is_some()
        || known::is_vision(repo)
        || class.is_some_and(|class| class.starts_with("ZImage"))
}

fn is_complete(repo: &Repo, snapshot: &Path, part: Part) -> bool {
    if let Some(known) = known::repackaging_in(repo) {
        return known.paths(snapshot).iter().all(|path| path.is_file());
    }
    let has = |name: &str| snapshot.join(name).is_file();
    if part == Part::Vision {
        return VISION.iter().all(|name| has(name));
    }
    let configs = [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "transformer/config.json",
        "vae/config.json",
    ];
    let tokenizer = has("tokenizer/tokenizer.json")
        || (has("tokenizer/vocab.json") && has("tokenizer/merges.txt"));
    let weights = || {
        ["text_encoder", "transformer", "vae"]
            .iter()
            .all(|folder| has_weights(&snapshot.join(folder)))
    };
    has("model_index.json")
        && configs.iter().all(|name| has(name))
        && tokenizer
        && (part == Part::Configs || weights())
}

/// Whether a component's folder has its weights: every shard that its index names, or a file.
fn has_weights(folder: &Path) -> bool {
    let names = |ending: &str| {
        files_below(folder)
            .into_iter()
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect::<Vec<_>>()
    };
    let shards = |index: &PathBuf| {
        let shards = json(index)
            .and_then(|index| Some(index.get("weight_map")?.as_object()?.clone()))
            .unwrap_or_default();
        let there = |name: &Value| {
            name.as_str().is_some_and(|name| is_safe_path(name) && folder.join(name).is_file())
        };
        !shards.is_empty() && shards.values().all(there)
    };
    match names(".safetensors.index.json") {
        indices if !indices.is_empty() => indices.iter().any(shards),
        // Shards without their index are what is left of a pull that was stopped.
        _ => names(".safetensors")
            .iter()
            .any(|path| path.is_file() && !path.to_string_lossy().contains("-of-")),
    }
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The size of the file that a path leads to.
fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|meta| meta.is_file()).map(|meta| meta.len())
}

/// Folders in a folder, sorted; none where it does not exist.
fn subfolders(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(dir, "read the folder"))?,
    };
    let mut folders: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// Files and links below a folder; links to folders are not followed.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(_) => files.push(entry.path()),
            Err(_) => {}
        }
    }
    files.sort();
    files
}

fn remove_tree(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(Error::io(path, "remove the folder"))
}

fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io(path, "remove the file"))
}

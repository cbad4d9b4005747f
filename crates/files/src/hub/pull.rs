//! Downloads a plan into the cache: several files at once, each resumed, verified, named and linked.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::cache::Layout;
use super::client::{Cause, Client, Failure};
use super::plan::free_bytes;
use super::{Error, File, Plan, Result, Settings};

/// An attempt that brought this much was worth it: the next failure counts as the first again.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Read and hashed at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How often a waiting thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);

/// What the caller hears while files arrive, from several threads. `file` is the index in [`Plan::files`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum Event {
    /// So many of the file's bytes are there; fewer than before when a server made it start anew.
    Position { file: usize, bytes: u64 },
    /// Another process downloads this file; it is waited for.
    Waiting { file: usize },
    /// An attempt failed, and the next one comes after this time.
    Retrying { file: usize, wait: Duration, why: String },
    /// The file is there and verified.
    Finished { file: usize },
}

/// Downloads what is missing and returns the snapshot's folder. `Break` from `progress` stops at the next chunk; what has
/// arrived stays, as it does when the process is killed.
pub fn pull(
    settings: &Settings,
    plan: &Plan,
    progress: &(dyn Fn(Event) -> ControlFlow<()> + Sync),
) -> Result<PathBuf> {
    plan.check_space(free_bytes(&plan.cache_dir)?)?;
    let layout = Layout::new(settings, &plan.repo);
    for dir in [&layout.blobs, &layout.snapshots, &layout.refs, &layout.locks] {
        fs::create_dir_all(dir).map_err(Error::io(dir, "make the folder"))?;
    }
    let stop = AtomicBool::new(false);
    let pull = Pull { client: Client::new(settings)?, plan, layout, progress, stop };
    pull.all_files(settings.connections)?;
    pull.write_ref()?;
    Ok(pull.snapshot())
}

struct Pull<'a> {
    client: Client,
    plan: &'a Plan,
    layout: Layout,
    progress: &'a (dyn Fn(Event) -> ControlFlow<()> + Sync),
    /// Set by the first failure: the others end at their next chunk.
    stop: AtomicBool,
}

impl Pull<'_> {
    fn all_files(&self, connections: usize) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(file) = self.plan.files.get(index)
            {
                self.file(index, file).inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..connections.max(1)).map(|_| scope.spawn(work)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or(Err(Error::Cancelled))
            };
            threads.into_iter().map(join).collect()
        });
        // The failure that stopped the others says more than their having been stopped.
        let errors = results.into_iter().filter_map(Result::err);
        errors.min_by_key(|error| matches!(error, Error::Cancelled)).map_or(Ok(()), Err)
    }

    fn file(&self, index: usize, file: &File) -> Result<()> {
        let _lock = self.lock(index, file)?;
        if !self.layout.has(file) {
            self.fetch(index, file)?;
        }
        self.link(file)?;
        self.tell(Event::Position { file: index, bytes: file.bytes })?;
        self.tell(Event::Finished { file: index })
    }

    /// The lock of `huggingface_hub` for this blob. Two names of one blob meet here too.
    fn lock(&self, index: usize, file: &File) -> Result<fs::File> {
        let path = self.layout.lock(file);
        let lock = fs::File::create(&path).map_err(Error::io(&path, "open the lock"))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(fs::TryLockError::Error(source)) => {
                    return Err(Error::io(path, "lock")(source));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    self.tell(Event::Waiting { file: index })?;
                    std::thread::sleep(TICK);
                }
            }
        }
    }

    fn fetch(&self, index: usize, file: &File) -> Result<()> {
        let path = self.layout.incomplete(file);
        let mut part = Part::open(&path, file)?;
        let (mut attempts, mut best) = (0, part.bytes);
        while part.bytes < file.bytes {
            let Err(failure) = self.attempt(index, file, &mut part) else { break };
            let (cause, wait) = match failure {
                Failure::Final(error) => {
                    if matches!(error, Error::Corrupt { .. }) {
                        part.delete()?;
                    }
                    return Err(error);
                }
                Failure::Again { cause, wait } => (cause, wait),
            };
            attempts = if part.bytes >= best + PROGRESS_BYTES { 1 } else { attempts + 1 };
            best = best.max(part.bytes);
            if attempts >= self.client.attempts() {
                return Err(self.given_up(file, part.bytes, attempts, cause));
            }
            self.wait(index, self.client.wait(attempts, wait), &cause)?;
        }
        part.finish(file, &self.layout.blob(file))
    }

    /// One request, and as much of its answer as comes.
    fn attempt(&self, index: usize, file: &File, part: &mut Part) -> Result<(), Failure> {
        self.tell(Event::Position { file: index, bytes: part.bytes }).map_err(Failure::Final)?;
        let answer =
            self.client.file(&self.plan.repo, &self.plan.commit, &file.name, part.bytes)?;
        if !continues(&answer, part.bytes) {
            part.restart(file).map_err(Failure::Final)?;
            if answer.status() != 200 {
                let error =
                    io::Error::other("the server answered with another range than was asked for");
                return Err(Failure::Again { cause: Cause::Body(error), wait: None });
            }
        }
        let mut body = answer.into_body().into_reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        while part.bytes < file.bytes {
            let count = match body.read(&mut chunk) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                count => count,
            };
            let count =
                count.map_err(|error| Failure::Again { cause: Cause::Body(error), wait: None })?;
            if count as u64 > file.bytes - part.bytes {
                return Err(Failure::Final(too_long(file)));
            }
            part.append(&chunk[..count]).map_err(Failure::Final)?;
            self.tell(Event::Position { file: index, bytes: part.bytes })
                .map_err(Failure::Final)?;
        }
        match body.read(&mut chunk) {
            Ok(1..) => Err(Failure::Final(too_long(file))),
            _ => Ok(()), // all bytes are there; how the connection ends is no matter
        }
    }

    fn given_up(&self, file: &File, done: u64, attempts: u32, cause: Cause) -> Error {
        match cause {
            Cause::Body(source) => {
                Error::Broken { file: file.name.clone(), attempts, done, total: file.bytes, source }
            }
            cause => self.client.given_up(cause, attempts),
        }
    }

    fn wait(&self, index: usize, wait: Duration, cause: &Cause) -> Result<()> {
        self.tell(Event::Retrying { file: index, wait, why: cause.describe() })?;
        let mut left = wait;
        while !left.is_zero() {
            let tick = left.min(TICK);
            std::thread::sleep(tick);
            left -= tick;
            self.check_stop()?;
        }
        Ok(())
    }

    fn tell(&self, event: Event) -> Result<()> {
        if (self.progress)(event).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.check_stop()
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn snapshot(&self) -> PathBuf {
        self.layout.snapshots.join(&self.plan.commit)
    }

    /// `snapshots/<commit>/<name>`, a relative link to the blob: the cache may be moved as a whole.
    fn link(&self, file: &File) -> Result<()> {
        let path = self.snapshot().join(&file.name);
        let blob = self.layout.blob(file);
        let up = "../".repeat(file.name.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", file.etag));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(path, "replace the link")(error))
            }
            _ => link_or_copy(&target, &blob, &path).map_err(Error::io(path, "link the file")),
        }
    }

    /// Last of all: until now `main` meant what was there before.
    fn write_ref(&self) -> Result<()> {
        let revision = self.plan.repo.revision();
        if revision == self.plan.commit {
            return Ok(());
        }
        let path = self.layout.refs.join(revision);
        let folder = path.parent().unwrap_or(&self.layout.refs);
        fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
        fs::write(&path, &self.plan.commit).map_err(Error::io(&path, "write the revision's commit"))
    }
}

#[cfg(unix)]
fn link_or_copy(target: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need a privilege on Windows; without it the cache has a second name for the bytes, or at worst a second copy.
#[cfg(not(unix))]
fn link_or_copy(_target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(drop))
}

/// Whether an answer's bytes go on at `offset`. A plain 200 is the whole file, which at 0 is the same.
fn continues(answer: &Response<Body>, offset: u64) -> bool {
    if answer.status() != 206 {
        return answer.status() == 200 && offset == 0;
    }
    let range = answer.headers().get("Content-Range").and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| {
        range.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok()
    });
    start == Some(offset)
}

fn too_long(file: &File) -> Error {
    let (expected, actual) = (format!("{} bytes", file.bytes), "more".into());
    Error::Corrupt { file: file.name.clone(), what: "the size", expected, actual }
}

/// `<etag>.incomplete`: what has arrived of a blob, and its hash so far.
struct Part {
    path: PathBuf,
    file: fs::File,
    bytes: u64,
    hash: Hash,
}

impl Part {
    /// Takes up what an earlier pull left.
    fn open(path: &Path, file: &File) -> Result<Self> {
        let mut options = fs::File::options();
        let handle = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io(path, "open"))?;
        let mut part = Self { path: path.into(), file: handle, bytes: 0, hash: Hash::new(file) };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = part.file.read(&mut chunk).map_err(Error::io(path, "read"))?;
            if count == 0 {
                break;
            }
            part.hash.update(&chunk[..count]);
            part.bytes += count as u64;
        }
        if part.bytes > file.bytes {
            part.restart(file)?;
        }
        Ok(part)
    }

    fn restart(&mut self, file: &File) -> Result<()> {
        let empty = self.file.set_len(0).and_then(|()| self.file.rewind());
        empty.map_err(Error::io(&self.path, "empty"))?;
        (self.bytes, self.hash) = (0, Hash::new(file));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Gives the blob its name, if it is what the hub said.
    fn finish(self, file: &File, blob: &Path) -> Result<()> {
        let actual = self.hash.clone().hex();
        if actual != file.etag {
            self.delete()?;
            let what = if file.etag.len() == 64 { "the SHA-256" } else { "git's SHA-1" };
            return Err(Error::Corrupt {
                file: file.name.clone(),
                what,
                expected: file.etag.clone(),
                actual,
            });
        }
        self.file.sync_all().map_err(Error::io(&self.path, "write"))?;
        fs::rename(&self.path, blob).map_err(Error::io(blob, "name the file"))
    }

    fn delete(&self) -> Result<()> {
        fs::remove_file(&self.path).map_err(Error::io(&self.path, "remove the damaged file"))
    }
}

/// What the hub names files by: SHA-256 for large ones, git's blob hash for those in the repository itself.
#[derive(Clone)]
enum Hash {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hash {
    fn new(file: &File) -> Self {
        if file.etag.len() == 64 {
            return Self::Sha256(Sha256::new());
        }
        Self::Git(Sha1::new_with_prefix(format!("blob {}\0", file.bytes)))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    fn hex(self) -> String {
        let digest = match self {
            Self::Sha256(hash) => hash.finalize().to_vec(),
            Self::Git(hash) => hash.finalize().to_vec(),
        };
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

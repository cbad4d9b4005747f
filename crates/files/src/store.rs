//! Where uploads and results lie: a folder or S3, under names that nobody can guess and no client can choose.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart,
};
use sha2::{Digest, Sha256};
use url::Url;

use crate::Name;

/// Why a file could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address of a store that cannot be used.
    #[error("the store `{address}` {problem}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// More bytes than are taken.
    #[error("the file has more than {bytes_max} bytes, the most that is taken")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The bytes stopped coming.
    #[error("the bytes stopped coming: {0}")]
    Input(String),
    /// The parts of an upload do not make a file.
    #[error("{0}")]
    Parts(String),
}

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What is known of a file without reading it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Bytes of it.
    pub size: u64,
    /// When it was stored.
    pub modified: SystemTime,
    /// The store's own tag of its content, if it has one.
    pub e_tag: Option<String>,
}

/// A file as it lies in the store.
pub struct Stored {
    /// Bytes of all of it.
    pub size: u64,
    /// When it was stored.
    pub modified: SystemTime,
    /// The store's own tag of its content, if it has one.
    pub e_tag: Option<String>,
    /// The bytes that come.
    pub range: Range<u64>,
    /// Them.
    pub stream: BoxStream<'static, std::io::Result<Bytes>>,
}

/// A folder or a bucket. Cheap to clone. Not `Debug`: it may hold keys.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    folder: Option<Arc<FilePath>>,
}

/// What is sent at once: S3 takes at most 10,000 pieces of at least 5 MiB, so this is good for 80 GB.
const CHUNK_BYTES: usize = 8 << 20;
/// Pieces under way at a time; with the one being filled, an upload holds three in memory.
const CHUNKS_AT_ONCE: usize = 2;
/// Where parts wait for the rest of their file; no name can lead there, as its first part is 32 characters.
const PARTS: &str = "parts";

impl Store {
    /// The store at `address`: a folder, made if it is missing, or `s3://bucket/prefix` with `options` named as
    /// object_store names them (`aws_endpoint`, `aws_access_key_id`, …). S3 needs rustls' default provider.
    pub fn open(address: &str, options: &[(String, String)]) -> Result<Self> {
        let wrong = |problem: String| StoreError::Address { address: address.into(), problem };
        match address.strip_prefix("s3://") {
            Some(bucket) => Self::bucket(bucket, options).map_err(wrong),
            None => Self::folder(address).map_err(wrong),
        }
    }

    fn bucket(text: &str, options: &[(String, String)]) -> Result<Self, String> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        if bucket.is_empty() {
            return Err("names no bucket; write s3://bucket/prefix".into());
        }
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        for (name, value) in options {
            let key: AmazonS3ConfigKey = name.parse().map_err(|_| {
                format!("has an option `{name}`, which S3 does not know; see object_store's AmazonS3ConfigKey")
            })?;
            builder = builder.with_config(key, value);
        }
        let prefix = Path::parse(prefix).map_err(|e| format!("has no usable prefix: {e}"))?;
        let store = builder.build().map_err(|e| format!("cannot be used: {e}"))?;
        Ok(Self { inner: Arc::new(store), prefix, folder: None })
    }

    fn folder(text: &str) -> Result<Self, String> {
        let folder = match Url::parse(text) {
            Ok(url) if url.scheme() == "file" => url.to_file_path().map_err(|()| {
                "is no path; write file:///folder, a plain folder, or s3://bucket/prefix"
                    .to_string()
            })?,
            _ if text.is_empty() || text.contains("://") => {
                return Err("is of no known kind; use a folder or s3://bucket/prefix".into());
            }
            _ => PathBuf::from(text),
        };
        let made = std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
        let folder = made.map_err(|e| format!("cannot be made: {e}"))?;
        let store = LocalFileSystem::new_with_prefix(&folder);
        let store = store.map_err(|e| format!("cannot be used: {e}"))?;
        // What is answered as stored must survive a power cut, as it does on S3.
        let store = store.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self { inner: Arc::new(store), prefix: Path::default(), folder: Some(folder.into()) })
    }

    fn path(&self, name: &Name) -> Path {
        self.prefix.clone().join(name.id()).join(name.file_name())
    }

    fn parts_of(&self, upload: &Name) -> Path {
        self.prefix.clone().join(PARTS).join(upload.id())
    }

    /// Stores a file: there in whole when this returns, or not at all.
    pub async fn put(&self, name: &Name, bytes: Bytes) -> Result<()> {
        self.inner.put(&self.path(name), bytes.into()).await?;
        Ok(())
    }

    /// Stores what comes, at most `bytes_max`; how much it was. Nothing stays of a file that is not whole, even if
    /// the caller stops waiting.
    pub async fn put_stream<E: fmt::Display>(
        &self,
        name: &Name,
        stream: impl Stream<Item = Result<Bytes, E>>,
        bytes_max: u64,
    ) -> Result<u64> {
        let mut draft = self.draft(name, bytes_max).await?;
        let stream = stream.map_err(|e| StoreError::Input(e.to_string()));
        let filled = draft.fill(stream, |_| ()).await;
        draft.end(filled).await
    }

    /// A file, or a range of it; `None` where there is none. A range that begins after the file's end is an error of
    /// the store, one that ends there is cut.
    pub async fn get(&self, name: &Name, range: Option<Range<u64>>) -> Result<Option<Stored>> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let Some(found) = self.find(name, options).await? else { return Ok(None) };
        let range = found.range.clone();
        let Head { size, modified, e_tag } = head_of(&found.meta);
        let stream = found.into_stream().map_err(std::io::Error::other).boxed();
        Ok(Some(Stored { size, modified, e_tag, range, stream }))
    }

    /// What is known of a file; `None` where there is none.
    pub async fn head(&self, name: &Name) -> Result<Option<Head>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        Ok(self.find(name, options).await?.map(|found| head_of(&found.meta)))
    }

    /// All of a file of at most `bytes_max`.
    pub async fn read(&self, name: &Name, bytes_max: u64) -> Result<Option<Bytes>> {
        let Some(found) = self.find(name, GetOptions::default()).await? else { return Ok(None) };
        if found.meta.size > bytes_max {
            return Err(StoreError::TooLarge { bytes_max });
        }
        Ok(Some(found.bytes().await?))
    }

    async fn find(&self, name: &Name, options: GetOptions) -> Result<Option<GetResult>> {
        match self.inner.get_opts(&self.path(name), options).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    /// Deletes a file; one that is not there is deleted already.
    pub async fn delete(&self, name: &Name) -> Result<()> {
        self.delete_at(&self.path(name)).await
    }

    async fn delete_at(&self, path: &Path) -> Result<()> {
        match self.inner.delete(path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Keeps part `number` of the file to come, instead of one of that number; its tag.
    pub async fn put_part(&self, upload: &Name, number: u32, bytes: Bytes) -> Result<String> {
        let tag = tag(Sha256::new_with_prefix(&bytes));
        let path = self.parts_of(upload).join(number.to_string());
        self.inner.put(&path, bytes.into()).await?;
        Ok(tag)
    }

    /// Makes the file of its parts, listed in any order with their tags, in order of their numbers; its size. The
    /// parts are gone afterwards, also those that were not listed; after an error they are still there.
    pub async fn join(
        &self,
        upload: &Name,
        parts: &[(u32, String)],
        bytes_max: u64,
    ) -> Result<u64> {
        let listed = in_order(parts)?;
        let kept = self.kept_parts(upload).await?;
        let mut size = 0;
        for number in listed.keys() {
            let missing = || StoreError::Parts(format!("part {number} was not uploaded; send it"));
            size += kept.get(number).ok_or_else(missing)?.size;
        }
        if size > bytes_max {
            return Err(StoreError::TooLarge { bytes_max });
        }
        let mut draft = self.draft(upload, bytes_max).await?;
        let copied = self.copy_parts(upload, &listed, &mut draft).await;
        let size = draft.end(copied).await?;
        if let Err(error) = self.abandon(upload).await {
            // The file is whole; `abandon_before` finds the rest.
            tracing::warn!(%error, "the parts of a finished upload could not be deleted");
        }
        Ok(size)
    }

    async fn copy_parts(
        &self,
        upload: &Name,
        listed: &BTreeMap<u32, &str>,
        draft: &mut Draft,
    ) -> Result<()> {
        for (number, wanted) in listed {
            let part = self.inner.get(&self.parts_of(upload).join(number.to_string())).await?;
            let mut hash = Sha256::new();
            draft.fill(part.into_stream().err_into(), |bytes| hash.update(bytes)).await?;
            let found = tag(hash);
            if !wanted.eq_ignore_ascii_case(&found) {
                return Err(StoreError::Parts(format!(
                    "part {number} was kept as `{found}`, but listed as `{wanted}`; send it again"
                )));
            }
        }
        Ok(())
    }

    /// Deletes the parts of an upload that will not be finished.
    pub async fn abandon(&self, upload: &Name) -> Result<()> {
        for part in self.kept_parts(upload).await?.values() {
            self.delete_at(&part.location).await?;
        }
        Ok(())
    }

    /// Deletes parts that were stored before `time`: of uploads that nobody finished. How many they were.
    pub async fn abandon_before(&self, time: SystemTime) -> Result<u64> {
        let all = self.prefix.clone().join(PARTS);
        let all: Vec<ObjectMeta> = self.inner.list(Some(&all)).try_collect().await?;
        let mut deleted = 0;
        for part in all.iter().filter(|part| SystemTime::from(part.last_modified) < time) {
            self.delete_at(&part.location).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// One listing for all of them: a request for each of thousands of parts would take minutes.
    async fn kept_parts(&self, upload: &Name) -> Result<BTreeMap<u32, ObjectMeta>> {
        let parts = self.inner.list(Some(&self.parts_of(upload)));
        let numbered = |part: ObjectMeta| Some((part.location.filename()?.parse().ok()?, part));
        Ok(parts.try_filter_map(|part| async { Ok(numbered(part)) }).try_collect().await?)
    }

    async fn draft(&self, name: &Name, bytes_max: u64) -> Result<Draft> {
        let upload = self.inner.put_multipart(&self.path(name)).await?;
        let upload = Some(WriteMultipart::new_with_chunk_size(upload, CHUNK_BYTES));
        let folder = self.folder.as_ref().map(|folder| folder.join(name.id()));
        Ok(Draft { upload, folder, size: 0, bytes_max })
    }
}

/// A file on its way into the store, which is not there before `end`. Dropped before that, it leaves nothing behind.
struct Draft {
    upload: Option<WriteMultipart>,
    /// The folder that a store on disk made for it.
    folder: Option<PathBuf>,
    size: u64,
    bytes_max: u64,
}

impl Draft {
    /// Appends what comes, showing it to `see` on its way.
    async fn fill(
        &mut self,
        stream: impl Stream<Item = Result<Bytes>>,
        mut see: impl FnMut(&[u8]),
    ) -> Result<()> {
        let upload = self.upload.as_mut().expect("a draft has an upload until it ends");
        let mut stream = pin!(stream);
        while let Some(bytes) = stream.try_next().await? {
            self.size += bytes.len() as u64;
            if self.size > self.bytes_max {
                return Err(StoreError::TooLarge { bytes_max: self.bytes_max });
            }
            see(&bytes);
            upload.wait_for_capacity(CHUNKS_AT_ONCE).await?;
            upload.put(bytes);
        }
        Ok(())
    }

    /// Makes it a file if it is whole, and nothing if not.
    async fn end(mut self, filled: Result<()>) -> Result<u64> {
        let upload = self.upload.take().expect("a draft ends once");
        let folder = self.folder.take();
        let done = match filled {
            Ok(()) => upload.finish().await.map(|_| self.size).map_err(StoreError::from),
            Err(error) => {
                discard(upload).await;
                Err(error)
            }
        };
        if done.is_err() {
            remove_empty(folder).await;
        }
        done
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let (Some(upload), folder) = (self.upload.take(), self.folder.take()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async {
                discard(upload).await;
                remove_empty(folder).await;
            });
        }
    }
}

async fn discard(upload: WriteMultipart) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, "the beginning of a file that was given up could not be deleted");
    }
}

/// A folder with another file in it stays: the system refuses to remove it.
async fn remove_empty(folder: Option<PathBuf>) {
    if let Some(folder) = folder {
        let _ = tokio::fs::remove_dir(folder).await;
    }
}

/// Parts by their numbers, with tags as we gave them out: clients send quotes along.
fn in_order(parts: &[(u32, String)]) -> Result<BTreeMap<u32, &str>> {
    if parts.is_empty() {
        return Err(StoreError::Parts("the list of parts is empty; list what was uploaded".into()));
    }
    let mut listed = BTreeMap::new();
    for (number, tag) in parts {
        let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
        if listed.insert(*number, tag).is_some() {
            let problem = format!("part {number} is listed more than once; list it once");
            return Err(StoreError::Parts(problem));
        }
    }
    Ok(listed)
}

fn head_of(meta: &ObjectMeta) -> Head {
    Head { size: meta.size, modified: meta.last_modified.into(), e_tag: meta.e_tag.clone() }
}

/// As long as S3's tags, which clients may expect.
fn tag(hash: Sha256) -> String {
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

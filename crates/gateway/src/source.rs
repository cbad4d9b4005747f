//! The pictures that an edit starts from, fetched and looked at once for all providers.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use zoetrope_api::images::{Code, ImageRequest, Input, Pixels, Problem};
use zoetrope_files::fetch::{Limit, data_uri};
use zoetrope_files::{Limits, Name};

use crate::gateway::House;

/// OpenAI's and fal's own limit for an image, and longer than any honest host takes.
const IMAGE: Limit = Limit { bytes_max: 50 << 20, timeout_ms: 30_000 };
/// Bytes of all pictures of one request: they are in memory until it ends.
const SUM_BYTES_MAX: u64 = 200 << 20;
/// Addresses that are fetched at once for one request.
const FETCHES_AT_ONCE: usize = 4;

/// What an edit starts from; empty for text to image.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// In the order in which they were sent.
    pub images: Vec<Source>,
    /// Of the first image's size; transparent where it is drawn anew.
    pub mask: Option<Source>,
}

/// A picture whose content was looked at, whatever its sender called it.
#[derive(Clone)]
pub struct Source {
    /// The file.
    pub bytes: Bytes,
    /// What it is, as `image/png`; told from the bytes.
    pub content_type: &'static str,
    /// Upright, as its EXIF data says.
    pub size: Pixels,
}

impl Sources {
    /// Fetches what `request` starts from, and looks at it. A problem names `image` or `mask`.
    pub async fn fetch(request: &ImageRequest, house: &House) -> Result<Self, Problem> {
        let Some(edit) = &request.edit else { return Ok(Self::default()) };
        let images = edit.images.iter().map(|input| ("image", input));
        let all = images.chain(edit.mask.iter().map(|input| ("mask", input)));
        // Boxed and all there before the first is waited for: closures that live across an await keep futures from being sent.
        let fetches: Vec<_> = all.map(|(param, input)| one(param, input, house)).collect();
        let mut fetched = stream::iter(fetches).buffered(FETCHES_AT_ONCE);
        let (mut sources, mut sum) = (Self::default(), 0);
        while let Some((param, bytes)) = fetched.next().await {
            let bytes = bytes?;
            sum += bytes.len() as u64;
            if sum > SUM_BYTES_MAX {
                let most = SUM_BYTES_MAX >> 20;
                let text = format!(
                    "The images together are larger than {most} MiB, the most that is taken."
                );
                return Err(Problem::invalid("image", text));
            }
            let source = look(param, bytes)?;
            match param {
                "mask" => sources.mask = Some(source),
                _ => sources.images.push(source),
            }
        }
        sources.check_mask()?;
        Ok(sources)
    }

    fn check_mask(&self) -> Result<(), Problem> {
        let (Some(mask), Some(size)) = (&self.mask, self.size()) else { return Ok(()) };
        if mask.size == size {
            return Ok(());
        }
        let text = format!(
            "Invalid mask image: it has {} pixels and the image {size}; send one of the image's size.",
            mask.size
        );
        Err(Problem::invalid("mask", text))
    }

    /// The size that `auto` means for an edit.
    pub fn size(&self) -> Option<Pixels> {
        self.images.first().map(|image| image.size)
    }
}

/// Without megabytes.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, content_type, size } = self;
        write!(f, "{content_type} of {size} in {} bytes", bytes.len())
    }
}

/// The bytes, and which of the two they are.
fn one<'a>(
    param: &'static str,
    input: &'a Input,
    house: &'a House,
) -> BoxFuture<'a, (&'static str, Result<Bytes, Problem>)> {
    Box::pin(async move { (param, fetch(param, input, house).await) })
}

/// The bytes, wherever they are: in the request, in our own store, or at an address.
async fn fetch(param: &str, input: &Input, house: &House) -> Result<Bytes, Problem> {
    let unusable = |why: &dyn fmt::Display| {
        Problem::invalid(param, format!("Invalid image file provided: {why}"))
    };
    let url = match input {
        Input::Bytes(bytes) if bytes.len() as u64 > IMAGE.bytes_max => {
            let most = IMAGE.bytes_max >> 20;
            return Err(unusable(&format!("it is larger than {most} MiB, the most that is taken")));
        }
        Input::Bytes(bytes) => return Ok(bytes.clone()),
        Input::Url(url) => url,
    };
    if url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        return Ok(data_uri(url, IMAGE.bytes_max).map_err(|error| unusable(&error))?.bytes);
    }
    match own_file(url, house).await? {
        Some(name) => {
            let read = house.store.read(&name, IMAGE.bytes_max).await.map_err(failed)?;
            read.ok_or_else(|| unusable(&"there is no such file on this server any more"))
        }
        None => Ok(house.fetcher.get(url, IMAGE).await.map_err(|error| unusable(&error))?.bytes),
    }
}

/// The file of ours that `url` means, under whatever name this server was reached: names are random, so that one that is in the
/// store is the one that was meant.
async fn own_file(url: &str, house: &House) -> Result<Option<Name>, Problem> {
    let Some(name) = name_in(url) else { return Ok(None) };
    let row = house.queue.file(name.as_str()).await.map_err(failed)?;
    let now_ms = (house.now_ms)();
    let there = row
        .is_some_and(|row| row.size >= 0 && row.expires_ms.is_none_or(|expires| expires > now_ms));
    Ok(there.then_some(name))
}

/// The name at the end of `https://HOST/files/ID/FILE`.
fn name_in(url: &str) -> Option<Name> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    Name::parse(path.strip_prefix("files/")?.split(['?', '#']).next()?)
}

/// What failed is ours; it may name places of ours, so that only the log has it.
pub(crate) fn failed(error: impl fmt::Display) -> Problem {
    let error = zoetrope_files::redacted(&error.to_string());
    tracing::error!(error, "a file of the gateway could not be read or written");
    Problem::new(Code::InternalError, "A file could not be read or written; try again.")
}

/// Whatever its sender called it: front-ends name every file `image.png`.
fn look(param: &str, bytes: Bytes) -> Result<Source, Problem> {
    let limits = Limits { bytes_max: IMAGE.bytes_max, ..Limits::default() };
    let header = zoetrope_files::header(&bytes, &limits).map_err(|error| {
        Problem::invalid(param, format!("Invalid image file provided: the file {error}"))
    })?;
    let size = Pixels::new(header.width, header.height);
    Ok(Source { bytes, content_type: header.content_type, size })
}

//! The one guarded door to addresses that users chose: images, adapters, webhooks.
//!
//! Only http and https; never an address of this machine or its network, unless that is allowed; every redirect is looked at
//! again; a name is resolved once, and the connection goes to the address that was looked at.

mod address;
mod data_uri;
mod error;
mod resolve;

use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, Method, Response, StatusCode, redirect};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use url::{Host, Url};

pub use data_uri::data_uri;
pub use error::FetchError;
use resolve::{Resolver, Unresolved};

/// What may be fetched.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Whether addresses of this machine and its network may be fetched.
    pub private: bool,
    /// Hosts, without ports, that may be fetched wherever they are, as the configured hub.
    pub hosts: Vec<String>,
    /// Certificates (DER) that are trusted besides the system's.
    pub roots: Vec<Vec<u8>>,
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes of the answer.
    pub bytes_max: u64,
    /// Milliseconds from the first redirect to the last byte.
    pub timeout_ms: u64,
}

/// What came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// All of it.
    pub bytes: Bytes,
    /// What its sender says that it is.
    pub content_type: Option<String>,
}

type Result<T, E = FetchError> = std::result::Result<T, E>;

/// Redirects that are followed: a shortener, the hub and its storage take three.
const REDIRECTS_MAX: usize = 5;
/// Bytes of an address, as fal has it.
const ADDRESS_BYTES_MAX: usize = 2048;
/// Bytes of an address that an answer leads to: storage signs its own at length.
const REDIRECT_BYTES_MAX: usize = 8192;
/// A host that has not answered the first packets by now will not.
const CONNECT_MS: u64 = 10_000;

/// Fetches under [`Rules`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    rules: Arc<Rules>,
}

impl Fetcher {
    /// A fetcher under `rules`; an error where no certificates can be had. Panics where rustls has no default provider.
    pub fn new(rules: Rules) -> reqwest::Result<Self> {
        let roots: Vec<Certificate> =
            rules.roots.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
        let rules = Arc::new(rules);
        let client = Client::builder()
            .no_proxy() // a proxy would resolve names itself
            .redirect(redirect::Policy::none()) // followed here, where each is looked at
            .referer(false)
            .pool_max_idle_per_host(0) // each request connects anew, to an address that is looked at anew
            .connect_timeout(Duration::from_millis(CONNECT_MS))
            .user_agent(concat!("zoetrope/", env!("CARGO_PKG_VERSION")))
            .tls_certs_merge(roots)
            .dns_resolver(Resolver(rules.clone()))
            .build()?;
        Ok(Self { client, rules })
    }

    /// All of the answer to a `GET` of `url`.
    pub async fn get(&self, url: &str, limit: Limit) -> Result<Fetched> {
        let work = async {
            let (response, host) = self.follow(url).await?;
            let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
            let content_type = content_type.map(String::from);
            let mut bytes = BytesMut::new();
            let mut parts = pin!(bounded(response, host, limit.bytes_max)?);
            while let Some(part) = parts.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            Ok(Fetched { bytes: bytes.freeze(), content_type })
        };
        within(limit.timeout_ms, url, work).await
    }

    /// Writes the answer to `path`, which holds all of it or is as it was; how much it was.
    pub async fn download(&self, url: &str, limit: Limit, path: &Path) -> Result<u64> {
        let work = async {
            let (response, host) = self.follow(url).await?;
            let mut parts = pin!(bounded(response, host, limit.bytes_max)?);
            // Deleted when dropped, so also when the time is over or the caller stops waiting.
            let (file, temporary) = beside(path)?.into_parts();
            let (mut file, mut size) = (tokio::fs::File::from_std(file), 0);
            while let Some(part) = parts.try_next().await? {
                size += part.len() as u64;
                file.write_all(&part).await?;
            }
            file.sync_all().await?;
            crate::write::readable(&temporary)?;
            temporary.persist(path).map_err(|e| e.error)?;
            Ok(size)
        };
        within(limit.timeout_ms, url, work).await
    }

    /// Posts `body` and tells the status; redirects are not followed, and the answer's body is not read.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: Bytes,
        timeout_ms: u64,
    ) -> Result<u16> {
        self.send(Method::POST, url, headers, body, timeout_ms).await
    }

    /// The same with another method, as `PUT` to an address that storage has signed.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(String, String)],
        body: Bytes,
        timeout_ms: u64,
    ) -> Result<u16> {
        let work = async {
            let url = self.look(url, REDIRECT_BYTES_MAX)?;
            let host = host_of(&url);
            let request = self.client.request(method, url).headers(carried(headers)?).body(body);
            let response = request.send().await.map_err(|error| failed(&error, &host))?;
            Ok(response.status().as_u16())
        };
        within(timeout_ms, url, work).await
    }

    /// Whether `url` may be fetched, without fetching it: for telling its sender while they still listen.
    pub async fn check(&self, url: &str) -> Result<()> {
        let work = async {
            let url = self.look(url, ADDRESS_BYTES_MAX)?;
            let host = host_of(&url);
            match url.host() {
                Some(Host::Domain(name)) => {
                    let found = self.rules.resolve(name).await;
                    found.map(drop).map_err(|why| unresolved(why, &host))
                }
                _ => Ok(()),
            }
        };
        within(CONNECT_MS, url, work).await
    }

    /// The answer at the end of the redirects, and whose it is.
    async fn follow(&self, url: &str) -> Result<(Response, String)> {
        let mut url = self.look(url, ADDRESS_BYTES_MAX)?;
        let first = host_of(&url);
        for _ in 0..=REDIRECTS_MAX {
            let host = host_of(&url);
            let sent = self.client.get(url.clone()).send().await;
            let response = sent.map_err(|error| failed(&error, &host))?;
            let status = response.status();
            if status.is_success() && status != StatusCode::NO_CONTENT {
                return Ok((response, host));
            }
            url = match target(&response, &url) {
                Some(next) => self.look(next.as_str(), REDIRECT_BYTES_MAX)?,
                None => return Err(FetchError::Status { host, status: status.as_u16() }),
            };
        }
        Err(FetchError::Redirects { host: first, redirects_max: REDIRECTS_MAX })
    }

    /// The address that `text` is, once it may be fetched as far as can be told before its name is resolved.
    fn look(&self, text: &str, bytes_max: usize) -> Result<Url> {
        let wrong = |problem| FetchError::Address { address: shown(text), problem };
        if text.len() > bytes_max {
            return Err(wrong("it is too long; send at most 2048 bytes, or upload the file"));
        }
        let url = Url::parse(text).map_err(|_| wrong("send https://…"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("only http and https are fetched"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user name; send one without"));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return Ok(url), // the resolver looks at what it means
            None => return Err(wrong("it has no host; send https://…")),
        };
        let host = host_of(&url);
        if self.rules.allow(&host, address) { Ok(url) } else { Err(FetchError::Forbidden { host }) }
    }
}

/// Where a redirect leads.
fn target(response: &Response, from: &Url) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        .then(|| from.join(location).ok())?
}

/// The body, ending in an error once more than `bytes_max` have come; at once if more are announced.
fn bounded(
    response: Response,
    host: String,
    bytes_max: u64,
) -> Result<impl Stream<Item = Result<Bytes>>> {
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(FetchError::TooLarge { bytes_max });
    }
    let mut size = 0;
    Ok(response.bytes_stream().map(move |part| {
        let part = part.map_err(|error| failed(&error, &host))?;
        size += part.len() as u64;
        if size > bytes_max { Err(FetchError::TooLarge { bytes_max }) } else { Ok(part) }
    }))
}

/// A file that will be renamed to `path`, and so lies in the same folder.
fn beside(path: &Path) -> std::io::Result<NamedTempFile> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => NamedTempFile::new_in(folder),
        _ => NamedTempFile::new_in("."),
    }
}

fn carried(headers: &[(String, String)]) -> Result<HeaderMap> {
    let pair = |(name, value): &(String, String)| {
        let wrong = || FetchError::Header(name.clone());
        let value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        Ok((HeaderName::try_from(name).map_err(|_| wrong())?, value))
    };
    headers.iter().map(pair).collect()
}

/// All of it, however slowly each byte comes.
async fn within<T>(timeout_ms: u64, url: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let timed = tokio::time::timeout(Duration::from_millis(timeout_ms), work).await;
    timed.unwrap_or_else(|_| {
        let host = Url::parse(url).map_or_else(|_| shown(url), |url| host_of(&url));
        Err(FetchError::TimedOut { host, timeout_ms })
    })
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').into()
}

/// The cause may name addresses of the inside: it is logged, and not shown.
fn failed(error: &reqwest::Error, host: &str) -> FetchError {
    tracing::debug!(?error, host, "a fetch failed");
    match Unresolved::of(error) {
        Some(why) => unresolved(why, host),
        None => FetchError::Connection { host: host.into() },
    }
}

fn unresolved(why: Unresolved, host: &str) -> FetchError {
    match why {
        Unresolved::Forbidden => FetchError::Forbidden { host: host.into() },
        Unresolved::Unknown => FetchError::Connection { host: host.into() },
    }
}

/// The beginning of what was sent.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

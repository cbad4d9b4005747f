//! A hub on a loopback port, which misbehaves as it is told.

// Each test program that includes it uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const REPO: &str = "Tongyi-MAI/Z-Image-Turbo";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What befalls requests for a file's bytes, one request after the other; then all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection closes after half of the bytes that were promised.
    Break,
    /// The same half, but the connection stays open and silent.
    Stall,
    /// An answer with this status, and `Retry-After: 0` with 429.
    Status(u16),
    /// 200 with everything, whatever was asked for.
    IgnoreRange,
}

/// Names and bytes.
pub(crate) type Files = HashMap<String, Vec<u8>>;

/// What the hub has, and what it has seen.
#[derive(Default)]
pub(crate) struct Hub {
    pub(crate) files: Files,
    /// Repositories besides `REPO`.
    pub(crate) also: HashMap<String, Files>,
    /// File name to the faults of its next answers.
    pub(crate) faults: HashMap<String, Vec<Fault>>,
    /// Statuses of the next listings.
    pub(crate) listing_faults: Vec<u16>,
    /// A name that is listed besides the files.
    pub(crate) extra_name: Option<String>,
    /// A file of which the listing gives the wrong hash.
    pub(crate) lies_about: Option<String>,
    /// Whoever asks without this token is refused.
    pub(crate) token: Option<String>,
    /// `path range` of every request, in order.
    pub(crate) seen: Vec<String>,
}

pub(crate) type Shared = Arc<Mutex<Hub>>;

/// The fixture's files, with some that nobody should download.
pub(crate) fn fixture() -> Hub {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/turbo/model");
    let mut hub = Hub::default();
    add(&root, &root, &mut hub.files);
    for surplus in [
        "assets/showcase.jpg",
        "vae/diffusion_pytorch_model.bin",
        "transformer/diffusion_pytorch_model.fp16.safetensors",
    ] {
        hub.files.insert(surplus.into(), vec![7; 5000]);
    }
    hub
}

fn add(root: &Path, dir: &Path, files: &mut HashMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// Starts to serve and returns the address.
pub(crate) fn serve(hub: Hub) -> (String, Shared) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Mutex::new(hub));
    let hub = shared.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let hub = hub.clone();
            std::thread::spawn(move || answer(stream, &hub));
        }
    });
    (address, shared)
}

/// One request a connection.
fn answer(mut stream: TcpStream, hub: &Shared) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_string();
    let headers: HashMap<String, String> = lines
        .map_while(|line| line.ok().filter(|line| !line.is_empty()))
        .filter_map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string()))
        })
        .collect();
    let range = headers.get("range").cloned().unwrap_or_default();
    let mut hub = hub.lock().unwrap();
    hub.seen.push(format!("{path} {range}").trim_end().to_string());

    let wanted = hub.token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some()
        && !path.starts_with("/storage/")
        && headers.get("authorization") != wanted.as_ref()
    {
        return head(&mut stream, 401, "Content-Length: 0\r\n");
    }
    if path.starts_with("/api/") {
        let status = if hub.listing_faults.is_empty() { 200 } else { hub.listing_faults.remove(0) };
        let repo = path.strip_prefix("/api/models/").and_then(|rest| rest.split_once("/revision/"));
        let known = repo.filter(|(repo, rest)| rest.ends_with("?blobs=true") && hub.has(repo));
        return match (status, known) {
            (200, Some((repo, _))) => {
                let listing = listing(&hub, repo);
                head(&mut stream, 200, &format!("Content-Length: {}\r\n", listing.len()))?;
                stream.write_all(listing.as_bytes()).ok()
            }
            (200, None) => head(&mut stream, 404, "Content-Length: 0\r\n"),
            (status, _) => head(&mut stream, status, "Retry-After: 0\r\nContent-Length: 0\r\n"),
        };
    }
    // As the hub does: the address of a file leads to a storage elsewhere.
    let resolve = format!("/resolve/{COMMIT}/");
    if let Some((repo, name)) = path[1..].split_once(&resolve).filter(|(repo, _)| hub.has(repo)) {
        let status = match hub
            .faults
            .get_mut(name)
            .filter(|faults| matches!(faults.first(), Some(Fault::Status(_))))
        {
            Some(faults) => faults.remove(0),
            None => {
                let port = stream.local_addr().ok()?.port(); // the same server under the name of another host
                let place = if repo == REPO { name.into() } else { format!("{repo}/{name}") };
                let location = format!(
                    "Location: http://localhost:{port}/storage/{place}\r\nContent-Length: 0\r\n"
                );
                return head(&mut stream, 302, &location);
            }
        };
        let Fault::Status(status) = status else { return None };
        return head(&mut stream, status, "Retry-After: 0\r\nContent-Length: 0\r\n");
    }
    let name = path.strip_prefix("/storage/")?.to_string();
    if headers.contains_key("authorization") {
        return head(&mut stream, 403, "Content-Length: 0\r\n"); // the token is none of the storage's business
    }
    let fault = hub
        .faults
        .get_mut(&name)
        .filter(|faults| !faults.is_empty())
        .map(|faults| faults.remove(0));
    let elsewhere = |(repo, files): (&String, &Files)| {
        files.get(name.strip_prefix(&format!("{repo}/"))?).cloned()
    };
    let bytes = hub.files.get(&name).cloned().or_else(|| hub.also.iter().find_map(elsewhere))?;
    drop(hub);
    send(&mut stream, &bytes, &range, fault)
}

fn send(stream: &mut TcpStream, bytes: &[u8], range: &str, fault: Option<Fault>) -> Option<()> {
    let asked = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    let start = asked.filter(|_| fault != Some(Fault::IgnoreRange));
    let rest = &bytes[start.unwrap_or(0)..];
    let length = format!("Content-Length: {}\r\n", rest.len());
    match start {
        None => head(stream, 200, &length)?,
        Some(start) => head(
            stream,
            206,
            &format!(
                "{length}Content-Range: bytes {start}-{}/{}\r\n",
                bytes.len() - 1,
                bytes.len()
            ),
        )?,
    }
    match fault {
        Some(Fault::Break) => stream.write_all(&rest[..rest.len() / 2]).ok(),
        Some(Fault::Stall) => {
            stream.write_all(&rest[..rest.len() / 2]).ok()?;
            std::thread::sleep(Duration::from_secs(5));
            None
        }
        _ => stream.write_all(rest).ok(),
    }
}

fn head(stream: &mut TcpStream, status: u16, headers: &str) -> Option<()> {
    write!(stream, "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\n\r\n").ok()
}

impl Hub {
    fn has(&self, repo: &str) -> bool {
        repo == REPO || self.also.contains_key(repo)
    }
}

fn listing(hub: &Hub, repo: &str) -> String {
    let here = if repo == REPO { &hub.files } else { &hub.also[repo] };
    let mut files: Vec<String> = here.iter().map(|(name, bytes)| entry(hub, name, bytes)).collect();
    files.extend(hub.extra_name.as_ref().map(|name| entry(hub, name, b"evil")));
    format!(
        r#"{{"id":"{repo}","sha":"{COMMIT}","private":false,"siblings":[{}]}}"#,
        files.join(",")
    )
}

fn entry(hub: &Hub, name: &str, bytes: &[u8]) -> String {
    let honest = hub.lies_about.as_deref() != Some(name);
    let size = bytes.len();
    if !name.ends_with(".safetensors") {
        let git = if honest { git_hash(bytes) } else { "0".repeat(40) };
        return format!(r#"{{"rfilename":"{name}","size":{size},"blobId":"{git}"}}"#);
    }
    let sha256 = if honest { sha256(bytes) } else { "0".repeat(64) };
    format!(
        r#"{{"rfilename":"{name}","size":{size},"blobId":"1","lfs":{{"sha256":"{sha256}","size":{size},"pointerSize":135}}}}"#
    )
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn git_hash(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The store, on a folder and on a bucket: the same answers from both, and nothing left of what failed.
//!
//! The bucket that is always there is the test's own, so that half-sent uploads can be looked at. With
//! `python tests/services.py cargo test -p zoetrope-files` there is one on a real S3-compatible server too.

#![allow(clippy::unwrap_used)]

mod bucket;
mod loopback;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bucket::Bucket;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as StorePath;
use proptest::prelude::*;
use tempfile::TempDir;
use zoetrope_files::{Name, Store, StoreError, content_type};

/// Folders that are not there until a store is opened.
const MADE: &str = "made/now";

/// Where a store is.
enum Place {
    Folder(TempDir),
    Bucket(Arc<Mutex<Bucket>>),
    Server(AmazonS3, StorePath),
}

/// The endpoint of an S3-compatible server, and what `services.py` agrees with it on.
const S3: &str = "ZOETROPE_TEST_S3";
const S3_KEY: &str = "test-key";
const S3_SECRET: &str = "test-secret";
const S3_BUCKET: &str = "pictures";

impl Place {
    /// The files that lie there, and for a folder the folders too; of a bucket also what is half sent.
    async fn all(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => walk(&folder.path().join(MADE), Path::new("")),
            Self::Bucket(bucket) => {
                let bucket = bucket.lock().unwrap();
                bucket.objects.keys().chain(bucket.uploads.keys()).cloned().collect()
            }
            Self::Server(server, prefix) => {
                let objects: Vec<_> = server.list(Some(prefix)).try_collect().await.unwrap();
                objects.iter().map(|object| object.location.to_string()).collect()
            }
        }
    }
}

/// What is in `folder` of `root`, in whatever depth.
fn walk(root: &Path, folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(folder)).unwrap();
    let names = entries.map(|entry| folder.join(entry.unwrap().file_name()));
    let each = names.flat_map(|name| {
        let inside = if root.join(&name).is_dir() { walk(root, &name) } else { Vec::new() };
        inside.into_iter().chain([name.display().to_string()])
    });
    each.collect()
}

async fn places() -> Vec<(Store, Place)> {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = Store::open(folder.path().join(MADE).to_str().unwrap(), &[]).unwrap();

    let _ = rustls::crypto::ring::default_provider().install_default(); // another test was first
    let (server, bucket) = bucket::start().await;
    let options = options(&server.url(""), "us", "secret");
    let in_bucket = Store::open("s3://files/some/prefix", &options).unwrap();
    let mut places = vec![(on_disk, Place::Folder(folder)), (in_bucket, Place::Bucket(bucket))];
    places.extend(endpoint().map(|endpoint| on_server(&endpoint)));
    places
}

fn options(endpoint: &str, key: &str, secret: &str) -> Vec<(String, String)> {
    let options = [
        ("aws_endpoint", endpoint),
        ("aws_access_key_id", key),
        ("aws_secret_access_key", secret),
        ("aws_region", "here"),
        ("aws_allow_http", "true"),
    ];
    options.map(|(name, value)| (name.to_string(), value.to_string())).into()
}

#[expect(clippy::disallowed_methods, reason = "only whoever starts the tests can say")]
fn endpoint() -> Option<String> {
    std::env::var(S3).ok()
}

/// A place of the test's own in the bucket of the server at `endpoint`.
fn on_server(endpoint: &str) -> (Store, Place) {
    let prefix = Name::new("prefix").id().to_string();
    let options = options(endpoint, S3_KEY, S3_SECRET);
    let store = Store::open(&format!("s3://{S3_BUCKET}/{prefix}"), &options).unwrap();
    let mut builder = AmazonS3Builder::new().with_bucket_name(S3_BUCKET);
    for (name, value) in options {
        builder = builder.with_config(name.parse().unwrap(), value);
    }
    (store, Place::Server(builder.build().unwrap(), StorePath::from(prefix)))
}

#[tokio::test]
#[ignore = "needs an S3-compatible server: python tests/services.py cargo test -p zoetrope-files -- --ignored"]
async fn a_wrong_secret_is_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default(); // another test was first
    let endpoint = endpoint().unwrap_or_else(|| panic!("{S3} names no server"));
    let options = options(&endpoint, S3_KEY, "another secret");
    let store = Store::open(&format!("s3://{S3_BUCKET}"), &options).unwrap();
    store.put(&Name::new("a.png"), Bytes::from_static(b"a")).await.unwrap_err();
}

/// A stream of pieces of 1 MiB, each of one byte's value.
fn pieces(count: u8) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> + Unpin {
    stream::iter((0..count).map(|value| Ok(vec![value; 1 << 20].into())))
}

async fn all_of(store: &Store, name: &Name, range: Option<std::ops::Range<u64>>) -> Vec<u8> {
    let stored = store.get(name, range).await.unwrap().unwrap();
    let parts: Vec<Bytes> = stored.stream.try_collect().await.unwrap();
    parts.concat()
}

#[tokio::test]
async fn what_is_put_is_got_in_whole_and_in_ranges_until_it_is_deleted() {
    for (store, place) in places().await {
        let name = Name::new("cat.png");
        assert!(store.get(&name, None).await.unwrap().is_none());
        assert!(store.head(&name).await.unwrap().is_none());
        assert!(store.read(&name, 100).await.unwrap().is_none());

        store.put(&name, Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(all_of(&store, &name, None).await, b"0123456789");
        assert_eq!(all_of(&store, &name, Some(2..5)).await, b"234");
        assert_eq!(all_of(&store, &name, Some(8..100)).await, b"89");
        let part = store.get(&name, Some(2..5)).await.unwrap().unwrap();
        assert_eq!((part.size, part.range), (10, 2..5));
        assert!(part.e_tag.is_some() && part.modified > SystemTime::UNIX_EPOCH);
        assert!(store.get(&name, Some(10..11)).await.is_err());
        assert_eq!(store.head(&name).await.unwrap().unwrap().size, 10);
        assert_eq!(&store.read(&name, 10).await.unwrap().unwrap()[..], b"0123456789");
        let refused = store.read(&name, 9).await.unwrap_err();
        assert_eq!(refused.to_string(), "the file has more than 9 bytes, the most that is taken");

        store.delete(&name).await.unwrap();
        store.delete(&name).await.unwrap();
        assert_eq!(place.all().await, [""; 0]);
    }
}

#[tokio::test]
async fn a_stream_is_stored_up_to_its_limit_exactly() {
    for (store, _place) in places().await {
        for (count, bytes_max) in [(0, 0), (1, 1 << 20), (20, 20 << 20)] {
            let name = Name::new("style.safetensors");
            let size = store.put_stream(&name, pieces(count), bytes_max).await.unwrap();
            assert_eq!(size, u64::from(count) << 20);
            let want: Vec<u8> = (0..count).flat_map(|value| vec![value; 1 << 20]).collect();
            assert!(all_of(&store, &name, None).await == want, "{count}");
        }
    }
}

#[tokio::test]
async fn of_a_stream_that_is_too_large_or_breaks_nothing_stays() {
    for (store, place) in places().await {
        let name = Name::new("style.safetensors");
        let got = store.put_stream(&name, pieces(20), (20 << 20) - 1).await;
        assert!(matches!(got, Err(StoreError::TooLarge { bytes_max: 20_971_519 })), "{got:?}");
        assert_eq!(place.all().await, [""; 0]);

        let gone = stream::iter([Err(std::io::Error::other("the client left"))]);
        let got = store.put_stream(&name, pieces(20).chain(gone), 1 << 30).await;
        assert_eq!(got.unwrap_err().to_string(), "the bytes stopped coming: the client left");
        assert_eq!(place.all().await, [""; 0]);
    }
}

#[tokio::test]
async fn of_a_stream_whose_receiver_stops_waiting_nothing_stays() {
    for (store, place) in places().await {
        let name = Name::new("style.safetensors");
        let stuck = pieces(20).chain(stream::pending());
        let put = store.put_stream(&name, stuck, 1 << 30);
        tokio::time::timeout(Duration::from_millis(500), put).await.unwrap_err();
        for _ in 0..100 {
            if place.all().await.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(place.all().await, [""; 0]);
    }
}

#[tokio::test]
async fn parts_in_any_order_become_the_file_in_the_order_of_their_numbers() {
    for (store, place) in places().await {
        let name = Name::new("style.safetensors");
        let mut parts = Vec::new();
        for number in [10, 2, 1, 3] {
            store.put_part(&name, number, Bytes::from_static(b"another")).await.unwrap();
            let bytes = vec![number as u8; 3 << 20];
            parts.push((number, store.put_part(&name, number, bytes.into()).await.unwrap()));
        }
        assert_eq!(parts[0].1.len(), 32);
        parts[1].1 = format!("\"{}\"", parts[1].1);
        parts[2].1 = format!("W/\"{}\"", parts[2].1.to_uppercase());
        store.put_part(&name, 4, Bytes::from_static(b"not listed")).await.unwrap();
        assert_eq!(store.join(&name, &parts, 12 << 20).await.unwrap(), 12 << 20);
        let want: Vec<u8> = [1, 2, 3, 10].iter().flat_map(|n| vec![*n; 3 << 20]).collect();
        assert!(all_of(&store, &name, None).await == want);
        store.delete(&name).await.unwrap();
        assert_eq!(place.all().await, [""; 0]);
    }
}

#[tokio::test]
async fn parts_that_make_no_file_are_refused_and_stay_until_they_are_given_up() {
    for (store, place) in places().await {
        let name = Name::new("a.bin");
        let one = store.put_part(&name, 1, Bytes::from_static(b"one")).await.unwrap();
        let two = store.put_part(&name, 2, Bytes::from_static(b"two")).await.unwrap();
        let of = |list: &[(u32, &String)]| -> Vec<(u32, String)> {
            list.iter().map(|(number, tag)| (*number, (*tag).clone())).collect()
        };
        let swapped = format!("part 1 was kept as `{one}`, but listed as `{two}`; send it again");
        let cases = [
            (of(&[]), 100, "the list of parts is empty; list what was uploaded"),
            (of(&[(1, &one), (1, &one)]), 100, "part 1 is listed more than once; list it once"),
            (of(&[(1, &one), (3, &two)]), 100, "part 3 was not uploaded; send it"),
            (of(&[(1, &two), (2, &two)]), 100, &swapped),
            (
                of(&[(1, &one), (2, &two)]),
                5,
                "the file has more than 5 bytes, the most that is taken",
            ),
        ];
        let before = place.all().await;
        for (parts, bytes_max, want) in cases {
            let got = store.join(&name, &parts, bytes_max).await.unwrap_err();
            assert_eq!(got.to_string(), want);
            assert_eq!(place.all().await, before);
        }
        store.abandon(&name).await.unwrap();
        store.abandon(&name).await.unwrap();
        assert_eq!(place.all().await, [""; 0]);
    }
}

#[tokio::test]
async fn parts_that_nobody_asked_for_in_time_are_deleted() {
    for (store, place) in places().await {
        let (upload, file) = (Name::new("a.bin"), Name::new("b.bin"));
        assert_eq!(store.abandon_before(SystemTime::now()).await.unwrap(), 0);
        store.put_part(&upload, 1, Bytes::from_static(b"one")).await.unwrap();
        store.put(&file, Bytes::from_static(b"whole")).await.unwrap();
        let stored = store.head(&file).await.unwrap().unwrap().modified;
        let hour = Duration::from_secs(3600);
        assert_eq!(store.abandon_before(stored - hour).await.unwrap(), 0);
        assert_eq!(store.abandon_before(stored + hour).await.unwrap(), 1);
        assert!(store.head(&file).await.unwrap().is_some());
        store.delete(&file).await.unwrap();
        assert_eq!(place.all().await, [""; 0]);
    }
}

#[test]
fn an_address_that_is_no_store_is_refused_with_a_reason() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let option = [("aws_colour".to_string(), "red".to_string())];
    let cases = [
        ("", &[][..], "is of no known kind; use a folder or s3://bucket/prefix"),
        ("gs://bucket", &[], "is of no known kind; use a folder or s3://bucket/prefix"),
        ("file://host/folder", &[], "is no path; write file:///folder"),
        ("s3:///prefix", &[], "names no bucket; write s3://bucket/prefix"),
        ("s3://bucket", &option, "has an option `aws_colour`, which S3 does not know"),
        (file.path().to_str().unwrap(), &[], "cannot be made"),
    ];
    for (address, options, want) in cases {
        let got = Store::open(address, options).map(drop).unwrap_err().to_string();
        assert!(got.starts_with(&format!("the store `{address}` {want}")), "{got}");
    }
    let folder = tempfile::tempdir().unwrap();
    Store::open(&format!("file://{}/a%20b", folder.path().display()), &[]).unwrap();
    assert!(folder.path().join("a b").is_dir());
}

#[test]
fn a_name_keeps_what_is_harmless_of_its_sender_s() {
    let long = format!("{}.safetensors", "x".repeat(300));
    let cut = format!("{}.safetensors", "x".repeat(88));
    let cases = [
        ("cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\my cat.JPG", "my_cat.JPG"),
        ("...", "file"),
        ("..", "file"),
        ("a/", "file"),
        ("", "file"),
        (".bashrc", "bashrc"),
        ("a\0b#1?.png", "a_b_1_.png"),
        ("猫.png", "_.png"),
        (&long, &cut),
    ];
    for (sent, want) in cases {
        let name = Name::new(sent);
        assert_eq!(name.file_name(), want);
        assert_eq!(name.to_string(), format!("{}/{want}", name.id()));
        assert_eq!(Name::parse(name.as_str()), Some(name));
    }
    assert_ne!(Name::new("cat.png"), Name::new("cat.png"));
}

#[test]
fn nothing_but_a_name_is_a_name() {
    let id = "0123456789abcdef0123456789abcdef";
    assert!(Name::parse(&format!("{id}/cat.png")).is_some());
    for text in [
        String::new(),
        "cat.png".into(),
        format!("{id}/"),
        format!("{id}/.."),
        format!("{id}/.cat.png"),
        format!("{id}/a/b"),
        format!("{id}/a\\b"),
        format!("{id}/a b"),
        format!("{id}/a%2fb"),
        format!("{id}/cat.png\n"),
        format!("{id}//cat.png"),
        format!("/{id}/cat.png"),
        format!("../{id}/cat.png"),
        format!("{}/cat.png", id.to_uppercase()),
        format!("{}/cat.png", &id[1..]),
        format!("{id}0/cat.png"),
        format!("{id}/{}", "x".repeat(101)),
        "parts/1".into(),
    ] {
        assert_eq!(Name::parse(&text), None, "{text}");
    }
}

#[test]
fn the_ending_tells_the_type_and_never_one_that_a_browser_runs() {
    let cases = [
        ("a.png", "image/png"),
        ("a.JPG", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.avif", "image/avif"),
        ("a.json", "application/json"),
        ("a.zip", "application/zip"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.safetensors", "application/octet-stream"),
        ("a.html", "application/octet-stream"),
        ("a.svg", "application/octet-stream"),
        ("png", "application/octet-stream"),
    ];
    for (name, want) in cases {
        assert_eq!(content_type(name), want, "{name}");
    }
}

proptest! {
    #[test]
    fn whatever_a_sender_calls_a_file_its_name_is_one_of_ours(sent in ".*") {
        let name = Name::new(&sent);
        prop_assert!(name.file_name().len() <= 100);
        prop_assert_eq!(Name::parse(name.as_str()), Some(name));
    }

    #[test]
    fn whatever_is_a_name_stays_in_its_folder(text in "([0-9a-f]{31,33}|.{0,40})[/\\\\]?[.]{0,2}.{0,40}") {
        if let Some(name) = Name::parse(&text) {
            let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let file = name.file_name();
            prop_assert!(file.chars().all(fine) && !file.starts_with('.') && !file.is_empty());
            prop_assert!(name.id().chars().all(|c| c.is_ascii_hexdigit() && !c.is_uppercase()));
        }
    }
}

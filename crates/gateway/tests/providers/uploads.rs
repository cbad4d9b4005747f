//! Pictures that are too large for a request at fal are uploaded before it.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::{Value, json};
use zoetrope_files::{Format, Picture, encode};
use zoetrope_gateway::failure::{Billed, FailureKind};
use zoetrope_gateway::providers;

use crate::loopback::{Request, Server, answer};
use crate::room::{FAL_EDIT, KEY, Room, data_uri, entry, request};
use crate::upstream::{Script, as_json};

const INITIATE: &str = "/storage/upload/initiate?storage_type=fal-cdn-v3";
const PUT: &str = "/upload/secret";
/// Where the file is then; nobody fetches it here.
const FILE: &str = "https://v3.fal.media/files/b/lion/image.png";

/// What no encoder makes small: ten megabytes.
fn large() -> Vec<u8> {
    let (side, mut state) = (1850, 1_u32);
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let rgb = (0..3 * side * side).map(|_| byte()).collect();
    encode(&Picture { width: side, height: side, rgb }, Format::Png, None).unwrap()
}

/// fal with its storage beside, whose `PUT` answers `status`.
async fn fal(status: u16) -> Server {
    let (script, looks) = (Script { looks: 0, ..Script::default() }, AtomicUsize::new(0));
    Server::start(move |request: &Request| {
        let host = format!("http://{}", request.header("host").unwrap_or_default());
        match (request.method.as_str(), request.target.as_str()) {
            ("POST", INITIATE) => {
                as_json(200, &json!({"upload_url": format!("{host}{PUT}"), "file_url": FILE}))
            }
            ("PUT", PUT) => answer(status, &[], b""),
            _ => script.answer(FAL_EDIT, request, &looks),
        }
    })
    .await
}

fn edit(image: &[u8]) -> Value {
    json!({"image": data_uri(image), "size": "64x64"})
}

#[tokio::test]
async fn a_large_picture_is_uploaded_and_its_address_sent() {
    let (room, server, image) = (Room::new().await, fal(200).await, large());
    assert!(image.len() > 8 << 20, "{}", image.len());
    room.one(FAL_EDIT, &server.url(""), edit(&image)).await.unwrap();
    let seen = server.seen();
    let initiated: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", INITIATE));
    assert_eq!(initiated, json!({"content_type": "image/png", "file_name": "image.png"}));
    assert_eq!(seen[0].header("authorization"), Some(format!("Key {KEY}").as_str()));
    assert_eq!((seen[1].method.as_str(), seen[1].target.as_str()), ("PUT", PUT));
    assert_eq!(seen[1].header("content-type"), Some("image/png"));
    assert_eq!(seen[1].header("authorization"), None, "the address is the secret");
    assert!(seen[1].body == image);
    let submitted: Value = serde_json::from_slice(&seen[2].body).unwrap();
    assert_eq!(submitted["image_url"], FILE);
}

#[tokio::test]
async fn an_upload_that_fails_costs_nothing_and_submits_nothing() {
    let (room, server) = (Room::new().await, fal(500).await);
    let failure = room.one(FAL_EDIT, &server.url(""), edit(&large())).await.unwrap_err();
    assert_eq!((failure.kind, failure.billed), (FailureKind::Broken, Billed::No), "{failure:?}");
    assert_eq!(server.seen().len(), 2, "{:?}", server.seen().len());
}

#[tokio::test]
async fn an_upload_goes_nowhere_inside() {
    let (room, server) = (Room::new().await, fal(200).await);
    let provider = providers::open(&entry(FAL_EDIT, &server.url(""), false), &room.house).unwrap();
    let body = request(edit(&large()));
    let done = room.make(&*provider, FAL_EDIT, body, Duration::from_secs(5)).await;
    let failure = done.into_iter().next().unwrap().unwrap_err();
    assert_eq!((failure.kind, failure.billed), (FailureKind::Unreachable, Billed::No));
    assert!(server.seen().iter().all(|request| request.method != "PUT"));
}

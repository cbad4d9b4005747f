//! Uploads as both clients make them, and files as they are served.

#![allow(clippy::unwrap_used)]

mod room;

use std::time::Duration;

use axum::body::Body;
use futures_util::{StreamExt, stream};
use room::{Answer, Room, Setup, TURBO};
use serde_json::json;

/// The path within the server of an address of it.
fn path(url: &str) -> String {
    url.strip_prefix("http://127.0.0.1:7860").unwrap_or_else(|| panic!("{url}")).into()
}

fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap_or_else(|| panic!("{field}: {answer:?}")).into()
}

async fn initiate(room: &Room, way: &str, headers: &[(&str, &str)]) -> (String, String) {
    let body = json!({"file_name": "house.png", "content_type": "image/png"}).to_string();
    let answer = room
        .send("POST", &format!("/rest/storage/upload/{way}?storage_type=fal-cdn-v3"), headers, body)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    (path(&text(&answer, "upload_url")), path(&text(&answer, "file_url")))
}

#[tokio::test]
async fn a_file_goes_up_in_one_piece_and_comes_down_in_any() {
    let room = Room::new().await;
    let (upload, file) = initiate(&room, "initiate", &[]).await;
    assert_eq!(room.get(&file).await.status, 404, "nothing is there yet");
    assert_eq!(
        room.send("PUT", &upload, &[("content-type", "image/png")], "0123456789").await.status,
        200
    );
    assert_eq!(room.send("PUT", &upload, &[], "other").await.status, 409, "a name is filled once");
    let whole = room.get(&file).await;
    assert_eq!((whole.status.as_u16(), whole.text().as_str()), (200, "0123456789"));
    assert_eq!(whole.header("content-type"), "image/png");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert!(whole.header("cache-control").contains("immutable"));
    let cases = [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("bytes=0-0,5-6", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ];
    for (range, status, bytes, content_range) in cases {
        let part = room.send("GET", &file, &[("range", range)], "").await;
        assert_eq!(
            (part.status.as_u16(), part.text().as_str(), part.header("content-range")),
            (status, bytes, content_range),
            "{range}"
        );
    }
    let beyond = room.send("GET", &file, &[("range", "bytes=10-")], "").await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */10"));
    let known = room.send("GET", &file, &[("if-none-match", whole.header("etag"))], "").await;
    assert_eq!((known.status.as_u16(), known.bytes.len()), (304, 0));
    let both = [("if-none-match", whole.header("etag")), ("range", "bytes=10-")];
    assert_eq!(room.send("GET", &file, &both, "").await.status, 304);
    for (tag, status) in [(whole.header("etag"), 206), ("\"another\"", 200)] {
        let headers = [("if-range", tag), ("range", "bytes=0-1")];
        assert_eq!(room.send("GET", &file, &headers, "").await.status, status, "{tag}");
    }
    let head = room.send("HEAD", &file, &[], "").await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length"), head.bytes.len()),
        (200, "10", 0)
    );
    let download = room.get(&format!("{file}?download")).await;
    assert_eq!(download.header("content-disposition"), "attachment");
}

#[tokio::test]
async fn javascript_sends_parts() {
    let room = Room::with(Setup { upload_bytes_max: 20 << 20, ..Setup::default() }).await;
    let (upload, file) = initiate(&room, "initiate-multipart", &[]).await;
    let mut parts = Vec::new();
    for (number, bytes) in [(2, "world"), (1, "hello ")] {
        let answer = room.send("PUT", &format!("{upload}/{number}"), &[], bytes).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        parts.push(json!({"partNumber": number, "etag": answer.json()["etag"]}));
    }
    let wrong = json!({"parts": [{"partNumber": 1, "etag": "nonsense"}]}).to_string();
    assert_eq!(room.send("POST", &format!("{upload}/complete"), &[], wrong).await.status, 400);
    let body = json!({"parts": parts}).to_string();
    assert_eq!(room.send("POST", &format!("{upload}/complete"), &[], body).await.status, 200);
    assert_eq!(room.get(&file).await.text(), "hello world");
}

#[tokio::test]
async fn python_sends_bytes_or_parts_with_a_token() {
    let room = Room::with(Setup { upload_bytes_max: 20 << 20, ..Setup::default() }).await;
    let token = room.post("/rest/storage/auth/token?storage_type=fal-cdn-v3", json!({})).await;
    assert_eq!(token.json()["base_url"], "http://127.0.0.1:7860");
    assert!(text(&token, "expires_at").ends_with("+00:00"));
    let bearer = format!("{} {}", text(&token, "token_type"), text(&token, "token"));
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-fal-file-name", "house.png"),
        ("content-type", "image/png"),
    ];
    let whole = room.send("POST", "/cdn/files/upload", &headers, "bytes").await;
    let file = path(&text(&whole, "access_url"));
    assert!(file.ends_with("/house.png"), "{file}");
    assert_eq!(room.get(&file).await.text(), "bytes");

    let begun = room.send("POST", "/cdn/files/upload/multipart", &headers, "").await;
    let (file, upload) = (path(&text(&begun, "access_url")), text(&begun, "uploadId"));
    let mut parts = Vec::new();
    for (number, bytes) in [(2, "b"), (1, "a")] {
        let answer =
            room.send("PUT", &format!("{file}/multipart/{upload}/{number}"), &[], bytes).await;
        assert_eq!(answer.status, 200);
        parts.push(json!({"partNumber": number, "etag": answer.header("etag")}));
    }
    let body = json!({"parts": parts}).to_string();
    let done = room.send("POST", &format!("{file}/multipart/{upload}/complete"), &[], body).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(room.get(&file).await.text(), "ab");
}

#[tokio::test]
async fn uploads_have_limits_and_addresses_that_nobody_makes_up() {
    let room = Room::with(Setup { upload_bytes_max: 8, ..Setup::default() }).await;
    let (upload, file) = initiate(&room, "initiate", &[]).await;
    assert_eq!(room.send("PUT", &upload, &[], "123456789").await.status, 413);
    assert_eq!(room.get(&file).await.status, 404, "nothing stays of it");
    assert_eq!(room.send("PUT", &upload, &[], "12345678").await.status, 200);
    assert_eq!(room.send("PUT", "/uploads/zt.e30.AAAA", &[], "1").await.status, 403);
    let id = "0".repeat(32);
    for name in [
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        &format!("{id}/..%2f..%2fx"),
        &format!("{id}/x"),
        "x",
    ] {
        assert_eq!(room.get(&format!("/files/{name}")).await.status, 404, "{name}");
    }
    let (late, _) = initiate(&room, "initiate", &[]).await;
    room.later(3_600_001);
    assert_eq!(room.send("PUT", &late, &[], "1").await.status, 403, "its time is over");
}

#[tokio::test]
async fn a_file_lives_as_long_as_its_sender_said() {
    let room = Room::new().await;
    let lifecycle = [("x-fal-object-lifecycle", r#"{"expiration_duration_seconds": 60}"#)];
    let (upload, file) = initiate(&room, "initiate", &lifecycle).await;
    room.send("PUT", &upload, &[], "bytes").await;
    let answer = room.get(&file).await;
    assert_eq!(answer.header("cache-control"), "public, max-age=60, immutable");
    room.later(60_000);
    assert_eq!(room.get(&file).await.status, 404);
    assert_eq!(room.queue.files_to_delete(10).await.unwrap().len(), 1);
    for wrong in
        ["{", r#"{"expiration_duration_seconds": 0}"#, r#"{"expiration_duration_seconds": "1d"}"#]
    {
        let headers = [("x-fal-object-lifecycle-preference", wrong)];
        let answer =
            room.send("POST", &format!("/queue/{TURBO}"), &headers, r#"{"prompt":"a"}"#).await;
        assert_eq!(answer.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn of_two_who_fill_one_name_only_the_first_does() {
    let room = Room::new().await;
    let (upload, file) = initiate(&room, "initiate", &[]).await;
    let (slow, rest) = in_halves();
    let first = async { room.send("PUT", &upload, &[], slow).await };
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let second = room.send("PUT", &upload, &[], "other bytes").await;
        rest.send("the rest").unwrap();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 409));
    assert_eq!(room.get(&file).await.text(), "the beginning, the rest");
}

/// A body whose second half comes when it is told.
fn in_halves() -> (Body, tokio::sync::oneshot::Sender<&'static str>) {
    let (send, receive) = tokio::sync::oneshot::channel();
    let begin = stream::once(async { Ok::<_, std::io::Error>("the beginning, ") });
    let rest = stream::once(async { receive.await.map_err(std::io::Error::other) });
    (Body::from_stream(begin.chain(rest)), send)
}

#[tokio::test]
async fn a_broken_upload_can_be_begun_again_and_a_completed_one_asked_for_again() {
    let room = Room::new().await;
    let (upload, file) = initiate(&room, "initiate", &[]).await;
    let (broken, rest) = in_halves();
    drop(rest);
    assert_eq!(room.send("PUT", &upload, &[], broken).await.status, 400);
    room.app.settle().await;
    assert_eq!(room.send("PUT", &upload, &[], "whole").await.status, 200);
    assert_eq!(room.get(&file).await.text(), "whole");

    let (upload, file) = initiate(&room, "initiate-multipart", &[]).await;
    let part = room.send("PUT", &format!("{upload}/1"), &[], "part").await;
    let body = json!({"parts": [{"partNumber": 1, "etag": part.json()["etag"]}]}).to_string();
    for _ in 0..2 {
        let done = room.send("POST", &format!("{upload}/complete"), &[], body.clone()).await;
        assert_eq!((done.status.as_u16(), &done.json()["file_size"]), (200, &json!(4)));
    }
    assert_eq!(room.send("PUT", &format!("{upload}/1"), &[], "late").await.status, 409);
    assert_eq!(room.get(&file).await.text(), "part");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_stays_for_ever() {
    let room = Room::new().await;
    let body = r#"{"file_name": "a.png"}"#;
    for acl in [r#"{"default": "forbid"}"#, r#"{"rules": [{"user": "u", "decision": "hide"}]}"#] {
        let lifecycle = format!(r#"{{"initial_acl": {acl}}}"#);
        let headers = [("x-fal-object-lifecycle-preference", lifecycle.as_str())];
        let answer = room.send("POST", "/rest/storage/upload/initiate", &headers, body).await;
        assert_eq!(answer.status, 422, "{acl}");
        assert_eq!(answer.json()["detail"][0]["type"], "feature_not_supported");
    }
    let (upload, file) = initiate(&room, "initiate", &[]).await;
    room.send("PUT", &upload, &[], "bytes").await;
    room.later(30 * 86_400_000);
    assert_eq!(room.get(&file).await.status, 404, "uploads go with the requests of their time");
    // The parts before it would be more than a file may have: 1 MiB here.
    let (upload, _) = initiate(&room, "initiate-multipart", &[]).await;
    assert_eq!(room.send("PUT", &format!("{upload}/2"), &[], "part").await.status, 413);
}

//! What an edit starts from is fetched once, and pictures are put where the caller wants them.

use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Form, Pixels, Problem};
use zoetrope_files::Name;
use zoetrope_files::fetch::Rules;
use zoetrope_gateway::emulate::deliver;
use zoetrope_gateway::provider::{Content, Made};
use zoetrope_gateway::source::Sources;
use zoetrope_jobs::FileRow;

use crate::loopback::{Server, answer};
use crate::room::{Room, base64, caller, data_uri, file, png, request};

fn made(content: Content) -> Made {
    Made {
        content,
        format: Format::Png,
        size: Pixels::new(64, 64),
        seed: Some(7),
        revised_prompt: None,
    }
}

#[tokio::test]
async fn pictures_come_in_every_form() {
    let (room, picture) = (Room::new().await, png(64, 64));
    let contents = [Content::Bytes(picture.clone().into()), Content::Base64(base64(&picture))];
    for content in contents {
        let deliver = |form| deliver(made(content.clone()), form, &CALLER, &room.house);
        let plain = deliver(Form::Base64).await.unwrap();
        assert_eq!((plain.url, plain.base64), (None, Some(base64(&picture))));
        let uri = deliver(Form::DataUri).await.unwrap();
        assert_eq!((uri.url, uri.base64), (Some(data_uri(&picture)), None));
        for form in [Form::Url, Form::Both] {
            let got = deliver(form).await.unwrap();
            assert_eq!(got.base64.is_some(), form == Form::Both);
            assert_eq!(
                (got.seed, got.format, got.size),
                (Some(7), Format::Png, Pixels::new(64, 64))
            );
            let url = got.url.unwrap();
            let name = url.strip_prefix("https://ours.example/files/").unwrap();
            assert!(name.ends_with("/image.png"), "{name}");
            let row = room.house.queue.file(name).await.unwrap().unwrap();
            assert_eq!((row.owner.as_str(), row.size), ("key1", picture.len() as i64));
            assert_eq!(row.expires_ms, Some(1_800_000_000_000 + 3_600_000));
            let name = Name::parse(name).unwrap();
            let stored = room.house.store.read(&name, 1 << 20).await.unwrap().unwrap();
            assert_eq!(stored, picture);
        }
    }
}

static CALLER: std::sync::LazyLock<zoetrope_gateway::caller::Caller> =
    std::sync::LazyLock::new(caller);

#[tokio::test]
async fn what_is_stored_already_is_not_stored_again() {
    let (room, picture) = (Room::new().await, png(64, 64));
    let name = Name::new("a.png");
    room.house.store.put(&name, picture.clone().into()).await.unwrap();
    let url = format!("https://ours.example/files/{name}");
    let stored = || made(Content::Stored { name: name.clone(), url: url.clone() });
    let both = deliver(stored(), Form::Both, &CALLER, &room.house).await.unwrap();
    assert_eq!((both.url, both.base64), (Some(url.clone()), Some(base64(&picture))));
    room.house.store.delete(&name).await.unwrap();
    assert!(deliver(stored(), Form::Base64, &CALLER, &room.house).await.is_err());
}

async fn fetched(room: &Room, body: Value) -> Result<Sources, Problem> {
    Sources::fetch(&request(body), &room.house).await
}

#[tokio::test]
async fn what_an_edit_starts_from_is_known_by_its_bytes() {
    let room = Room::with(Rules { private: true, ..Rules::default() }).await;
    let jpeg = file(zoetrope_files::Format::Jpeg, 80, 64);
    let served = jpeg.clone();
    let server =
        Server::start(move |_| answer(200, &[("content-type", "image/png")], &served)).await;
    // Front-ends call everything a PNG.
    for image in [data_uri(&jpeg), server.url("/image.png")] {
        let sources = fetched(&room, json!({"image": image})).await.unwrap();
        let image = &sources.images[0];
        assert_eq!((image.content_type, image.size), ("image/jpeg", Pixels::new(80, 64)));
        assert_eq!(image.bytes, jpeg);
        assert_eq!(sources.size(), Some(Pixels::new(80, 64)));
    }
    let turned = include_bytes!("../../../files/tests/data/turned.jpg");
    let sources = fetched(&room, json!({"image": data_uri(turned)})).await.unwrap();
    let upright =
        zoetrope_files::decode(turned, &zoetrope_files::Limits::default()).unwrap().picture;
    assert_eq!(sources.size(), Some(Pixels::new(upright.width, upright.height)));
    assert!(fetched(&room, json!({})).await.unwrap().images.is_empty());
}

#[tokio::test]
async fn a_file_of_ours_is_not_fetched_but_read() {
    let (room, picture) = (Room::new().await, png(64, 64));
    let name = Name::new("mine.png");
    let row = FileRow {
        name: name.as_str().into(),
        owner: "key1".into(),
        request: None,
        size: picture.len() as i64,
        created_ms: 1_800_000_000_000,
        expires_ms: Some(1_800_000_001_000),
    };
    room.house.queue.insert_file(&row).await.unwrap();
    room.house.store.put(&name, picture.clone().into()).await.unwrap();
    let image = format!("http://127.0.0.1:1/files/{name}");
    let sources = fetched(&room, json!({"image": image})).await.unwrap();
    assert_eq!(sources.images[0].bytes, picture);
    let other = format!("http://127.0.0.1:1/files/{}", Name::new("mine.png"));
    assert!(fetched(&room, json!({"image": other})).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_used_names_its_parameter() {
    let room = Room::new().await;
    let (image, half) = (png(64, 64), &png(64, 64)[..30]);
    let cases = [
        (json!({"image": data_uri(b"<html>")}), "image"),
        (json!({"image": data_uri(half)}), "image"),
        (json!({"image": data_uri(b"")}), "image"),
        (json!({"image": "data:image/png;base64,!!!!"}), "image"),
        (json!({"image": "http://127.0.0.1:1/a.png"}), "image"),
        (json!({"image": "http://169.254.169.254/latest"}), "image"),
        (json!({"image": data_uri(&image), "mask": data_uri(b"x")}), "mask"),
        (json!({"image": data_uri(&image), "mask": data_uri(&png(32, 64))}), "mask"),
    ];
    for (body, param) in cases {
        let problem = fetched(&room, body.clone()).await.unwrap_err();
        assert_eq!((problem.status(), problem.param.as_deref()), (400, Some(param)), "{body}");
        assert!(problem.message.starts_with("Invalid "), "{problem}");
        assert!(!problem.should_retry());
    }
}

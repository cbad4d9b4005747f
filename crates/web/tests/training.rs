//! The pages about training without a browser: a set, its captions, a training, its end.

#![allow(clippy::unwrap_used)]

#[path = "../../server/tests/painter/mod.rs"]
mod painter;
#[path = "../../server/tests/room/mod.rs"]
mod room;
mod visit;

use std::io::{Cursor, Read, Write};

use painter::{Part, form};
use room::{Room, Setup, completed};
use serde_json::{Value, json};
use visit::Visit;
use zoetrope_api::Format;
use zoetrope_files::Name;
use zoetrope_jobs::{Attempt, End, Scope, TrainingPicture};

/// Files of a form, each as a browser names it.
fn files(list: &[(&str, &[u8])], texts: &[(&str, &str)]) -> (String, Vec<u8>) {
    let texts: Vec<Part> = texts.iter().map(|(name, text)| (*name, None, *text)).collect();
    let (kind, body) = form(&texts);
    let mut out = body[..body.len() - b"--b--\r\n".len()].to_vec();
    for (name, bytes) in list {
        let head = format!(
            "--b\r\nContent-Disposition: form-data; name=\"pictures\"; filename=\"{name}\"\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--b--\r\n");
    (kind, out)
}

fn png() -> Vec<u8> {
    painter::picture(32, 24, Format::Png)
}

/// A set made by the form; its id.
async fn set(visit: &Visit<'_>, list: &[(&str, &[u8])], texts: &[(&str, &str)]) -> String {
    let (kind, body) = files(list, texts);
    let answer = visit.send_as("POST", "/training/sets", &kind, body).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").strip_prefix("/training/sets/").unwrap().into()
}

fn captions(pictures: &[TrainingPicture]) -> Vec<(&str, &str)> {
    pictures.iter().map(|picture| (picture.name.as_str(), picture.caption.as_str())).collect()
}

#[tokio::test]
async fn captions_come_from_texts_names_and_hands() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let (png, jpeg) = (png(), painter::picture(8, 8, Format::Jpeg));
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [
        ("in/boat_1.png", png.as_slice()),
        ("in/boat_1.txt", b"a boat"),
        ("__MACOSX/x.png", b"no"),
        ("in/.hidden", b"no"),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    let zip = zip.finish().unwrap().into_inner();
    let list: &[(&str, &[u8])] =
        &[("red-house (2).png", &png), ("003.jpg", &jpeg), ("more.ZIP", &zip)];
    let id = set(&visit, list, &[("name", "Ink <b>"), ("captions", "names")]).await;
    let pictures = room.queue.training_pictures(&id).await.unwrap();
    assert_eq!(
        captions(&pictures),
        [("red-house (2).png", "red house"), ("003.jpg", ""), ("boat_1.png", "a boat")]
    );
    assert_eq!((pictures[0].width, pictures[0].height), (32, 24));
    let page = visit.get(&format!("/training/sets/{id}")).await;
    assert!(page.contains("Ink &lt;b&gt;") && !page.contains("Ink <b>"), "{page}");
    assert!(page.contains("3 pictures are few"), "{page}");
    // One by the script, and then all with a word in front.
    let field = |n: usize| format!("caption-{}", pictures[n].id);
    let to = format!("/training/sets/{id}/captions");
    visit.post(&to, &format!("{}=%E5%A2%A8+%3Cscript%3E", field(1))).await;
    let all = format!(
        "{}=red+house&{}=%E5%A2%A8+%3Cscript%3E&{}=ohwx+a+boat&all=front&word=ohwx",
        field(0),
        field(1),
        field(2)
    );
    visit.post(&to, &all).await;
    let pictures = room.queue.training_pictures(&id).await.unwrap();
    let said: Vec<&str> = pictures.iter().map(|picture| picture.caption.as_str()).collect();
    assert_eq!(said, ["ohwx, red house", "ohwx, 墨 <script>", "ohwx a boat"]);
    assert!(!visit.get(&format!("/training/sets/{id}")).await.contains("<script>墨"));
    let answer = visit
        .post(
            &format!("/training/sets/{id}/remove/{}", pictures[1].id),
            &format!("{}=red", field(0)),
        )
        .await;
    assert_eq!(answer.status, 303);
    let pictures = room.queue.training_pictures(&id).await.unwrap();
    assert_eq!(captions(&pictures), [("red-house (2).png", "red"), ("boat_1.png", "ohwx a boat")]);
}

#[tokio::test]
async fn an_upload_that_cannot_be_used_names_the_file_and_leaves_no_set() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let png = png();
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Files, &str); 4] = [
        (&[("a.png", &png), ("b.png", b"not a picture")], "b.png: the file"),
        (&[("broken.zip", b"PK nonsense")], "broken.zip: the zip cannot be read"),
        (&[("only.txt", b"words")], "There is no picture"),
        (&[], "There is no picture"),
    ];
    for (list, text) in cases {
        let (kind, body) = files(list, &[("name", "x")]);
        let answer = visit.send_as("POST", "/training/sets", &kind, body).await;
        assert_eq!(answer.status, 422, "{text}");
        assert!(answer.text().contains(text), "{text}: {}", answer.text());
    }
    assert_eq!(room.queue.training_sets("").await.unwrap(), []);
    // What had come of them is deleted in time.
    room.later(3_600_001);
    assert_eq!(room.queue.files_to_delete(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_training_is_begun_looked_at_and_ends_with_a_lora() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let png = png();
    let id =
        set(&visit, &[("a.png", &png), ("b.png", &png)], &[("name", "Ink"), ("captions", "empty")])
            .await;
    let to = format!("/training/sets/{id}/start");
    let answer =
        visit.post(&to, "name=ink&trainer=fal-ai/z-image-trainer&steps=7&learning_rate=fast").await;
    assert_eq!(answer.status, 422);
    for text in ["`fast` is no number", "has no caption; write one", "greater than or equal to 100"]
    {
        assert!(answer.text().contains(text), "{text}: {}", answer.text());
    }
    let form = "name=ink&trainer=fal-ai/z-image-trainer&steps=100&training_type=style&default_caption=a+house";
    let answer = visit.post(&to, form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let run = answer.header("location").to_string();
    let lease = room.claim().await;
    assert_eq!(lease.request.endpoint, "fal-ai/z-image-trainer");
    let input: Value = serde_json::from_str(&lease.request.input).unwrap();
    assert_eq!((&input["steps"], &input["training_type"]), (&json!(100), &json!("style")));
    // The zip is where the worker looks for it, and is what trainers read.
    let name = input["image_data_url"].as_str().unwrap().split_once("/files/").unwrap().1;
    let bytes = room.store.read(&Name::parse(name).unwrap(), 1 << 20).await.unwrap().unwrap();
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.unwrap().to_string()).collect();
    assert_eq!(names, ["001.png", "002.png"]);
    let mut unpacked = Vec::new();
    zip.by_index(0).unwrap().read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, png);
    for line in [
        "Step 1/100: loss 0.5000, learning rate 1.00e-4, 1.50 s, 2 min left",
        "Step 2/100: loss 0.2500, learning rate 1.00e-4, 1.50 s, 2 min left",
    ] {
        lease.log("INFO", line).await.unwrap();
    }
    let sample = "0123456789abcdef0123456789abcdef/x-step-0.jpeg";
    lease
        .log("INFO", &format!("Sample after 0 of 100 steps: http://127.0.0.1:7860/files/{sample}"))
        .await
        .unwrap();
    let live = visit.get(&format!("{run}/live")).await;
    for text in [
        "Step 2 of 100",
        "2 min left",
        "<path class=\"line s0\"",
        &format!("src=\"/files/{sample}\""),
    ] {
        assert!(live.contains(text), "{text}: {live}");
    }
    let lora = "fedcba9876543210fedcba9876543210/pytorch_lora_weights.safetensors";
    let response = json!({
        "diffusers_lora_file": {"url": format!("http://127.0.0.1:7860/files/{lora}")},
        "config_file": {"url": format!("http://127.0.0.1:7860/files/{lora}")},
    });
    let end = End { response: response.to_string(), ..completed() };
    lease.finish(Attempt::End(end)).await.unwrap();
    let page = visit.get(&run).await;
    for text in [
        "The LoRA is ready",
        &format!("/playground/fal-ai/z-image/turbo/lora?loras.0.path=/files/{lora}"),
        &format!("/files/{lora}?download=1"),
        "Step 1/100",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let page = visit.get("/training").await;
    assert!(page.contains("Ready") && page.contains("Ink"), "{page}");
}

#[tokio::test]
async fn a_training_is_cancelled_and_its_failure_is_told() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let png = png();
    let id = set(&visit, &[("a.png", &png)], &[("name", "Ink"), ("captions", "names")]).await;
    let form = "name=ink&trainer=fal-ai/z-image-turbo-trainer&steps=&learning_rate=";
    let start = format!("/training/sets/{id}/start");
    let run = visit.post(&start, form).await.header("location").to_string();
    let page = visit.get(&run).await;
    assert!(page.contains("Waits") && page.contains("0 requests are before it"), "{page}");
    visit.post(&format!("{run}/cancel"), "").await;
    let page = visit.get(&run).await;
    assert!(page.contains("Cancelled") && page.contains("Request was cancelled"), "{page}");
    let run = visit.post(&start, form).await.header("location").to_string();
    let failed = End {
        outcome: zoetrope_jobs::Outcome::Failed,
        status_code: 422,
        response: json!({"detail": [{"loc": ["body", "image_data_url"], "msg": "001.png: <b>broken</b>", "type": "value_error"}]}).to_string(),
        ..completed()
    };
    room.claim().await.finish(Attempt::End(failed)).await.unwrap();
    let page = visit.get(&run).await;
    assert!(page.contains("001.png: &lt;b&gt;broken"), "{page}");
}

#[tokio::test]
async fn sets_and_trainings_are_seen_by_their_key_alone() {
    let room = Room::with(Setup { keys_required: true, ..Setup::default() }).await;
    let (owner, other) =
        (Visit::signed_in(&room, Scope::Api).await, Visit::signed_in(&room, Scope::Api).await);
    let png = png();
    let id = set(&owner, &[("house.png", &png)], &[("name", "Ink")]).await;
    let form = "name=ink&trainer=fal-ai/z-image-trainer";
    let run = owner
        .post(&format!("/training/sets/{id}/start"), form)
        .await
        .header("location")
        .to_string();
    assert!(owner.get("/training").await.contains("Ink"));
    assert!(!other.get("/training").await.contains("Ink"));
    let set = format!("/training/sets/{id}");
    for (method, path) in [
        ("GET", set.clone()),
        ("POST", format!("{set}/captions")),
        ("POST", format!("{set}/delete")),
        ("POST", format!("{set}/gallery")),
        ("GET", run.clone()),
        ("GET", format!("{run}/live")),
        ("POST", format!("{run}/cancel")),
    ] {
        assert_eq!(other.send(method, &path, "").await.status, 404, "{method} {path}");
    }
    assert_eq!(other.send("POST", &format!("{set}/start"), form).await.status, 404);
    assert_eq!(owner.post(&format!("{set}/delete"), "").await.status, 303);
    assert!(owner.get(&run).await.contains("Waits"), "the training has its own zip");
}

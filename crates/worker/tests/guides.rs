//! Requests for pictures that follow others, through the queue: control, inpainting and references, on the recorded random models.

#![allow(clippy::unwrap_used)]

mod room;

use std::path::{Path, PathBuf};

use room::{Room, Running};
use serde_json::{Value, json};
use zoetrope_api::task::{Generate, Model, Place, Task};
use zoetrope_checkpoint::{Layout, VisionModel};
use zoetrope_jobs::{New, Outcome, Priority, Request};
use zoetrope_worker::{Depth, Models, Served};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

fn served(model: &str, control: Option<&str>) -> Served {
    let layout = Layout::locate(&fixture(model), None, None).unwrap();
    let layout = match control {
        Some(control) => layout.with_control(&fixture(control)).unwrap(),
        None => layout,
    };
    Served { layout, resolution: 64 }
}

/// Turbo beside a control network, and the model that sees pictures.
fn work(room: &Room, control: Option<&str>) -> Running {
    let turbo = served("turbo/model", control);
    let (base, edit) = (turbo.clone(), Some(served("omni/model", None)));
    room.work_with(Models { turbo, base, edit })
}

async fn uploaded(room: &Room, path: &str) -> String {
    room.upload("picture.png", std::fs::read(fixture(path)).unwrap()).await
}

/// The pixels of the only picture of `done`.
async fn pixels(room: &Room, done: &Request) -> (u32, u32, Vec<u8>) {
    let end = done.end.as_ref().unwrap();
    assert_eq!(end.outcome, Outcome::Completed, "{}", end.response);
    let response: Value = serde_json::from_str(&end.response).unwrap();
    let url = response["images"][0]["url"].as_str().unwrap();
    let (_, name) = url.split_once("/files/").unwrap();
    let name = zoetrope_files::Name::parse(name).unwrap();
    let bytes = room.store.read(&name, 1 << 24).await.unwrap().unwrap();
    let picture =
        zoetrope_files::decode(&bytes, &zoetrope_files::Limits::default()).unwrap().picture;
    (picture.width, picture.height, picture.rgb)
}

async fn drawn(room: &Room, endpoint: &str, input: &Value) -> (u32, u32, Vec<u8>) {
    let id = room.submit(endpoint, input).await;
    pixels(room, &room.ended(&id).await).await
}

#[tokio::test]
async fn control_follows_a_picture_or_its_edges() {
    let room = Room::new().await;
    let running = work(&room, Some("control/union-2.1"));
    let edges = uploaded(&room, "control/inputs/edges.png").await;
    let photo = uploaded(&room, "control/inputs/photo.png").await;
    let input = |image: &str, more: Value| {
        let mut input = json!({"prompt": "a house", "image_url": image, "seed": 4, "num_inference_steps": 2,
            "control_end": 1, "output_format": "png"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let endpoint = "fal-ai/z-image/turbo/controlnet";
    let with = drawn(&room, endpoint, &input(&edges, json!({}))).await;
    // `auto` is the size of the picture that is followed.
    assert_eq!((with.0, with.1), (96, 64));
    let without = drawn(&room, endpoint, &input(&edges, json!({"control_scale": 0}))).await;
    assert_ne!(with.2, without.2);
    let found = drawn(&room, endpoint, &input(&photo, json!({"preprocess": "canny"}))).await;
    let plain = drawn(&room, endpoint, &input(&photo, json!({}))).await;
    assert_ne!(found.2, plain.2);
    running.stop().await;
}

#[tokio::test]
async fn depth_is_found_where_there_is_a_network_for_it_and_refused_elsewhere() {
    let mut room = Room::new().await;
    let photo = uploaded(&room, "control/inputs/photo.png").await;
    let endpoint = "fal-ai/z-image/turbo/controlnet";
    let input = |image: &str, preprocess: &str| {
        json!({"prompt": "a house", "image_url": image, "seed": 4, "num_inference_steps": 2, "output_format": "png",
            "preprocess": preprocess})
    };
    let running = work(&room, Some("control/union-2.1"));
    let id = room.submit(endpoint, &input(&photo, "depth")).await;
    let end = room.ended(&id).await.end.unwrap();
    assert_eq!(end.status_code, 422, "{}", end.response);
    for said in ["models pull depth", "feature_not_supported", "\"preprocess\""] {
        assert!(end.response.contains(said), "{}", end.response);
    }
    running.stop().await;

    let files = VisionModel::depth(&fixture("depth/model")).unwrap();
    room.depth = Some(files.clone());
    let running = work(&room, Some("control/union-2.1"));
    let found = drawn(&room, endpoint, &input(&photo, "depth")).await;
    // The same as the depth picture itself.
    let read = zoetrope_files::read(&fixture("control/inputs/photo.png"), &Default::default());
    let depth = Depth::new(files, &candle_core::Device::Cpu).of(&read.unwrap().picture).unwrap();
    let depth = zoetrope_files::encode(&depth, zoetrope_files::Format::Png, None).unwrap();
    let depth = room.upload("depth.png", depth).await;
    assert_eq!(found, drawn(&room, endpoint, &input(&depth, "none")).await);
    assert_ne!(found.2, drawn(&room, endpoint, &input(&photo, "none")).await.2);

    let strip = zoetrope_files::Picture { width: 165, height: 33, rgb: vec![9; 165 * 33 * 3] };
    let strip = zoetrope_files::encode(&strip, zoetrope_files::Format::Png, None).unwrap();
    let strip = room.upload("strip.png", strip).await;
    let id = room.submit(endpoint, &input(&strip, "depth")).await;
    let end = room.ended(&id).await.end.unwrap();
    assert_eq!(end.status_code, 422, "{}", end.response);
    assert!(end.response.contains("of 165x33 is longer than 4 times"), "{}", end.response);
    running.stop().await;
}

#[tokio::test]
async fn without_a_network_control_is_refused_and_inpainting_goes_on() {
    let room = Room::new().await;
    let photo = uploaded(&room, "control/inputs/photo.png").await;
    let mask = uploaded(&room, "control/inputs/mask.png").await;
    let input = json!({"prompt": "a house", "image_url": photo, "mask_image_url": mask, "seed": 4,
        "num_inference_steps": 2, "output_format": "png"});
    let (control, inpaint) = ("fal-ai/z-image/turbo/controlnet", "fal-ai/z-image/turbo/inpaint");

    let running = work(&room, None);
    let id = room.submit(control, &input).await;
    let end = room.ended(&id).await.end.unwrap();
    assert_eq!(end.status_code, 422, "{}", end.response);
    assert!(
        end.response.contains("needs a control network (--controlnet PATH)"),
        "{}",
        end.response
    );
    let id = room.submit(inpaint, &input).await;
    let done = room.ended(&id).await;
    assert!(room.said(&id, "Painting without a control network").await);
    let plain = pixels(&room, &done).await;
    running.stop().await;

    let running = work(&room, Some("control/union-2.0"));
    let id = room.submit(inpaint, &input).await;
    let done = room.ended(&id).await;
    assert!(!room.said(&id, "Painting without a control network").await);
    assert_ne!(pixels(&room, &done).await.2, plain.2);
    running.stop().await;
}

/// An edit as the gateway's local provider puts it into the queue.
fn edit(model: Model, references: usize) -> Generate {
    let body = json!({"prompt": "the fox on the hill", "seed": 4, "num_inference_steps": 2});
    let endpoint = zoetrope_api::fal::Endpoint::find("fal-ai/z-image/turbo").unwrap();
    let Task::Generate(task) = zoetrope_api::fal::parse(endpoint, &body).unwrap() else {
        panic!("that endpoint draws")
    };
    let references = (0..references).map(|i| Place::Input(format!("reference_{i}"))).collect();
    let size = zoetrope_api::task::Size::Pixels { width: 64, height: 48 };
    Generate { model, references, size, ..*task }
}

async fn submit(room: &Room, task: Generate, files: &[&str]) -> String {
    let uri = |file: &&str| {
        use base64::Engine as _;
        let bytes = std::fs::read(fixture(file)).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
        format!("data:image/png;base64,{base64}")
    };
    let fields =
        files.iter().enumerate().map(|(i, file)| (format!("reference_{i}"), json!(uri(file))));
    let new = New {
        endpoint: "local/z-image-edit".into(),
        owner: "local".into(),
        priority: Priority::Normal,
        keep_io: true,
        input: Value::Object(fields.collect()).to_string(),
        task: serde_json::to_string(&Task::Generate(Box::new(task))).unwrap(),
        concurrency_max: 10,
        retry: true,
        start_within_ms: None,
        webhook: None,
        base: room::BASE.into(),
        unit_price: None,
        trace: None,
    };
    room.queue.submit(new).await.unwrap()
}

#[tokio::test]
async fn edits_see_every_picture_and_models_that_see_none_refuse() {
    let room = Room::new().await;
    let running = work(&room, None);
    let files = ["omni/inputs/photo.png", "omni/inputs/odd.png"];
    let mut made = Vec::new();
    for count in 0..=2 {
        let id = submit(&room, edit(Model::Edit, count), &files[..count]).await;
        made.push(pixels(&room, &room.ended(&id).await).await);
    }
    assert_eq!((made[2].0, made[2].1), (64, 48));
    assert!(made[0].2 != made[1].2 && made[1].2 != made[2].2);
    let id = submit(&room, edit(Model::Turbo, 1), &files[..1]).await;
    let end = room.ended(&id).await.end.unwrap();
    assert_eq!(end.status_code, 422, "{}", end.response);
    assert!(end.response.contains("need a model that sees pictures"), "{}", end.response);
    running.stop().await;
}

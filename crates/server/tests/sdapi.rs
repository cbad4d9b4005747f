//! AUTOMATIC1111's routes, as front-ends call them.

#![allow(clippy::unwrap_used)]

mod painter;
mod room;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use painter::{Painter, picture};
use room::{Room, Setup};
use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_jobs::Scope;

#[tokio::test]
async fn a_front_end_finds_its_checkpoints_and_draws_with_them() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let titles: Vec<Value> =
        room.get("/sdapi/v1/sd-models").await.json().as_array().unwrap().clone();
    assert_eq!(titles[0]["title"], "z-image-turbo");
    let options = room.get("/sdapi/v1/options").await.json();
    assert_eq!(options["sd_model_checkpoint"], "z-image-turbo");
    let set = room
        .post("/sdapi/v1/options", json!({"sd_model_checkpoint": "z-image", "sd_vae": "x"}))
        .await;
    assert_eq!(set.status, 200);
    let wrong = room.post("/sdapi/v1/options", json!({"sd_model_checkpoint": "sdxl"})).await;
    assert_eq!(wrong.status, 404);
    assert_eq!(room.get("/sdapi/v1/options").await.json()["sd_model_checkpoint"], "z-image");
    let body = json!({"prompt": "a house", "negative_prompt": "people", "seed": -1, "steps": 5, "cfg_scale": 7, "width": 64,
        "height": 48, "batch_size": 1, "n_iter": 2, "sampler_name": "Euler a"});
    let answer = room.post("/sdapi/v1/txt2img", body.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    let images = told["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(STANDARD.decode(images[0].as_str().unwrap()).unwrap(), picture(64, 48, Format::Png));
    let info: Value = serde_json::from_str(told["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["seed"], 99);
    assert_eq!(info["sd_model_name"], "z-image");
    // The base model follows guidance; the distilled one is spared it.
    let drawn = painter.drawn();
    assert_eq!(
        (drawn[0].task.guidance_scale, drawn[0].task.negative_prompt.as_str()),
        (7.0, "people")
    );
    let mut turbo = body;
    turbo["override_settings"] = json!({"sd_model_checkpoint": "z-image-turbo"});
    assert_eq!(room.post("/sdapi/v1/txt2img", turbo).await.status, 200);
    assert_eq!(painter.drawn().last().unwrap().task.guidance_scale, 0.0);
}

#[tokio::test]
async fn an_image_is_drawn_over_and_errors_are_told() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let image = STANDARD.encode(picture(64, 64, Format::Png));
    let body = json!({"prompt": "at night", "init_images": [image], "denoising_strength": 0.3, "width": 64, "height": 64});
    let answer = room.post("/sdapi/v1/img2img", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(painter.drawn()[0].task.image.as_ref().unwrap().strength, 0.3);
    assert_eq!(answer.json()["parameters"]["init_images"], Value::Null);
    let wrong = room.post("/sdapi/v1/img2img", json!({"prompt": "a"})).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["detail"].as_str().unwrap().contains("`init_images`"));
    let progress = room.get("/sdapi/v1/progress").await.json();
    assert_eq!((&progress["progress"], &progress["current_image"]), (&json!(0.0), &Value::Null));
    assert_eq!(room.post("/sdapi/v1/interrupt", json!({})).await.status, 200);
}

#[tokio::test]
async fn the_password_is_the_key() {
    let room = Room::with(Setup { keys_required: true, ..Setup::default() }).await;
    let (_, key) = room.key(Scope::Api, 4).await;
    let key = key.trim_start_matches("Key ");
    for (who, status) in [(format!("me:{key}"), 200), ("me:wrong".into(), 401)] {
        let basic = format!("Basic {}", STANDARD.encode(who));
        let answer = room.send("GET", "/sdapi/v1/options", &[("authorization", &basic)], "").await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(room.get("/sdapi/v1/sd-models").await.status, 401);
    assert_eq!(room.get("/internal/ping").await.status, 200);
}

//! OpenAI's Images API: what its clients send, and what they read of the answers.

#![allow(clippy::unwrap_used)]

mod painter;
mod room;

use std::time::Duration;

use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use painter::{Painter, form, picture};
use room::{Answer, Room, Setup};
use serde_json::{Value, json};
use zoetrope_api::task::{Delivery, Place, Size};
use zoetrope_api::{Acceleration, Controls, Format, Sampler, Sigmas, Variation};
use zoetrope_jobs::{Attempt, End, Outcome, Scope};

const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/openai/v1/images/edits";

async fn generate(room: &Room, mut body: Value) -> Answer {
    let object = body.as_object_mut().unwrap();
    object.entry("model").or_insert(json!("z-image-turbo"));
    object.entry("prompt").or_insert(json!("a house"));
    object.entry("size").or_insert(json!("64x64"));
    room.send("POST", GENERATIONS, &[("content-type", "application/json")], body.to_string()).await
}

/// The bytes of a picture in an answer, and the same from its address.
async fn bytes_of(room: &Room, item: &Value) -> Vec<u8> {
    match (item["b64_json"].as_str(), item["url"].as_str()) {
        (Some(text), _) => STANDARD.decode(text).unwrap(),
        (None, Some(url)) => {
            let path = url.strip_prefix("http://127.0.0.1:7860").unwrap();
            let answer = room.get(path).await;
            assert_eq!(answer.status, 200);
            answer.bytes
        }
        _ => panic!("no picture in {item}"),
    }
}

#[tokio::test]
async fn a_generation_is_an_address_and_says_what_became_of_the_parameters() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let body = json!({"seed": 7, "quality": "hd", "user": "u", "num_inference_steps": 3, "output_format": "webp",
        "output_compression": 40});
    let answer = generate(&room, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    assert_eq!(bytes_of(&room, &told["data"][0]).await, picture(64, 64, Format::Webp));
    assert_eq!(told["data"][0]["b64_json"], Value::Null);
    assert_eq!((&told["size"], &told["output_format"]), (&json!("64x64"), &json!("webp")));
    assert_eq!(told["created"], 1_800_000_000);
    assert_eq!(told["usage"]["output_tokens"], 16);
    let metadata = &told["metadata"];
    assert_eq!(metadata["model"], "z-image-turbo");
    assert_eq!(metadata["executed_model"], "local/z-image-turbo");
    assert_eq!((&metadata["seed"], &metadata["cost"]), (&json!(7), &json!(0.0)));
    assert_eq!(metadata["dropped_parameters"][0]["parameter"], "quality");
    assert_eq!(metadata["dropped_parameters"].as_array().unwrap().len(), 1, "{metadata}");
    assert_eq!(metadata["attempts"][0]["status"], "completed");
    assert_eq!(answer.header("x-request-id"), told["id"].as_str().unwrap());
    assert_eq!(answer.header("x-lumenfall-provider"), "local");
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.header("server-timing").starts_with("gw;dur="));
    let drawn = painter.drawn().remove(0);
    assert_eq!((drawn.task.steps, drawn.task.seed, drawn.task.quality), (3, Some(7), Some(40)));
    assert_eq!(drawn.task.delivery, Delivery::Stored);
    assert_eq!(drawn.endpoint, "local/z-image-turbo");
}

/// Every parameter at once, and one that nobody knows: each is in the task, or told as dropped.
#[tokio::test]
async fn the_engine_is_asked_for_everything_it_has() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let body = json!({
        "size": "100x70", "seed": 5, "cfg_scale": 1.5, "num_inference_steps": 3, "negative_prompt": "fog",
        "output_format": "webp", "output_compression": 70, "response_format": "b64_json", "go_fast": true,
        "enable_safety_checker": false, "sampler": "Heun", "sigmas": [1, 0.5, 0.25], "variation_seed": -1,
        "variation_strength": 0.3, "prompt_weighting": true, "quality": "hd", "style": "vivid", "background": "opaque",
        "moderation": "low", "user": "somebody", "watermark": true,
    });
    let told = generate(&room, body).await.json();
    let task = painter.drawn().remove(0).task;
    assert_eq!((task.steps, task.seed, task.guidance_scale, task.count), (3, Some(5), 1.5, 1));
    assert_eq!(task.size, Size::Pixels { width: 100, height: 70 });
    assert_eq!((task.format, task.quality), (Format::Webp, Some(70)));
    assert_eq!(task.acceleration, Acceleration::High);
    assert_eq!((task.delivery, task.safety_checker), (Delivery::Inline, false));
    let controls = Controls {
        sampler: Sampler::Heun,
        sigmas: Some(Sigmas::new(vec![1.0, 0.5, 0.25]).unwrap()),
        variation: Some(Variation { seed: u64::MAX, strength: 0.3 }),
        prompt_weighting: true,
        ..Controls::default()
    };
    assert_eq!(task.controls, controls);
    let dropped = told["metadata"]["dropped_parameters"].as_array().unwrap().iter();
    let mut dropped: Vec<_> = dropped.map(|one| one["parameter"].as_str().unwrap()).collect();
    dropped.sort_unstable();
    let want = ["background", "moderation", "negative_prompt", "quality", "style", "watermark"];
    assert_eq!(dropped, want);
    let body = json!({"model": "z-image", "negative_prompt": "fog", "acceleration": "regular"});
    let told = generate(&room, body).await.json();
    let task = painter.drawn().remove(1).task;
    assert_eq!((task.negative_prompt.as_str(), task.steps, task.guidance_scale), ("fog", 28, 4.0));
    assert_eq!(task.acceleration, Acceleration::Regular);
    assert!(task.controls.are_default());
    assert_eq!(told["metadata"]["dropped_parameters"], json!([]));
}

#[tokio::test]
async fn base64_is_given_where_it_is_asked_for_and_kept_nowhere() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let answer = generate(&room, json!({"response_format": "b64_json"})).await.json();
    assert_eq!(bytes_of(&room, &answer["data"][0]).await, picture(64, 64, Format::Png));
    assert_eq!(answer["data"][0]["url"], Value::Null);
    assert_eq!(painter.drawn()[0].task.delivery, Delivery::Inline);
    let answer = generate(&room, json!({"sync_mode": true})).await.json();
    assert!(answer["data"][0]["url"].as_str().unwrap().starts_with("data:image/png;base64,"));
}

#[tokio::test]
async fn each_of_several_pictures_has_a_seed_of_its_own() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let answer = generate(&room, json!({"n": 3, "seed": 7})).await.json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 3);
    assert_eq!(answer["metadata"]["seeds"], json!([7, 8, 9]));
    let mut seeds: Vec<_> = painter.drawn().iter().map(|drawn| drawn.task.seed.unwrap()).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [7, 8, 9]);
    let answer = generate(&room, json!({"n": 2, "seed": 7, "variation_seed": 40})).await.json();
    assert_eq!(answer["metadata"]["seeds"], json!([7, 8]));
    let drawn = painter.drawn();
    let varied = drawn[3..].iter().map(|drawn| {
        let variation = drawn.task.controls.variation.unwrap();
        (drawn.task.seed.unwrap(), variation.seed)
    });
    let mut varied: Vec<_> = varied.collect();
    varied.sort_unstable();
    assert_eq!(varied, [(7, 40), (8, 41)], "the variation's seed counts on too");
}

#[tokio::test]
async fn an_edit_is_a_form_in_any_order_and_framing() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let png = picture(48, 32, Format::Png);
    let (kind, body) = form(&[
        ("image", Some(&png), ""),
        ("mask", Some(&png), ""),
        ("model", None, "local/z-image-turbo"),
        ("prompt", None, "at night"),
        ("strength", None, "0.4"),
    ]);
    let parts = body.chunks(100).map(|part| Ok::<_, std::io::Error>(Bytes::copy_from_slice(part)));
    let body = Body::from_stream(stream::iter(parts.collect::<Vec<_>>()));
    let answer = room.send("POST", EDITS, &[("content-type", &kind)], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let item = &answer.json()["data"][0];
    assert!(
        item["url"].is_string() && item["b64_json"].is_string(),
        "clients read one or the other"
    );
    assert_eq!(answer.json()["size"], "48x32", "as the image's");
    let drawn = painter.drawn().remove(0);
    let reference = drawn.task.image.unwrap();
    assert_eq!(reference.strength, 0.4);
    let (Place::Input(image), Some(Place::Input(mask))) = (reference.place, drawn.task.mask) else {
        panic!("pictures are in the input")
    };
    for field in [image, mask] {
        let sent = drawn.input[&field].as_str().unwrap().strip_prefix("data:image/png;base64,");
        assert_eq!(STANDARD.decode(sent.unwrap()).unwrap(), png);
    }
}

#[tokio::test]
async fn an_edit_in_json_and_a_variation_take_data_uris() {
    let room = Room::new().await;
    let painter = Painter::of(&room);
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(picture(32, 32, Format::Png)));
    let body = json!({"model": "z-image-turbo", "prompt": "at night", "images": [{"image_url": uri}], "response_format": "url"});
    let answer = room.post(EDITS, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = json!({"model": "z-image-turbo", "image": uri, "size": "64x64"});
    let answer = room.post("/v1/images/variations", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let strengths: Vec<_> =
        painter.drawn().iter().map(|drawn| drawn.task.image.as_ref().unwrap().strength).collect();
    assert_eq!(strengths, [0.6, 0.7]);
}

#[tokio::test]
async fn errors_name_the_parameter_and_say_whether_to_try_again() {
    let room = Room::new().await;
    let png = STANDARD.encode(picture(32, 32, Format::Png));
    let cases = [
        (GENERATIONS, json!({"n": 20}), 400, "INVALID_REQUEST", Some("n")),
        (GENERATIONS, json!({"model": "z-image-turb"}), 404, "MODEL_NOT_FOUND", Some("model")),
        (GENERATIONS, json!({"size": "9000x64"}), 400, "INVALID_REQUEST", Some("size")),
        (GENERATIONS, json!({"size": "4096x4096"}), 400, "INVALID_REQUEST", Some("size")),
        (
            GENERATIONS,
            json!({"strict": true, "style": "vivid"}),
            400,
            "INVALID_REQUEST",
            Some("style"),
        ),
        (EDITS, json!({}), 400, "INVALID_REQUEST", Some("image")),
        (
            EDITS,
            json!({"image": "data:image/png;base64,aGk="}),
            400,
            "INVALID_REQUEST",
            Some("image"),
        ),
        (
            EDITS,
            json!({"image": [format!("data:image/png;base64,{png}"), format!("data:image/png;base64,{png}")]}),
            400,
            "INVALID_REQUEST",
            Some("image"),
        ),
        ("/v1/images/upscale", json!({}), 404, "NOT_FOUND", None),
        ("/v1/models", json!({}), 405, "NOT_FOUND", None),
    ];
    for (path, mut body, status, code, param) in cases {
        let object = body.as_object_mut().unwrap();
        object.entry("model").or_insert(json!("z-image-turbo"));
        object.entry("prompt").or_insert(json!("a house"));
        let answered = tokio::time::timeout(Duration::from_secs(10), room.post(path, body.clone()));
        let answer = answered.await.unwrap_or_else(|_| panic!("{path} {body} is taken"));
        let told = answer.json();
        let error = &told["error"];
        assert_eq!(answer.status, status, "{path} {body}: {error}");
        assert_eq!(
            (error["code"].as_str(), error["param"].as_str()),
            (Some(code), param),
            "{error}"
        );
        assert!(error["message"].is_string() && error["type"].is_string());
        assert_eq!(answer.header("x-should-retry"), "false");
        assert!(answer.header("x-request-id").starts_with("req_"));
    }
    for (body, kind) in [
        ("{", "application/json"),
        ("[]", "application/json"),
        ("x", "multipart/form-data; boundary=b"),
    ] {
        let answer = room.send("POST", GENERATIONS, &[("content-type", kind)], body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn without_a_key_openai_s_clients_are_told_in_their_own_words() {
    let room = Room::with(Setup { keys_required: true, ..Setup::default() }).await;
    let painter = Painter::of(&room);
    for (method, path) in
        [("POST", GENERATIONS), ("GET", "/v1/models"), ("GET", "/v1/models/z-image-turbo")]
    {
        let answer = room.send(method, path, &[("authorization", "Bearer a:b")], "{}").await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["error"]["code"], "AUTHENTICATION_FAILED");
        assert_eq!(answer.header("x-should-retry"), "false");
    }
    let (id, key) = room.key(Scope::Api, 4).await;
    let bearer = key.replace("Key ", "Bearer ");
    let body = json!({"model": "z-image-turbo", "prompt": "a", "size": "64x64"}).to_string();
    let answer = room.send("POST", GENERATIONS, &[("authorization", &bearer)], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(painter.drawn()[0].owner, id);
    // Pages of other sites are refused where no keys are needed, in the same words.
    let room = Room::new().await;
    let answer = room.send("POST", GENERATIONS, &[("origin", "https://evil.example")], "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
        (403, Some("PERMISSION_DENIED"))
    );
}

#[tokio::test]
async fn models_are_listed_and_found_under_forced_names_too() {
    let room = Room::new().await;
    for prefix in ["/v1", "/openai/v1"] {
        let list = room.get(&format!("{prefix}/models")).await.json();
        assert_eq!(list["object"], "list");
        let ids: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
        assert!(ids.contains(&"z-image-turbo"), "{ids:?}");
    }
    for id in ["z-image-turbo", "local%2Fz-image-turbo", "local/z-image-turbo"] {
        let model = room.get(&format!("/v1/models/{id}")).await;
        assert_eq!(model.status, 200, "{model:?}");
        assert_eq!(model.json()["id"], id.replace("%2F", "/"));
        assert_eq!(model.json()["object"], "model");
    }
    let missing = room.get("/v1/models/z-image-turboo").await;
    assert_eq!(missing.status, 404);
    assert!(
        missing.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Did you mean 'z-image-turbo'?")
    );
}

#[tokio::test]
async fn the_schema_tells_what_each_parameter_is_and_who_takes_it() {
    let room = Room::new().await;
    let model = room.get("/v1/models/z-image-turbo?schema=true").await.json();
    assert_eq!(model["max_resolution"], "2048x2048");
    assert_eq!(model["modes"], json!(["text-to-image", "image-edit"]));
    let parameters = model["schema"]["parameters"].as_array().unwrap();
    let named = |name: &str| {
        let found = parameters.iter().find(|parameter| parameter["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(named("prompt")["modes"]["text-to-image"], "required");
    assert_eq!(
        named("strength")["modes"],
        json!({"text-to-image": "not_available", "image-edit": "supported"})
    );
    assert_eq!(named("output_format")["enum"], json!(["png", "jpeg", "webp", "gif", "avif"]));
    assert_eq!(named("n")["handling"], json!({"local": "emulated"}));
    assert_eq!(named("num_inference_steps")["maximum"], 200.0);
    assert!(parameters.iter().all(|parameter| parameter["name"] != "style"), "nobody here has it");
    assert_eq!(model["providers"][0]["key"], "local/z-image-turbo");
    assert_eq!(model["providers"][0]["healthy"], true);
}

#[tokio::test]
async fn a_model_has_a_page_for_those_who_read_text() {
    let room = Room::new().await;
    for path in ["/models/alibaba/z-image-turbo/llms.txt", "/models/z-image-turbo/llms.txt"] {
        let page = room.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").starts_with("text/plain"));
        let text = page.text();
        for part in
            ["# Z-Image Turbo\n", "- Config Key: `local/z-image-turbo`", "client.images.edit("]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
    assert_eq!(room.get("/models/fal/z-image-turbo/llms.txt").await.status, 404);
}

#[tokio::test]
async fn a_dry_run_costs_and_draws_nothing() {
    let room = Room::new().await;
    let path = format!("{GENERATIONS}?dryRun=true");
    let body = json!({"model": "z-image-turbo", "prompt": "a", "n": 2, "aspect_ratio": "16:9", "style": "vivid"});
    let answer = room.post(&path, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    assert_eq!((&told["estimated"], &told["provider"]), (&json!(true), &json!("local")));
    assert_eq!(told["effective_parameters"]["size"], "1360x768");
    assert_eq!(told["parameters_dropped"][0]["parameter"], "style");
    assert_eq!(told["total_cost_micros"], 0);
    assert_eq!(room.queue.queued().await.unwrap(), 0);
    let wrong = room.post(&path, json!({"model": "z-image-turbo", "prompt": "a", "n": 0})).await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn a_stream_shows_as_many_unfinished_pictures_as_were_asked_for() {
    let room = Room::new().await;
    let _painter = Painter::of(&room);
    for (partials, want) in [(0, 0), (2, 2), (3, 3)] {
        let answer = generate(&room, json!({"stream": true, "partial_images": partials})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("content-type").starts_with("text/event-stream"));
        assert!(answer.header("x-request-id").starts_with("req_"), "{answer:?}");
        let text = answer.text();
        assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
        let data = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]");
        let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        let (last, first) = events.split_last().unwrap();
        assert_eq!(last["type"], "image_generation.completed");
        assert_eq!((&last["size"], &last["output_format"]), (&json!("64x64"), &json!("png")));
        assert_eq!(bytes_of(&room, last).await, picture(64, 64, Format::Png));
        assert!(first.len() <= want, "{text}");
        for (index, event) in first.iter().enumerate() {
            assert_eq!(event["type"], "image_generation.partial_image");
            assert_eq!(event["partial_image_index"], index);
            assert_eq!(
                (&event["size"], &event["output_format"]),
                (&json!("16x16"), &json!("jpeg"))
            );
        }
    }
    // What is wrong from the beginning has a status, as OpenAI's clients expect it.
    let answer = generate(&room, json!({"stream": true, "model": "nobody"})).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn what_the_engine_refuses_is_told_with_its_parameter() {
    let room = Room::new().await;
    let answered = generate(&room, json!({"enable_safety_checker": true}));
    let worker = async {
        loop {
            if let Some(lease) = room.queue.claim().await.unwrap() {
                let detail = json!([{"loc": ["body", "enable_safety_checker"], "msg": "There is none", "type": "feature_not_supported"}]);
                let end = End {
                    outcome: Outcome::Failed,
                    status_code: 422,
                    response: json!({"detail": detail}).to_string(),
                    error: None,
                    error_type: Some("feature_not_supported".into()),
                    inference_ms: None,
                    billable_units: None,
                    flagged: None,
                };
                return lease.finish(Attempt::End(end)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (answer, ()) = tokio::join!(answered, worker);
    let error = &answer.json()["error"];
    assert!(answer.status.is_client_error(), "{answer:?}");
    assert_eq!(error["param"], "enable_safety_checker");
    assert!(error["message"].as_str().unwrap().contains("There is none"), "{error}");
    assert_eq!(answer.header("x-should-retry"), "false");
}

#[tokio::test]
async fn who_leaves_has_it_cancelled() {
    let room = Room::new().await;
    let waiting =
        tokio::time::timeout(Duration::from_millis(300), generate(&room, json!({}))).await;
    assert!(waiting.is_err(), "nobody draws");
    for _ in 0..200 {
        if room.queue.queued().await.unwrap() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the task waits on");
}

#[tokio::test]
async fn the_document_names_every_route_and_parameter() {
    let room = Room::new().await;
    let document = room.get("/v1/openapi.json").await.json();
    for path in
        ["/images/generations", "/images/edits", "/images/variations", "/models", "/models/{id}"]
    {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let schemas = &document["components"]["schemas"];
    assert!(schemas["Generation"]["properties"]["strength"].is_null());
    assert_eq!(schemas["Edit"]["properties"]["strength"]["maximum"], 1.0);
    assert_eq!(schemas["VariationForm"]["required"], json!(["model", "image"]));
}

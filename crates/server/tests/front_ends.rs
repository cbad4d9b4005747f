//! What programs that people use were seen to send, and whether they find what they read.

#![allow(clippy::unwrap_used)]

mod painter;
mod room;

use painter::{Painter, Part, form, picture};
use room::{Room, Setup};
use serde_json::json;
use zoetrope_api::Format;
use zoetrope_gateway::catalogue::{Alias, Catalogue};

/// A server on which OpenAI's own names stand for a model.
async fn with_names() -> Room {
    let alias = |pattern: &str| Alias {
        pattern: pattern.into(),
        target: "z-image-turbo".into(),
        listed: true,
    };
    let aliases = vec![alias("dall-e-2"), alias("gpt-image-*")];
    let catalogue = Catalogue { aliases, ..Catalogue::standard() };
    Room::with(Setup { catalogue, ..Setup::default() }).await
}

/// What front-ends were seen to send, and which of the two forms of a picture they read.
#[tokio::test]
async fn front_ends_find_what_they_read() {
    let room = with_names().await;
    let _painter = Painter::of(&room);
    let drawn = [
        (
            "Open WebUI",
            json!({"model": "z-image-turbo", "prompt": "a", "n": 1, "size": "512x512", "response_format": "b64_json"}),
            "b64_json",
        ),
        (
            "LibreChat",
            json!({"model": "gpt-image-1", "prompt": "a", "n": 1, "quality": "auto", "size": "auto", "background": "auto",
            "output_format": "png", "output_compression": 100}),
            "b64_json",
        ),
        (
            "LobeChat",
            json!({"model": "z-image-turbo", "n": 1, "prompt": "a", "seed": 3, "size": "64x64"}),
            "url",
        ),
        (
            "n8n",
            json!({"prompt": "a", "model": "dall-e-2", "response_format": "b64_json", "quality": "standard", "size": "256x256",
            "style": "vivid", "n": 1}),
            "b64_json",
        ),
        (
            "LangChain",
            json!({"prompt": "a", "n": 1, "size": "256x256", "model": "dall-e-2", "quality": "standard"}),
            "url",
        ),
        (
            "AI SDK",
            json!({"model": "z-image-turbo", "prompt": "a", "n": 1, "size": "64x64", "response_format": "b64_json"}),
            "b64_json",
        ),
        (
            "Lumenfall's extension",
            json!({"model": "z-image-turbo", "prompt": "a", "aspect_ratio": "16:9", "resolution": "512", "n": 1,
            "response_format": "b64_json"}),
            "b64_json",
        ),
    ];
    for (who, body, read) in drawn {
        let answer = room.post("/v1/images/generations", body).await;
        assert_eq!(answer.status, 200, "{who}: {answer:?}");
        assert!(answer.json()["data"][0][read].is_string(), "{who} reads {read}");
        assert_eq!(answer.json()["metadata"]["model"], "z-image-turbo", "whatever it was called");
    }
    let png = picture(32, 32, Format::Png);
    let edits: [(&str, Vec<Part>); 3] = [
        (
            "Open WebUI",
            vec![
                ("model", None, "z-image-turbo"),
                ("prompt", None, "a"),
                ("n", None, "1"),
                ("size", None, "64x64"),
                ("background", None, "auto"),
                ("response_format", None, "b64_json"),
                ("image", Some(&png), ""),
            ],
        ),
        (
            "LibreChat",
            vec![
                ("model", None, "gpt-image-1"),
                ("prompt", None, "a"),
                ("quality", None, "auto"),
                ("size", None, "auto"),
                ("image[]", Some(&png), ""),
            ],
        ),
        (
            "AI SDK",
            vec![
                ("model", None, "z-image-turbo"),
                ("prompt", None, "a"),
                ("n", None, "1"),
                ("image[]", Some(&png), ""),
            ],
        ),
    ];
    for (who, parts) in edits {
        let (kind, body) = form(&parts);
        let answer = room.send("POST", "/v1/images/edits", &[("content-type", &kind)], body).await;
        assert_eq!(answer.status, 200, "{who}: {answer:?}");
        assert!(answer.json()["data"][0]["b64_json"].is_string(), "{who} reads base64");
    }
}

#[tokio::test]
async fn names_that_are_told_are_in_the_list() {
    let room = with_names().await;
    let list = room.get("/v1/models").await.json();
    let ids: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"dall-e-2") && !ids.contains(&"gpt-image-*"), "{ids:?}");
    assert_eq!(room.get("/v1/models/gpt-image-1.5").await.json()["id"], "gpt-image-1.5");
}

/// Lumenfall's command line calls these, and shows these of their answers.
#[tokio::test]
async fn lumenfall_s_command_line_finds_what_it_reads() {
    let room = with_names().await;
    let _painter = Painter::of(&room);
    let body = json!({"model": "z-image-turbo", "prompt": "a", "n": 1, "size": "64x64"});
    let estimate =
        room.post("/openai/v1/images/generations?dryRun=true", body.clone()).await.json();
    for name in ["total_cost_micros", "currency", "model", "provider"] {
        assert!(!estimate[name].is_null(), "{name}: {estimate}");
    }
    for name in ["billable_quantity", "quantity", "metric", "unit_price"] {
        assert!(!estimate["components"][0][name].is_null(), "{name}: {estimate}");
    }
    let drawn = room.post("/openai/v1/images/generations", body).await;
    assert_eq!(drawn.status, 200, "nothing else is a success to it");
    let drawn = drawn.json();
    assert!(drawn["data"][0]["url"].is_string());
    assert_eq!(room.get("/v1/balance").await.json()["object"], "balance");
    assert!(room.get("/openai/v1/models").await.json()["data"][0]["id"].is_string());
    room.gateway.settle().await;
    let list = room.get("/v1/requests?limit=10").await.json();
    assert_eq!(list["data"][0]["id"], drawn["id"]);
    let one = room.get(&format!("/v1/requests/{}", drawn["id"].as_str().unwrap())).await.json();
    let shown = [
        "status",
        "model",
        "endpoint",
        "modality",
        "created_at",
        "duration_ms",
        "cost",
        "currency",
    ];
    for name in shown {
        assert!(!one[name].is_null(), "{name}: {one}");
    }
    for name in ["error_code", "error_message"] {
        assert!(one.get(name).is_some(), "{name}: {one}");
    }
}

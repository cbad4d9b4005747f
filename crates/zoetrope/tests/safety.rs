//! The look at pictures, as users meet it: the fixture's checkers find dark pictures unsafe, which the embedded model draws at night.

#![allow(clippy::unwrap_used)]

#[path = "../../files/tests/hub_server/mod.rs"]
mod hub_server;
mod served;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use served::{Server, zoetrope};

const NIGHT: &str = "a lighthouse in the middle, the sea, at midnight";
const DAY: &str = "a white house in the middle, snow, the sun on the left, at noon";
const REPO: &str = "Falconsai/nsfw_image_detection";

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(path)
        .canonicalize()
        .unwrap()
}

fn checker(name: &str) -> String {
    fixture("safety").join(name).to_str().unwrap().to_string()
}

fn is_black(bytes: &[u8]) -> bool {
    image::load_from_memory(bytes).unwrap().into_rgb8().iter().all(|value| *value == 0)
}

fn input(prompt: &str) -> Value {
    json!({"prompt": prompt, "image_size": {"width": 96, "height": 96}, "num_inference_steps": 4, "seed": 3})
}

fn draw(server: &Server, key: &str, input: &Value) -> (u16, Value) {
    server.call_as(key, "POST", "/run/fal-ai/z-image/turbo", Some(input))
}

#[test]
fn the_command_line_blanks_what_is_found_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["vit", "clip"] {
        for (prompt, is_unsafe) in [(NIGHT, true), (DAY, false)] {
            let path = folder.path().join("a.png");
            let (file, checker) = (path.to_str().unwrap(), checker(name));
            let done = zoetrope(&[
                "generate", prompt, "--size", "96x96", "--steps", "4", "--seed", "3", "--json",
                "-o", file, "--safety", &checker,
            ]);
            let said = String::from_utf8_lossy(&done.stderr).to_string();
            assert!(done.status.success(), "{said}");
            let report: Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!(report["has_nsfw_concepts"], json!([is_unsafe]), "{name}: {prompt}");
            assert_eq!(is_black(&std::fs::read(&path).unwrap()), is_unsafe, "{name}: {prompt}");
            assert_eq!(said.contains("the safety checker found 1 of 1"), is_unsafe, "{said}");
            let info = zoetrope(&["info", file]);
            let shown = String::from_utf8(info.stdout).unwrap();
            assert!(shown.contains("has_nsfw_concept"), "{shown}");
        }
    }
    let wrong = zoetrope(&["generate", DAY, "--safety", "/nowhere"]);
    let said = String::from_utf8_lossy(&wrong.stderr).to_string();
    assert!(!wrong.status.success() && said.contains("no such folder"), "{said}");
    let wrong = zoetrope(&["generate", DAY, "--safety", "someone/nothing"]);
    let said = String::from_utf8_lossy(&wrong.stderr).to_string();
    assert!(said.contains("someone/nothing") && said.contains("give its folder"), "{said}");
}

#[test]
fn a_server_looks_counts_and_does_what_each_key_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap().to_string();
    let key = |policy: &[&str]| {
        let all = [&["keys", "create", "--data-dir", &data, "--scope", "admin"], policy].concat();
        let made = zoetrope(&all);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        format!("Key {}", String::from_utf8(made.stdout).unwrap().trim())
    };
    let (plain, flag) = (key(&[]), key(&["--on-flagged", "flag"]));
    let refuse = key(&["--on-flagged", "refuse"]);
    let checker = checker("vit");
    let server = Server::start_in(folder, &["--safety", &checker, "--require-keys"]);

    // As fal: a black picture, and the flag that says why.
    let (status, result) = draw(&server, &plain, &input(NIGHT));
    assert_eq!((status, &result["has_nsfw_concepts"]), (200, &json!([true])), "{result}");
    let black = server.get_bytes(result["images"][0]["url"].as_str().unwrap());
    assert!(is_black(&black));
    assert_eq!(image::load_from_memory(&black).unwrap().width(), 96);
    let (_, result) = draw(&server, &plain, &input(DAY));
    assert_eq!(result["has_nsfw_concepts"], json!([false]));
    assert!(!is_black(&server.get_bytes(result["images"][0]["url"].as_str().unwrap())));

    // Nobody looks where nobody shall, unless the key has a policy.
    let mut unchecked = input(NIGHT);
    unchecked["enable_safety_checker"] = false.into();
    let (_, result) = draw(&server, &plain, &unchecked);
    assert_eq!(result["has_nsfw_concepts"], json!([]));
    let (_, result) = draw(&server, &flag, &unchecked);
    assert_eq!(result["has_nsfw_concepts"], json!([true]));
    assert!(!is_black(&server.get_bytes(result["images"][0]["url"].as_str().unwrap())));
    let (status, result) = draw(&server, &refuse, &unchecked);
    assert_eq!((status, &result["detail"][0]["type"]), (422, &json!("content_policy_violation")));
    assert_eq!(result["detail"][0]["loc"], json!(["body", "prompt"]));

    // By OpenAI's form.
    let body = json!({"model": "z-image-turbo", "prompt": NIGHT, "size": "96x96", "num_inference_steps": 4, "seed": 3,
        "enable_safety_checker": true});
    let openai = |key: &str, body: &Value| {
        let bearer = key.replace("Key ", "Bearer ");
        server.call_as(&bearer, "POST", "/v1/images/generations", Some(body))
    };
    let (status, answer) = openai(&plain, &body);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("CONTENT_POLICY_VIOLATION")),
        "{answer}"
    );
    let (status, answer) = openai(&flag, &body);
    assert_eq!(status, 200, "{answer}");
    let mut day = body.clone();
    day["prompt"] = DAY.into();
    assert_eq!(openai(&plain, &day).0, 200);

    let (_, metrics) = server.call_as(&plain, "GET", "/metrics", None);
    let metrics = metrics.as_str().unwrap();
    for line in [
        "zoetrope_flagged_images_total{policy=\"blank\"} 1",
        "zoetrope_flagged_images_total{policy=\"refuse\"} 2",
        "zoetrope_flagged_images_total{policy=\"flag\"} 2",
        "zoetrope_checked_images_total 7",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let path = "/platform/v1/models/requests/by-endpoint?endpoint_id=fal-ai/z-image/turbo";
    let (_, history) = server.call_as(&plain, "GET", path, None);
    let mut counts: Vec<Value> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["flagged_images"].clone())
        .collect();
    counts.reverse();
    assert_eq!(counts, [json!(1), json!(0), Value::Null, json!(1), json!(1)]);
}

#[test]
fn previews_are_looked_at_too() {
    let checker = checker("vit");
    let server = Server::start(&["--safety", &checker]);
    let frames = |prompt: &str| {
        let events = server.events("/run/fal-ai/z-image/turbo/stream", &input(prompt));
        let shown = events.iter().filter_map(|event| event["images"][0]["url"].as_str());
        let bytes = |url: &str| match url.split_once(";base64,") {
            Some((_, text)) => base64(text),
            None => server.get_bytes(url),
        };
        shown.map(bytes).collect::<Vec<_>>()
    };
    let night = frames(NIGHT);
    assert!(night.len() >= 2, "previews and a result");
    assert!(
        night.iter().rev().take(2).all(|frame| is_black(frame)),
        "a late preview shows what the result shows"
    );
    assert!(frames(DAY).iter().rev().take(2).all(|frame| !is_black(frame)));
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn a_full_model_refuses_until_a_checker_was_pulled_which_is_then_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub_server::fixture();
    let read = |file: &str| std::fs::read(fixture("safety/vit").join(file)).unwrap();
    let mut files: hub_server::Files =
        ["config.json", "preprocessor_config.json", "model.safetensors"]
            .map(|file| (file.to_string(), read(file)))
            .into();
    files.insert("pytorch_model.bin".into(), vec![1; 9]);
    hub.also.insert(REPO.into(), files);
    let (address, shared) = hub_server::serve(hub);
    let home = folder.path().join("hf").to_str().unwrap().to_string();
    let variables = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", address.as_str())];
    let model = fixture("turbo/model").to_str().unwrap().to_string();
    let serve =
        || Server::start_with(tempfile::tempdir().unwrap(), &["--model", &model], &variables);
    let small =
        json!({"prompt": "x", "image_size": {"width": 64, "height": 64}, "num_inference_steps": 1});

    let server = serve();
    let (status, result) = draw(&server, "Key local:local", &small);
    let problem = &result["detail"][0];
    assert_eq!((status, &problem["type"]), (422, &json!("feature_not_supported")), "{result}");
    let said = problem["msg"].as_str().unwrap();
    assert!(said.contains("models pull safety") && said.contains("--safety off"), "{said}");
    drop(server);

    let pull = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zoetrope"));
        command.args(arguments).envs(variables).env_remove("HF_TOKEN");
        let done = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let pulled = pull(&["models", "pull", "safety"]);
    assert!(pulled.contains("models--Falconsai--nsfw_image_detection/snapshots"), "{pulled}");
    let seen = shared.lock().unwrap().seen.clone();
    assert!(!seen.iter().any(|line| line.contains("pytorch_model")), "{seen:?}");
    let listed = pull(&["models", "list"]);
    assert!(
        listed.lines().any(|line| line.contains(REPO) && line.contains("complete")),
        "{listed}"
    );

    let server = serve();
    let (status, result) = draw(&server, "Key local:local", &small);
    assert_eq!(status, 200, "{result}");
    assert_eq!(result["has_nsfw_concepts"].as_array().unwrap().len(), 1, "somebody has looked");
    drop(server);
    pull(&["models", "rm", "safety", "--yes"]);
    assert!(!pull(&["models", "list"]).contains(REPO));
}

//! The binary as a server: started on free ports, asked over HTTP, drawing with the embedded model.

#![allow(clippy::unwrap_used)]

mod served;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use served::{Server, zoetrope};

/// Small and few steps: the embedded model takes a second for it.
fn input() -> Value {
    json!({
        "prompt": "a red house on the left, rolling hills, at noon",
        "image_size": {"width": 96, "height": 64},
        "num_inference_steps": 2,
        "seed": 7,
    })
}

#[test]
fn a_picture_is_drawn_stored_and_served() {
    let server = Server::start(&[]);
    let (status, result) = server.post("/run/fal-ai/z-image/turbo", &input());
    assert_eq!(status, 200, "{result}");
    assert_eq!((&result["seed"], &result["has_nsfw_concepts"]), (&json!(7), &json!([false])));
    let image = &result["images"][0];
    assert_eq!((&image["width"], &image["height"]), (&json!(96), &json!(64)));
    let url = image["url"].as_str().unwrap();
    let bytes = server.get_bytes(url);
    assert_eq!(image["file_size"], bytes.len());
    let picture = image::load_from_memory(&bytes).unwrap();
    assert_eq!((picture.width(), picture.height()), (96, 64));

    // What was drawn is the start of another, and by any of the server's names.
    let named = url.replace("127.0.0.1", "localhost");
    let mut again = input();
    again["image_url"] = named.into();
    let (status, result) = server.post("/run/fal-ai/z-image/turbo/image-to-image", &again);
    assert_eq!(status, 200, "{result}");
    assert_eq!(result["images"][0]["width"], 96);
}

#[test]
fn the_same_seed_draws_the_same_picture_after_a_restart_and_requests_survive_it() {
    let mut server = Server::start(&["--no-worker"]);
    let mut sent = input();
    sent["sync_mode"] = true.into();
    let (status, submitted) = server.post("/queue/fal-ai/z-image/turbo", &sent);
    assert_eq!(status, 200, "{submitted}");
    server.kill();
    let server = server.again(&[]);
    let id = submitted["request_id"].as_str().unwrap();
    let first = server.result(id);
    let (_, second) = server.post("/run/fal-ai/z-image/turbo", &sent);
    let url = first["images"][0]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,"), "{url}");
    assert_eq!(first["images"][0]["url"], second["images"][0]["url"]);
}

#[test]
fn a_running_request_is_cancelled_within_a_step() {
    let server = Server::start(&[]);
    let mut long = input();
    long["num_inference_steps"] = 30.into();
    long["image_size"] = json!({"width": 512, "height": 512});
    let (_, submitted) = server.post("/queue/fal-ai/z-image/turbo", &long);
    let id = submitted["request_id"].as_str().unwrap();
    server.wait_for(id, "IN_PROGRESS");
    let asked = Instant::now();
    assert_eq!(
        server.call("PUT", &format!("/queue/fal-ai/z-image/requests/{id}/cancel"), None).0,
        202
    );
    server.wait_for(id, "COMPLETED");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let (status, result) = server.get(&format!("/queue/fal-ai/z-image/requests/{id}"));
    assert_eq!((status, &result["error_type"]), (499, &json!("client_cancelled")));
}

#[test]
fn a_stream_shows_small_pictures_and_then_the_result() {
    let server = Server::start(&[]);
    let mut three = input();
    three["num_inference_steps"] = 3.into();
    let events = server.events("/run/fal-ai/z-image/turbo/stream", &three);
    assert_eq!(events.len(), 3, "{events:?}");
    for (event, step) in events.iter().zip(1..=2) {
        assert_eq!((&event["step"], &event["of"]), (&json!(step), &json!(3)));
        let url = event["images"][0]["url"].as_str().unwrap();
        assert!(url.starts_with("data:image/jpeg;base64,"), "{url}");
    }
    assert_eq!(events[2]["seed"], 7);
}

#[test]
fn stopping_hands_back_what_runs() {
    let mut server = Server::start(&["--drain-seconds", "0"]);
    let mut long = input();
    long["num_inference_steps"] = 30.into();
    long["image_size"] = json!({"width": 512, "height": 512});
    let (_, submitted) = server.post("/queue/fal-ai/z-image/turbo", &long);
    let id = submitted["request_id"].as_str().unwrap();
    server.wait_for(id, "IN_PROGRESS");
    server.terminate();
    let server = server.again(&["--no-worker"]);
    let (_, status) = server.get(&format!("/queue/fal-ai/z-image/requests/{id}/status"));
    assert_eq!(status["status"], "IN_QUEUE", "{status}");
}

#[test]
fn other_addresses_than_loopback_need_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let refused =
        zoetrope(&["serve", "--data-dir", data, "--listen", "0.0.0.0:0", "--tls-listen", "off"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && error.contains("zoetrope keys create"), "{error}");

    let made = zoetrope(&["keys", "create", "--alias", "test", "--data-dir", data]);
    let key = String::from_utf8(made.stdout).unwrap().trim().to_string();
    let server = Server::start_in(folder, &["--listen", "0.0.0.0:0", "--no-worker"]);
    assert_eq!(server.post("/queue/fal-ai/z-image/turbo", &input()).0, 401);
    let header = format!("Key {key}");
    let (status, _) =
        server.call_as(&header, "POST", "/queue/fal-ai/z-image/turbo", Some(&input()));
    assert_eq!(status, 200);

    let id = key.split(':').next().unwrap();
    let listed = zoetrope(&["keys", "list", "--json", "--data-dir", server.data_dir()]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&listed["keys"][0]["key_id"], &listed["keys"][0]["scope"]),
        (&json!(id), &json!("api"))
    );
    assert!(!listed.to_string().contains(key.split(':').nth(1).unwrap()), "the secret is nowhere");
    assert!(zoetrope(&["keys", "revoke", id, "--data-dir", server.data_dir()]).status.success());
    std::thread::sleep(Duration::from_millis(2200));
    let (status, _) =
        server.call_as(&header, "POST", "/queue/fal-ai/z-image/turbo", Some(&input()));
    assert_eq!(status, 401);
}

#[test]
fn requests_are_listed_shown_cancelled_and_deleted_beside_the_server() {
    let server = Server::start(&["--no-worker"]);
    let (_, submitted) = server.post("/queue/fal-ai/z-image/turbo", &input());
    let id = submitted["request_id"].as_str().unwrap();
    let run = |arguments: &[&str]| {
        zoetrope(&[&["requests"], arguments, &["--data-dir", server.data_dir()]].concat())
    };
    let listed: Value = serde_json::from_slice(&run(&["list", "--json"]).stdout).unwrap();
    assert_eq!(listed["requests"][0]["state"], "queued");
    let early = run(&["delete", id]);
    assert!(String::from_utf8(early.stderr).unwrap().contains("cancel it first"));
    assert!(run(&["cancel", id]).status.success());
    let shown: Value = serde_json::from_slice(&run(&["show", id]).stdout).unwrap();
    assert_eq!((&shown["state"], &shown["input"]["seed"]), (&json!("cancelled"), &json!(7)));
    assert!(run(&["delete", id]).status.success());
    assert!(!run(&["show", id]).status.success());
}

#[test]
fn env_and_run_lead_programs_here() {
    let server = Server::start(&["--no-worker"]);
    let printed = zoetrope(&["env", "--json", "--data-dir", server.data_dir()]);
    let variables: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(variables["HTTPS_PROXY"], server.address.as_str());
    let bundle = std::fs::read_to_string(variables["SSL_CERT_FILE"].as_str().unwrap()).unwrap();
    let ca = std::fs::read_to_string(variables["NODE_EXTRA_CA_CERTS"].as_str().unwrap()).unwrap();
    assert!(bundle.contains(ca.trim()) && bundle.matches("BEGIN").count() > 100);
    let run = zoetrope(&[
        "run",
        "--data-dir",
        server.data_dir(),
        "--",
        "sh",
        "-c",
        "echo $HTTPS_PROXY; exit 3",
    ]);
    assert_eq!(run.status.code(), Some(3));
    assert_eq!(String::from_utf8(run.stdout).unwrap().trim(), server.address);
}

#[test]
fn a_worker_of_its_own_draws_what_a_server_accepts() {
    let server = Server::start(&["--no-worker"]);
    let (_, submitted) = server.post("/queue/fal-ai/z-image/turbo", &input());
    let _worker = server.worker(&[]);
    let result = server.result(submitted["request_id"].as_str().unwrap());
    assert!(!server.get_bytes(result["images"][0]["url"].as_str().unwrap()).is_empty());
}

#[test]
fn the_configuration_is_checked_without_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "queue_max = 5\nkeep_days = 2\n").unwrap();
    let file = file.to_str().unwrap();
    let fine =
        zoetrope(&["config", "check", "--config", file, "--data-dir", data, "--keep-days", "3"]);
    let text = String::from_utf8(fine.stdout).unwrap();
    assert!(text.contains("queue_max = 5") && text.contains("keep_days = 3"), "{text}");
    std::fs::write(file, "queue_maxx = 5\n").unwrap();
    let wrong = zoetrope(&["config", "check", "--config", file, "--data-dir", data]);
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("queue_maxx"));
    let flag =
        zoetrope(&["config", "check", "--data-dir", data, "--public-url", "pictures.example"]);
    assert!(String::from_utf8(flag.stderr).unwrap().contains("--public-url"));
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// A server of the fixture's model, which may draw anything.
fn fixture_server(arguments: &[&str], variables: &[(&str, &str)]) -> Server {
    let model = fixture("turbo/model");
    let loras = fixture("turbo/lora");
    let own = ["--model", model.to_str().unwrap(), "--lora-dir", loras.to_str().unwrap()];
    Server::start_with(tempfile::tempdir().unwrap(), &[&own, arguments].concat(), variables)
}

fn with_lora(path: &str) -> Value {
    let mut input = input();
    input["loras"] = json!([{"path": path, "scale": 1.0}]);
    input["sync_mode"] = true.into();
    input
}

#[test]
fn a_lora_is_found_by_name_address_upload_and_hub_and_draws_the_same() {
    let bytes = std::fs::read(fixture("turbo/lora/style.kohya.safetensors")).unwrap();
    let listing =
        json!({"siblings": [{"rfilename": "README.md"}, {"rfilename": "style.safetensors"}]});
    let hub = served::web(vec![
        ("/api/models/someone/style", listing.to_string().into_bytes()),
        ("/someone/style/resolve/main/style.safetensors", bytes.clone()),
        ("/someone/style/resolve/main/readme.safetensors", b"this is no LoRA".to_vec()),
    ]);
    let server = fixture_server(&["--safety", "off"], &[("HF_ENDPOINT", &hub)]);
    let draw = |input: &Value| server.post("/run/fal-ai/z-image/turbo/lora", input);
    let (status, plain) = draw(&{
        let mut plain = with_lora("");
        plain["loras"] = json!([]);
        plain
    });
    assert_eq!((status, &plain["has_nsfw_concepts"]), (200, &json!([])), "nobody has looked");

    let body =
        json!({"file_name": "style.safetensors", "content_type": "application/octet-stream"});
    let (_, places) = server.post("/rest/storage/upload/initiate", &body);
    assert_eq!(server.put_bytes(places["upload_url"].as_str().unwrap(), &bytes), 200);
    let address = format!("{hub}/someone/style/resolve/main/style.safetensors");
    let ways = [
        "style.kohya",
        "style.kohya.safetensors",
        "someone/style",
        "someone/style/style.safetensors",
        &address,
        places["file_url"].as_str().unwrap(),
    ];
    let mut pictures = Vec::new();
    for path in ways {
        let (status, result) = draw(&with_lora(path));
        assert_eq!(status, 200, "{path}: {result}");
        pictures.push(result["images"][0]["url"].clone());
    }
    assert!(pictures.iter().all(|picture| *picture == pictures[0]), "one file, one picture");
    assert_ne!(pictures[0], plain["images"][0]["url"], "the adapter does something");

    let wrong = [
        ("nothing", "value_error"),
        ("../style.kohya", "value_error"),
        ("someone/nothing", "file_download_error"),
        ("someone/style/readme.safetensors", "value_error"),
        ("http://10.0.0.1/style.safetensors", "file_download_error"),
        ("file:///etc/passwd", "value_error"),
    ];
    for (path, kind) in wrong {
        let (status, result) = draw(&with_lora(path));
        assert_eq!(status, 422, "{path}: {result}");
        let problem = &result["detail"][0];
        assert_eq!(problem["loc"], json!(["body", "loras", 0, "path"]), "{path}: {result}");
        assert_eq!(problem["type"], kind, "{path}: {result}");
        assert!(!result.to_string().contains(server.data_dir()), "no path leaks: {result}");
    }
}

#[test]
fn pictures_that_nobody_checks_are_refused_unless_that_is_wanted() {
    let server = fixture_server(&[], &[]);
    let (status, result) = server.post("/run/fal-ai/z-image/turbo", &input());
    assert_eq!(status, 422, "{result}");
    let problem = &result["detail"][0];
    assert_eq!(problem["type"], "feature_not_supported");
    assert_eq!(problem["loc"], json!(["body", "enable_safety_checker"]));
    let mut unchecked = input();
    unchecked["enable_safety_checker"] = false.into();
    let (status, result) = server.post("/run/fal-ai/z-image/turbo", &unchecked);
    assert_eq!((status, &result["has_nsfw_concepts"]), (200, &json!([])));
}

#[test]
fn images_are_taken_from_everywhere_but_inside() {
    let photo = std::fs::read(fixture("turbo/inputs/photo.png")).unwrap();
    let outside = served::web(vec![("/photo.png", photo.clone()), ("/text.png", b"text".to_vec())]);
    let server = Server::start(&[]);
    let draw = |server: &Server, url: &str| {
        let mut input = input();
        input["image_url"] = url.into();
        input["image_size"] = "auto".into();
        server.post("/run/fal-ai/z-image/turbo/image-to-image", &input)
    };
    let url = format!("{outside}/photo.png");
    let data = format!("data:image/png;base64,{}", base64(&photo));
    let gone = format!("{}/files/{}/photo.png", server.address, "0".repeat(32));
    let wrong = [
        (url.as_str(), "file_download_error"), // this machine
        ("http://169.254.169.254/latest/meta-data", "file_download_error"),
        (&gone, "file_download_error"),
        ("data:image/png;base64,!!", "file_download_error"),
        ("data:image/png;base64,AAAA", "image_load_error"),
    ];
    for (url, kind) in wrong {
        let (status, result) = draw(&server, url);
        assert_eq!(status, 422, "{url}: {result}");
        assert_eq!(result["detail"][0]["type"], kind, "{url}: {result}");
        assert_eq!(result["detail"][0]["loc"], json!(["body", "image_url"]));
    }
    let (status, result) = draw(&server, &data);
    assert_eq!(status, 200, "{result}");
    let size = image::load_from_memory(&photo).unwrap();
    assert_eq!(result["images"][0]["width"], size.width());
    drop(server);
    let server = Server::start(&["--allow-private"]);
    assert_eq!(draw(&server, &url).0, 200);
    let (status, result) = draw(&server, &format!("{outside}/text.png"));
    assert_eq!((status, &result["detail"][0]["type"]), (422, &json!("image_load_error")));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

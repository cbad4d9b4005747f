//! The gateway's configuration, from the file to the answers of a running server, and the limits of keys.

#![allow(clippy::unwrap_used)]

mod served;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use served::{Server, zoetrope};

/// Longer than the file goes unlooked at.
const PATIENCE: Duration = Duration::from_secs(30);

fn priced(dollars: &str) -> String {
    format!(
        "[gateway.models.z-image-turbo]\n\
         deployments = [{{ provider = \"local\", price = {{ unit = \"image\", dollars = {dollars} }} }}]\n"
    )
}

/// Millionths of a dollar that a picture would cost.
fn price(server: &Server) -> Value {
    let body = json!({"model": "z-image-turbo", "prompt": "a house", "size": "64x64"});
    let (status, answer) = server.post("/v1/images/generations?dryRun=true", &body);
    assert_eq!(status, 200, "{answer}");
    answer["total_cost_micros"].clone()
}

fn wait_for_price(server: &Server, wanted: i64) {
    let begun = Instant::now();
    while price(server) != wanted {
        assert!(begun.elapsed() < PATIENCE, "the price is still {}", price(server));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_running_server_follows_its_file_and_keeps_what_works() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, priced("0.01")).unwrap();
    let server = Server::start(&["--no-worker", "--config", file.to_str().unwrap()]);
    assert_eq!(price(&server), 10_000);
    std::fs::write(&file, priced("0.02")).unwrap();
    wait_for_price(&server, 20_000);
    std::fs::write(&file, priced("\"dear\"")).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(price(&server), 20_000, "mistakes change nothing");
    std::fs::write(&file, priced("0.03")).unwrap();
    wait_for_price(&server, 30_000);
}

#[test]
fn the_check_tells_every_mistake_of_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().to_str().unwrap(), folder.path().join("c.toml"));
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        zoetrope(&["config", "check", "--config", file.to_str().unwrap(), "--data-dir", data])
    };
    let fine = check("queue_max = 5\n[gateway.providers.fal]\nkey = \"k\"\n");
    let text = String::from_utf8(fine.stdout).unwrap();
    assert!(text.contains("z-image-turbo is served by fal/z-image-turbo"), "{text}");
    let wrong = check("[gateway.providers.fal]\n[gateway.routing]\nluck = true\n");
    let text = String::from_utf8(wrong.stderr).unwrap();
    for place in ["gateway.providers.fal.key", "gateway.routing.luck"] {
        assert!(!wrong.status.success() && text.contains(place), "{place}: {text}");
    }
}

#[test]
fn a_key_s_limits_are_set_shown_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let keys = |arguments: &[&str]| {
        let all = [&["keys"], arguments, &["--data-dir", data]].concat();
        let done = zoetrope(&all);
        let error = String::from_utf8_lossy(&done.stderr).to_string();
        assert!(done.status.success(), "{error}");
        String::from_utf8(done.stdout).unwrap()
    };
    let made = keys(&[
        "create",
        "--budget",
        "2.5",
        "--requests-per-minute",
        "9",
        "--allow-models",
        "z-image*,fal/*",
    ]);
    let id = made.split(':').next().unwrap();
    let listed = || -> Value { serde_json::from_str(&keys(&["list", "--json"])).unwrap() };
    let key = &listed()["keys"][0];
    assert_eq!((&key["budget"], &key["spent"]), (&json!(2.5), &json!(0.0)));
    assert_eq!(key["models"], json!(["z-image*", "fal/*"]));
    assert_eq!(key["requests_per_minute"], 9);
    keys(&["limit", id, "--budget", "10"]);
    let key = &listed()["keys"][0];
    assert_eq!((&key["budget"], &key["requests_per_minute"]), (&json!(10.0), &Value::Null));
    assert!(keys(&["list"]).contains("spent $0.00 of $10.00"));
}

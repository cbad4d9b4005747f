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

/// The value of the line of `/metrics` that begins with `name`; 0 where there is none.
fn metric(server: &Server, name: &str) -> f64 {
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let text = text.as_str().unwrap().to_string();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

fn wait_for_metric(server: &Server, name: &str, wanted: f64) {
    let begun = Instant::now();
    while metric(server, name) != wanted {
        let (_, all) = server.get("/metrics");
        assert!(begun.elapsed() < PATIENCE, "{name} is not {wanted}:\n{}", all.as_str().unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(unix)]
#[test]
fn a_hangup_has_the_file_read_again_though_it_is_the_same() {
    const TAKEN: &str = "zoetrope_gateway_reloads_total{outcome=\"taken\"}";
    const REFUSED: &str = "zoetrope_gateway_reloads_total{outcome=\"refused\"}";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, priced("0.01")).unwrap();
    let server = Server::start(&["--no-worker", "--config", file.to_str().unwrap()]);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(metric(&server, TAKEN), 0.0, "looks at a file that is as it was change nothing");
    server.signal("HUP");
    wait_for_metric(&server, TAKEN, 1.0);
    std::fs::write(&file, priced("\"dear\"")).unwrap();
    wait_for_metric(&server, REFUSED, 1.0);
    server.signal("HUP");
    wait_for_metric(&server, REFUSED, 2.0);
    assert_eq!(price(&server), 10_000, "mistakes change nothing");
    std::fs::write(&file, priced("0.02")).unwrap();
    server.signal("HUP");
    wait_for_price(&server, 20_000);
}

#[test]
fn prometheus_is_told_what_was_asked_and_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, priced("0.01")).unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    let body = json!({"model": "z-image-turbo", "prompt": "a house", "size": "64x64", "num_inference_steps": 1});
    for _ in 0..2 {
        let (status, answer) = server.post("/v1/images/generations", &body);
        assert_eq!(status, 200, "{answer}");
    }
    let (status, _) =
        server.post("/v1/images/generations", &json!({"model": "nobody", "prompt": "a"}));
    assert_eq!(status, 404);
    let local = "deployment=\"local/z-image-turbo\"";
    let figures = [
        (
            "zoetrope_gateway_requests_total{model=\"z-image-turbo\",status=\"completed\"}".into(),
            2.0,
        ),
        ("zoetrope_gateway_requests_total{model=\"nobody\",status=\"rejected\"}".into(), 0.0),
        (format!("zoetrope_gateway_calls_total{{{local},outcome=\"completed\"}}"), 2.0),
        (format!("zoetrope_gateway_call_seconds_count{{{local}}}"), 2.0),
        (format!("zoetrope_gateway_first_byte_seconds_count{{{local}}}"), 2.0),
        ("zoetrope_gateway_overhead_seconds_count".into(), 3.0),
        (format!("zoetrope_gateway_cost_micros_total{{{local}}}"), 20_000.0),
        (format!("zoetrope_gateway_healthy{{{local}}}"), 1.0),
        ("zoetrope_gateway_unrecorded_total".into(), 0.0),
    ];
    for (name, wanted) in figures {
        wait_for_metric(&server, &name, wanted);
    }
    let seconds = metric(&server, &format!("zoetrope_gateway_call_seconds_sum{{{local}}}"));
    let own = metric(&server, "zoetrope_gateway_overhead_seconds_sum");
    assert!(seconds > 0.0 && own > 0.0 && own < seconds, "{own} of {seconds}");
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
    assert_eq!(key["budget_period"], "ever");
    assert!(keys(&["list"]).contains("spent $0.00 of $10.00"));
    keys(&["limit", id, "--budget", "10", "--budget-period", "month"]);
    assert_eq!(listed()["keys"][0]["budget_period"], "month");
    assert!(keys(&["list"]).contains("may spend $10.00 a month"));
}

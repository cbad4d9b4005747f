//! Depth for control networks, as users meet it: refused until a network was pulled, which is then found.

#![allow(clippy::unwrap_used)]

#[path = "../../files/tests/hub_server/mod.rs"]
mod hub_server;
mod served;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use served::Server;

const REPO: &str = "depth-anything/Depth-Anything-V2-Small-hf";

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(path)
        .canonicalize()
        .unwrap()
}

fn path(name: &str) -> String {
    fixture(name).to_str().unwrap().to_string()
}

/// A hub that has the fixture's network in place of the published one.
fn hub() -> String {
    let mut hub = hub_server::fixture();
    let read = |file: &str| std::fs::read(fixture("depth/model").join(file)).unwrap();
    let files = ["config.json", "preprocessor_config.json", "model.safetensors"];
    let files = files.map(|file| (file.to_string(), read(file)));
    hub.also.insert(REPO.into(), files.into());
    hub_server::serve(hub).0
}

#[test]
fn a_server_and_the_command_line_refuse_depth_until_a_network_was_pulled_which_is_then_found() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("hf").to_str().unwrap().to_string();
    let address = hub();
    let variables = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", address.as_str())];
    let (model, network) = (path("turbo/model"), path("control/union-2.1"));
    let zoetrope = |arguments: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zoetrope"));
        command.args(arguments).envs(variables).env_remove("HF_TOKEN").current_dir(folder.path());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let photo = path("control/inputs/photo.png");
    let generate = |preprocess: &str, output: &str| {
        zoetrope(&[
            "generate",
            "a house",
            "--model",
            &model,
            "--seed",
            "7",
            "--steps",
            "2",
            "--safety",
            "off",
            "--control",
            &photo,
            "--controlnet",
            &network,
            "--control-preprocess",
            preprocess,
            "-o",
            output,
        ])
    };
    let serve = || {
        let arguments = ["--model", &model, "--controlnet", &network, "--safety", "off"];
        Server::start_with(tempfile::tempdir().unwrap(), &arguments, &variables)
    };
    let uri = |path: &str| {
        let bytes = std::fs::read(path).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
        format!("data:image/png;base64,{base64}")
    };
    let draw = |server: &Server, preprocess: &str| -> (u16, Value) {
        let input = json!({"prompt": "a house", "image_url": uri(&photo), "num_inference_steps": 1, "seed": 3, "preprocess": preprocess,
            "control_end": 1, "output_format": "png"});
        let endpoint = "/run/fal-ai/z-image/turbo/controlnet";
        server.call_as("Key local:local", "POST", endpoint, Some(&input))
    };

    let server = serve();
    let (status, result) = draw(&server, "depth");
    let problem = &result["detail"][0];
    assert_eq!((status, &problem["type"]), (422, &json!("feature_not_supported")), "{result}");
    assert!(problem["msg"].as_str().unwrap().contains("models pull depth"), "{problem}");
    let (status, result) = draw(&server, "pose");
    assert_eq!((status, &result["detail"][0]["type"]), (422, &json!("feature_not_supported")));
    assert!(result["detail"][0]["msg"].as_str().unwrap().contains("skeleton"), "{result}");
    drop(server);
    let refused = generate("depth", "a.png");
    let said = String::from_utf8_lossy(&refused.stderr).to_string();
    assert!(!refused.status.success() && said.contains("models pull depth"), "{said}");

    let pulled = zoetrope(&["models", "pull", "depth"]);
    let said = String::from_utf8_lossy(&pulled.stderr).to_string();
    assert!(pulled.status.success(), "{said}");
    let listed = String::from_utf8(zoetrope(&["models", "list"]).stdout).unwrap();
    assert!(
        listed.lines().any(|line| line.contains(REPO) && line.contains("complete")),
        "{listed}"
    );

    for (preprocess, output) in [("depth", "a.png"), ("none", "b.png")] {
        let done = generate(preprocess, output);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let read = |name: &str| image::open(folder.path().join(name)).unwrap().to_rgb8().into_raw();
    assert!(read("a.png") != read("b.png"), "depth is followed");
    let info = zoetrope(&["info", "a.png", "--json"]);
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["control_preprocess"], json!("depth"));

    let server = serve();
    let picture = |preprocess: &str| {
        let (status, result) = draw(&server, preprocess);
        assert_eq!(status, 200, "{result}");
        server.get_bytes(result["images"][0]["url"].as_str().unwrap())
    };
    assert!(picture("depth") != picture("none"), "depth is followed");
    drop(server);
    assert!(zoetrope(&["models", "rm", "depth", "--yes"]).status.success());
    let wrong = zoetrope(&["serve", "--depth-model", "depth"]);
    let said = String::from_utf8_lossy(&wrong.stderr).to_string();
    assert!(!wrong.status.success() && said.contains("`zoetrope models pull depth`"), "{said}");
}

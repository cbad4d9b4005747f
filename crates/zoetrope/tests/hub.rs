//! Models of the hub through the binary: pulled, listed, described, used and removed, from a server on a loopback port.

#![allow(clippy::unwrap_used)]

#[path = "../../files/tests/hub_server/mod.rs"]
mod hub_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hub_server::{COMMIT, Fault, REPO, fixture, serve};

/// Runs `zoetrope` in `folder` with its cache there and the hub at `address`.
fn run(folder: &Path, address: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zoetrope"))
        .current_dir(folder)
        .args(args)
        .env("HF_HOME", folder.join("hf"))
        .env("HF_ENDPOINT", address)
        .env_remove("HF_TOKEN")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn snapshot(folder: &Path, repo: &str) -> PathBuf {
    let cached = format!("models--{}", repo.replace('/', "--"));
    folder.join("hf/hub").join(cached).join("snapshots").join(COMMIT)
}

const SMALL: [&str; 8] = ["generate", "a red fox", "--seed", "3", "--size", "64x64", "-o", "a.png"];

#[test]
fn a_model_is_pulled_on_first_use_over_a_broken_connection_and_removed_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = fixture();
    let weights = "vae/diffusion_pytorch_model.safetensors";
    hub.faults.insert(weights.into(), vec![Fault::Break]);
    let (address, shared) = serve(hub);
    let run = |args: &[&str]| run(folder.path(), &address, args);

    let first = run(&[&SMALL[..], &["--model", REPO]].concat());
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(said.contains(&format!("{REPO}: 3 MB in ")) && said.contains("files, into"), "{said}");
    stdout(&first);
    let picture = fs::read(folder.path().join("a.png")).unwrap();
    let seen = shared.lock().unwrap().seen.clone();
    let resumed = seen.iter().any(|line| line.contains(weights) && line.contains("bytes="));
    assert!(resumed, "{seen:?}");

    // The second time nothing is asked of the hub.
    shared.lock().unwrap().seen.clear();
    stdout(&run(&[&SMALL[..], &["--model", REPO]].concat()));
    assert_eq!(fs::read(folder.path().join("a.png")).unwrap(), picture);
    assert_eq!(shared.lock().unwrap().seen, Vec::<String>::new());

    assert!(stdout(&run(&["models", "list"])).contains(REPO));
    let info = stdout(&run(&["models", "info", REPO]));
    assert!(info.contains("transformer") && info.contains("f32"), "{info}");
    let pulled = stdout(&run(&["models", "pull", REPO]));
    assert_eq!(Path::new(pulled.trim()), snapshot(folder.path(), REPO));
    stdout(&run(&["models", "rm", REPO, "--yes"]));
    assert!(!snapshot(folder.path(), REPO).exists());
    assert!(!stdout(&run(&["models", "list"])).contains(REPO));
}

#[test]
fn a_repackaging_s_weights_are_used_with_the_original_s_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = fixture();
    let join = |part: &str| {
        let of_part = hub.files.iter().filter(|(name, _)| {
            name.starts_with(part) && name.ends_with(".safetensors") && !name.contains("fp16")
        });
        let tensors = of_part.flat_map(|(_, bytes)| {
            candle_core::safetensors::load_buffer(bytes, &candle_core::Device::Cpu).unwrap()
        });
        let path = folder.path().join("joined.safetensors");
        candle_core::safetensors::save(&tensors.collect(), &path).unwrap();
        fs::read(path).unwrap()
    };
    let files = [
        ("split_files/diffusion_models/z_image_turbo_bf16.safetensors", join("transformer/")),
        ("split_files/text_encoders/qwen_3_4b.safetensors", join("text_encoder/")),
        ("split_files/vae/ae.safetensors", join("vae/")),
    ];
    let files = files.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect();
    let other = "Comfy-Org/z_image_turbo";
    hub.also.insert(other.into(), files);
    let (address, shared) = serve(hub);
    let run = |args: &[&str]| run(folder.path(), &address, args);

    stdout(&run(&[&SMALL[..], &["--model", other]].concat()));
    let repackaged = fs::read(folder.path().join("a.png")).unwrap();
    let seen = shared.lock().unwrap().seen.clone();
    let of_original = format!("/{REPO}/resolve/");
    let weights = |line: &&String| line.starts_with(&of_original) && line.contains(".safetensors");
    assert_eq!(seen.iter().filter(weights).count(), 0, "{seen:?}");
    assert!(snapshot(folder.path(), other).exists());

    // The same weights, so the same pixels; the name of the model in the file differs.
    stdout(&run(&[&SMALL[..], &["--model", REPO]].concat()));
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
    let original = fs::read(folder.path().join("a.png")).unwrap();
    assert_eq!(pixels(&repackaged), pixels(&original));
}

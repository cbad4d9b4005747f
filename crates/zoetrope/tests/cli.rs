//! The binary, driven as users do: pictures made, read back and made again, and every wrong input refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// Runs `zoetrope` with `args` in `folder`.
fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoetrope"));
    command
        .current_dir(folder)
        .args(args)
        .env("HF_HOME", folder.join("hf"))
        .env("HF_HUB_OFFLINE", "1");
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What went wrong; nothing may have been left in `folder`.
fn refused(folder: &Path, args: &[&str]) -> String {
    let before = fs::read_dir(folder).unwrap().count();
    let output = run(folder, args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(if message.contains("try '--help'") { 2 } else { 1 }),
        "{args:?}: {message}"
    );
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), before, "{args:?} left something behind");
    message
}

fn model() -> String {
    fixture("turbo/model").to_str().unwrap().into()
}

#[test]
fn the_embedded_model_makes_a_picture_that_its_parameters_make_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = stdout(&run(
        folder.path(),
        &[
            "generate",
            "a red house on the left, at night",
            "--seed",
            "7",
            "-o",
            "a.png",
            "--steps",
            "2",
        ],
    ));
    assert!(out.starts_with("a.png ("), "{out}");
    let info = stdout(&run(folder.path(), &["info", "a.png", "--json"]));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (info["seed"].as_u64(), info["steps"].as_u64(), info["model"].as_str()),
        (Some(7), Some(2), Some("demo"))
    );
    let prompt = info["prompt"].as_str().unwrap();
    stdout(&run(
        folder.path(),
        &["generate", prompt, "--seed", "7", "-o", "b.png", "--steps", "2"],
    ));
    assert_eq!(
        fs::read(folder.path().join("a.png")).unwrap(),
        fs::read(folder.path().join("b.png")).unwrap()
    );
}

#[test]
fn outside_its_world_the_embedded_model_says_so_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let inside =
        run(folder.path(), &["generate", "a blue boat, the sea", "--steps", "1", "-o", "a.png"]);
    assert_eq!(String::from_utf8(inside.stderr).unwrap(), "");
    let outside = run(folder.path(), &["generate", "a dragon", "--steps", "1", "-o", "a.png"]);
    let note = String::from_utf8(outside.stderr).unwrap();
    assert_eq!(note.lines().count(), 1, "{note}");
    assert!(
        note.contains("embedded demonstration model") && note.contains("Tongyi-MAI/Z-Image-Turbo"),
        "{note}"
    );
}

#[test]
fn latents_are_saved_and_equal_the_reference_s() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "A red fox sleeping under an old pine tree, snow on the hills, soft morning light";
    let args = [
        "generate",
        prompt,
        "--model",
        &model(),
        "--seed",
        "42",
        "--size",
        "96x96",
        "--steps",
        "8",
        "-o",
        "a.webp",
        "--save-latents",
        "l.safetensors",
        "--json",
    ];
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(folder.path(), &args))).unwrap();
    assert_eq!(json["images"][0]["path"], "a.webp");
    let floats = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("latents").unwrap();
        assert_eq!(view.shape(), [1, 16, 12, 12]);
        view.data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    let got = floats(&folder.path().join("l.safetensors"));
    let want = floats(&fixture("turbo/golden/t2i_seed.safetensors"));
    let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn every_path_writes_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let photo = fixture("turbo/inputs/photo.png").to_str().unwrap().to_string();
    let mask = fixture("turbo/inputs/mask_large.png").to_str().unwrap().to_string();
    let lora = format!("{}:-0.5", fixture("turbo/lora/style.kohya.safetensors").display());
    let paths: [&[&str]; 4] = [
        &["--size", "48x64"],
        &["--image", &photo, "--strength", "0.3"],
        &["--image", &photo, "--mask", &mask],
        &["--size", "64x48", "--lora", &lora, "--guidance-scale", "2", "--negative-prompt", "fog"],
    ];
    for (path, ending) in paths.iter().zip(["png", "jpg", "webp", "avif"]) {
        let output = format!("out.{ending}");
        let base =
            ["generate", "cat", "--model", &model(), "--steps", "4", "--count", "2", "-o", &output];
        stdout(&run(folder.path(), &[&base, *path].concat()));
        for i in 1..=2 {
            let info = stdout(&run(folder.path(), &["info", &format!("out-{i}.{ending}")]));
            assert!(info.contains("prompt  cat"), "{info}");
        }
    }
}

#[test]
fn wrong_values_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.png");
    fs::write(&garbage, "this is no image").unwrap();
    let photo = fixture("turbo/inputs/photo.png").to_str().unwrap().to_string();
    let other =
        fixture("base/model/vae/diffusion_pytorch_model.safetensors").to_str().unwrap().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["--size", "100x64"], "`width` is 100, which is no multiple of 16; use 96 or 112"),
        (&["--width", "0"], "`width` is 0; the least is 16"),
        (&["--size", "8192x8192", "--model", &model()], "needs about"),
        (&["--size", "huge"], "square_hd"),
        (&["--steps", "0"], "`steps` is 0; a picture takes at least 1 step"),
        (&["--count", "0"], "`count` is 0"),
        (
            &["--image", &photo, "--strength", "1.5"],
            "`strength` is 1.5; it must lie between 0 and 1",
        ),
        (&["--image", &photo, "--strength", "0"], "`strength` is 0 and leaves none of"),
        (&["--image", "garbage.png"], "garbage.png: is no image of a known format"),
        (&["--image", "nowhere.png"], "nowhere.png: cannot be opened"),
        (&["--lora", &other], "fit no layer of Z-Image"),
        (&["--lora", "nowhere.safetensors"], "nowhere.safetensors"),
        (&["--device", "tpu"], "use auto, cpu, cuda, cuda:N or metal"),
        (&["--device", "cuda"], "this build does not have it; build with `--features cuda`"),
        (&["--dtype", "int3"], "`int3` is no dtype; use auto, f32, bf16"),
        (&["--model", "nowhere"], "there is no such file or folder"),
        (&["--model", "garbage.png"], "garbage.png: is no whole safetensors file"),
        (&["--output", "no/folder.png"], "there is no folder"),
        (&["--output", "a.bmp"], "end the name in .png, .jpg, .webp, .gif or .avif"),
        (&["--guidance-scale=-2"], "`guidance_scale` is -2; it must lie between 0 and 100"),
        (&["--mask", &photo], "--image"),
    ];
    for (args, want) in cases {
        let message = refused(folder.path(), &[&["generate", "a house"], *args].concat());
        assert!(message.contains(want), "{args:?}: {message}");
    }
    let message = refused(folder.path(), &["info", "garbage.png"]);
    assert!(message.contains("holds no parameters"), "{message}");
}

#[test]
fn empty_and_endless_prompts_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let endless = "a red house ".repeat(9000);
    for prompt in ["", &endless] {
        let output = run(folder.path(), &["generate", prompt, "--steps", "1", "-o", "a.png"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let cut = String::from_utf8_lossy(&output.stderr).contains("tokens are cut off");
        assert_eq!(cut, !prompt.is_empty());
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    let copy = |damage: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&fixture("wide/model"), &folder.path().join("m"));
        damage(&folder.path().join("m"));
        folder
    };
    let vae = "vae/diffusion_pytorch_model.safetensors";
    let cut = |m: &Path| {
        let bytes = fs::read(m.join(vae)).unwrap();
        fs::write(m.join(vae), &bytes[..bytes.len() / 2]).unwrap();
    };
    let lie = |m: &Path| {
        let mut bytes = fs::read(m.join(vae)).unwrap();
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(m.join(vae), bytes).unwrap();
    };
    let other_config = |m: &Path| {
        let path = m.join("transformer/config.json");
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("\"cap_feat_dim\": 32", "\"cap_feat_dim\": 48");
        fs::write(path, text).unwrap();
    };
    let fewer_layers = |m: &Path| {
        let path = m.join("text_encoder/config.json");
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
        fs::write(path, text).unwrap();
    };
    let more_layers = |m: &Path| {
        let path = m.join("transformer/config.json");
        let text = fs::read_to_string(&path).unwrap().replace("\"n_layers\": 1", "\"n_layers\": 2");
        fs::write(path, text).unwrap();
    };
    let no_vae = |m: &Path| fs::remove_dir_all(m.join("vae")).unwrap();
    let no_json = |m: &Path| fs::write(m.join("scheduler/scheduler_config.json"), "{").unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: &[(Damage, &str)] = &[
        (&cut, "is no whole safetensors file"),
        (&lie, "is no whole safetensors file"),
        (&other_config, "but the model wants"),
        (&fewer_layers, "fit no layer of the model"),
        (&more_layers, "is missing"),
        (&no_vae, "the VAE is missing"),
        (&no_json, "scheduler_config.json: cannot be read"),
    ];
    for (damage, want) in cases {
        let folder = copy(*damage);
        let message = refused(
            folder.path(),
            &["generate", "fox", "--model", "m", "--size", "64x64", "--steps", "1", "-o", "a.png"],
        );
        assert!(message.contains(want), "{want}: {message}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

#[test]
fn acceleration_comes_near_the_picture_in_full_and_has_three_levels() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |level: &str| {
        let name = format!("{level}.png");
        let prompt = "a red house on the left, rolling hills, at noon";
        let args = ["generate", prompt, "--seed", "7", "--acceleration", level, "-o", &name];
        stdout(&run(folder.path(), &args));
        image::open(folder.path().join(&name)).unwrap().to_rgb8().into_raw()
    };
    let (full, high) = (draw("none"), draw("high"));
    let difference: u64 = full.iter().zip(&high).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = difference as f64 / full.len() as f64;
    assert!(mean > 0.0, "nothing was predicted");
    assert!(mean < 6.0, "the pictures differ by {mean} of 255");
    let message = refused(folder.path(), &["generate", "x", "--acceleration", "fast"]);
    assert!(message.contains("none, regular and high"), "{message}");
}

#[test]
fn packed_weights_are_removed_by_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("cache/zoetrope/packed");
    fs::create_dir_all(&packed).unwrap();
    let remove = |yes: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zoetrope"));
        command.args(["models", "rm", "packed"]).args(yes);
        command.env("XDG_CACHE_HOME", folder.path().join("cache"));
        command.stdin(std::process::Stdio::null()).output().unwrap()
    };
    let asked = remove(&[]);
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--yes"), "{asked:?}");
    assert_eq!(stdout(&remove(&["--yes"])).trim(), "0 B freed");
}

#[test]
fn a_control_network_is_followed_and_what_it_did_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let (model, edges) = (model(), fixture("control/inputs/edges.png"));
    let network = fixture("control/single/Z-Image-Turbo-Fun-Controlnet-Union-2.0.safetensors");
    let network = network.to_str().unwrap();
    let control = format!("{}:0.5", edges.display());
    let draw = |more: &[&str], output: &str| {
        let given =
            ["generate", "a house", "--model", &model, "--seed", "7", "--steps", "2", "-o", output];
        let safety = ["--safety", "off"];
        run(folder.path(), &[&given[..], &safety, more].concat())
    };
    let out = stdout(&draw(&["--control", &control, "--controlnet", network], "a.png"));
    assert!(out.starts_with("a.png (96x64, seed 7"), "{out}");
    let info = stdout(&run(folder.path(), &["info", "a.png", "--json"]));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["control"].as_str(), Some(&*control));
    stdout(&draw(&["--size", "96x64"], "b.png"));
    let canny = ["--control", &*control, "--controlnet", network, "--control-preprocess", "canny"];
    stdout(&draw(&canny, "c.png"));
    let photo = fixture("control/inputs/photo.png").display().to_string();
    let mask = fixture("control/inputs/mask.png").display().to_string();
    let gap = ["--control", &*control, "--controlnet", network, "--image", &photo, "--mask", &mask];
    stdout(&draw(&gap, "d.png"));
    let read = |name: &str| image::open(folder.path().join(name)).unwrap().to_rgb8().into_raw();
    let pictures = ["a.png", "b.png", "c.png", "d.png"].map(read);
    for i in 0..4 {
        assert!((0..i).all(|j| pictures[i] != pictures[j]), "{i}");
    }
}

#[test]
fn references_reach_models_that_see_them_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let omni = fixture("omni/model").display().to_string();
    let (one, two) = (fixture("omni/inputs/photo.png"), fixture("omni/inputs/odd.png"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let given = ["generate", "the fox", "--seed", "7", "--steps", "2", "--safety", "off"];
    let seen = ["--model", &omni, "--reference", one, "--reference", two, "-o", "a.png"];
    let out = stdout(&run(folder.path(), &[&given[..], &seen].concat()));
    // The last reference's size, in multiples of 16.
    assert!(out.starts_with("a.png (96x64, seed 7"), "{out}");
    let blind = ["--model", &model(), "--reference", one, "-o", "b.png"];
    let message = refused(folder.path(), &[&given[..], &blind].concat());
    assert!(message.contains("need a model that sees pictures"), "{message}");
    let control = fixture("control/union-1.0").display().to_string();
    let mixed = ["--model", &omni, "--control", one, "--controlnet", &control, "-o", "b.png"];
    let message = refused(folder.path(), &[&given[..], &mixed].concat());
    assert!(message.contains("models that see pictures take references"), "{message}");
    let vae = fixture("turbo/model/vae").display().to_string();
    let wrong = ["--model", &model(), "--control", one, "--controlnet", &vae, "-o", "b.png"];
    let message = refused(folder.path(), &[&given[..], &wrong].concat());
    assert!(message.contains("control"), "{message}");
}

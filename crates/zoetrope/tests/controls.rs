//! The controls of `zoetrope generate`, and fal's tiling endpoints, driven as users do.

#![allow(clippy::unwrap_used)]

mod served;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::served::Server;

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoetrope"));
    command.current_dir(folder).args(args).env("HF_HUB_OFFLINE", "1");
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

/// Standard output of `zoetrope generate` with `args`.
fn generate(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, &[&["generate"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn parameters(folder: &Path, file: &str) -> Value {
    let output = run(folder, &["info", file, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Between columns, or rows: the mean difference over the seam, and over the rest.
fn gradients(picture: &image::RgbImage, across: bool) -> (f64, f64) {
    let picture = if across { image::imageops::rotate90(picture) } else { picture.clone() };
    let rows: Vec<&[u8]> = picture.chunks_exact(3 * picture.width() as usize).collect();
    let between = |a: usize, b: usize| {
        let pairs = rows[a].iter().zip(rows[b]);
        pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / rows[a].len() as f64
    };
    let inside = (1..rows.len()).map(|i| between(i - 1, i)).sum::<f64>() / (rows.len() - 1) as f64;
    (between(rows.len() - 1, 0), inside)
}

const SCENE: &str = "a blue boat in the middle, the sea, at sunset, clouds";

#[test]
fn controls_are_kept_beside_the_picture_and_make_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--seed",
        "7",
        "--sampler",
        "dpmpp_2m",
        "--sigmas",
        "1,0.8,0.5,0.2",
        "--tile",
        "x",
        "--tile-size",
        "32",
        "--variation-seed",
        "9",
        "--variation-strength",
        "0.25",
        "--prompt-weighting",
    ];
    generate(folder.path(), &[&["a (red:1.4) house, at night", "-o", "a.png"], &args[..]].concat());
    let found = parameters(folder.path(), "a.png");
    let want = json!({"sampler": "dpmpp_2m", "sigmas": [1.0, 0.8, 0.5, 0.2], "steps": 4, "tiling_mode": "horizontal",
        "tile_size": 32, "tile_stride": 16, "variation_seed": 9, "variation_strength": 0.25, "prompt_weighting": true,
        "prompt": "a (red:1.4) house, at night", "seed": 7});
    for (name, want) in want.as_object().unwrap() {
        let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-6;
        let same = match (&found[name], want) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b))
            }
            (found, want) => found == want,
        };
        assert!(same, "{name}: {} is not {want}", found[name]);
    }
    generate(folder.path(), &[&["a (red:1.4) house, at night", "-o", "b.png"], &args[..]].concat());
    let bytes = |name| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("a.png"), bytes("b.png"));
    // Without any, nothing of them is kept.
    generate(folder.path(), &[SCENE, "--steps", "1", "-o", "c.png"]);
    let plain = parameters(folder.path(), "c.png");
    assert!(plain.get("sampler").is_none() && plain.get("tiling_mode").is_none(), "{plain}");
}

#[test]
fn a_batch_makes_a_picture_of_every_line_and_wildcards_one_of_every_seed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.txt"), "# scenes\na red house\n\n  the sea, at night \n")
        .unwrap();
    let lines = generate(
        folder.path(),
        &["--batch", "prompts.txt", "--seed", "3", "--steps", "1", "--size", "64x64"],
    );
    let names: Vec<&str> = lines.lines().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(names, ["001-a-red-house-3.png", "002-the-sea-at-night-3.png"]);
    assert_eq!(parameters(folder.path(), names[1])["prompt"], "the sea, at night");

    fs::create_dir(folder.path().join("cards")).unwrap();
    fs::write(folder.path().join("cards/thing.txt"), "house\ntower\nwindmill\n").unwrap();
    let prompt = "a {red|blue|green} __thing__";
    let args = [
        prompt,
        "--wildcards",
        "cards",
        "--count",
        "4",
        "--seed",
        "5",
        "--steps",
        "1",
        "--size",
        "64x64",
        "-o",
        "w.png",
        "--json",
    ];
    let told: Vec<Value> = generate(folder.path(), &args)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seeds: Vec<_> = told.iter().map(|told| told["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [5, 6, 7, 8]);
    let prompts: Vec<_> =
        told.iter().map(|told| told["prompt"].as_str().unwrap().to_string()).collect();
    assert!(prompts.iter().all(|prompt| !prompt.contains(['{', '_'])), "{prompts:?}");
    assert!(prompts.iter().any(|prompt| *prompt != prompts[0]), "{prompts:?}");
    assert_eq!(told[3]["images"][0]["path"], "w-4.png");
    // Without the option, all of it is text.
    generate(folder.path(), &[prompt, "--steps", "1", "--size", "64x64", "-o", "text.png"]);
    assert_eq!(parameters(folder.path(), "text.png")["prompt"], prompt);
}

#[test]
fn an_image_is_upscaled_to_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), &[SCENE, "--seed", "1", "-o", "small.png"]);
    let args = [
        SCENE,
        "--image",
        "small.png",
        "--upscale",
        "1.5",
        "--tile-size",
        "32",
        "--seed",
        "1",
        "-o",
        "large.png",
    ];
    generate(folder.path(), &args);
    let open = |name| image::open(folder.path().join(name)).unwrap().to_rgb8();
    let (small, large) = (open("small.png"), open("large.png"));
    assert_eq!(large.dimensions(), (288, 288));
    let back = image::imageops::resize(&large, 192, 192, image::imageops::FilterType::Triangle);
    let off = back.iter().zip(small.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    let mean = off / small.len() as f64;
    assert!(mean < 12.0, "{mean} levels off");
    // `auto` is the image's size.
    generate(
        folder.path(),
        &[SCENE, "--image", "small.png", "--size", "auto", "--steps", "1", "-o", "same.png"],
    );
    assert_eq!(open("same.png").dimensions(), (192, 192));
}

#[test]
fn controls_that_make_no_sense_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["x", "--sampler", "ddim"], "the samplers are euler, heun, dpmpp_2m, unipc"),
        (&["x", "--sigmas", "0.5,0.9"], "must fall from at most 1 to above 0"),
        (&["x", "--tile", "z"], "[possible values: x, y, both]"),
        (
            &["x", "--tile", "x", "--tile-size", "33"],
            "`tile_size` is 33; it must be an even number",
        ),
        (&["x", "--tile-size", "64"], "go with --tile or --upscale"),
        (&["x", "--upscale", "2"], "--image"),
        (&["x", "--size", "auto"], "--size auto is the size of --image"),
        (&["x", "--variation-strength", "0.5"], "--variation-seed"),
        (&["--batch", "nothing.txt"], "--batch nothing.txt"),
        (&[], "<PROMPT>"),
        (&["(x:7)", "--prompt-weighting"], "`prompt` has the weight 7"),
        (&["__x__", "--wildcards", "."], "__x__"),
    ];
    for (args, want) in cases {
        let output = run(folder.path(), &[&["generate"], *args].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(want), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn fal_s_tiling_endpoint_draws_pictures_whose_edges_meet() {
    let server = Server::start(&[]);
    let body = json!({"prompt": SCENE, "seed": 1, "image_size": {"width": 190, "height": 190}, "sync_mode": true});
    let post = |path: &str, body: &Value| {
        let (status, answer) = server.post(path, body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let answer = post("/run/fal-ai/z-image/turbo/tiling", &body);
    assert_eq!(
        (answer["images"][0]["width"].as_u64(), answer["seed"].as_u64()),
        (Some(192), Some(1))
    );
    let picture = |answer: &Value| {
        let url = answer["images"][0]["url"].as_str().unwrap();
        let bytes = STANDARD.decode(url.split_once(',').unwrap().1);
        image::load_from_memory(&bytes.unwrap()).unwrap().to_rgb8()
    };
    let tile = picture(&answer);
    for across in [true, false] {
        let (seam, inside) = gradients(&tile, across);
        assert!(seam <= inside, "the seam has {seam}, the picture {inside}");
    }
    // From an image, only where the mask is white.
    let url = answer["images"][0]["url"].clone();
    let mut mask = image::GrayImage::new(192, 192);
    mask.pixels_mut().take(192 * 96).for_each(|pixel| pixel.0 = [255]);
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let mask = STANDARD.encode(bytes.into_inner());
    let body = json!({"prompt": SCENE, "seed": 5, "image_url": url, "mask_image_url": format!("data:image/png;base64,{mask}"),
        "image_size": "auto", "strength": 1, "tiling_mode": "horizontal", "sync_mode": true});
    let painted = picture(&post("/run/fal-ai/z-image/turbo/tiling", &body));
    let half = |top: bool| {
        let rows = if top { 0..80 } else { 112..192 };
        let off = rows.flat_map(|y| (0..192).map(move |x| (x, y)));
        let off = off.map(|(x, y)| {
            f64::from(painted.get_pixel(x, y).0[0].abs_diff(tile.get_pixel(x, y).0[0]))
        });
        off.sum::<f64>() / (80.0 * 192.0)
    };
    assert!(half(false) < 4.0 && half(true) > 2.0 * half(false), "{} {}", half(true), half(false));
    // Fields of ours are taken beside fal's.
    let own = json!({"prompt": SCENE, "seed": 2, "num_images": 2, "seed_per_image": true, "sampler": "unipc",
        "image_size": {"width": 64, "height": 64}, "num_inference_steps": 2});
    let both = post("/run/fal-ai/z-image/turbo", &own);
    assert_eq!(both["images"].as_array().unwrap().len(), 2);
}

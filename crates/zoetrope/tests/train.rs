//! `zoetrope train`: what it makes, what it survives, and what it says to bad input.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn zoetrope(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoetrope"));
    command.current_dir(folder).env("HF_HOME", folder.join("hf")).env("HF_HUB_OFFLINE", "1");
    command
}

/// A folder with `pictures/`: four flat pictures of 64 × 64, three with captions of their own.
fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for i in 0..4u8 {
        let shade = |x: u32, y: u32| image::Rgb([40 * i, (3 * x) as u8, (2 * y) as u8]);
        image::RgbImage::from_fn(64, 64, shade).save(pictures.join(format!("{i}.png"))).unwrap();
        if i > 0 {
            let caption = ["a red house", "the sea, at night", "a tree"][usize::from(i) - 1];
            std::fs::write(pictures.join(format!("{i}.txt")), caption).unwrap();
        }
    }
    folder
}

const SMALL: [&str; 14] = [
    "train",
    "pictures",
    "--default-caption",
    "a hill",
    "--resolution",
    "64",
    "--rank",
    "4",
    "--batch",
    "2",
    "--save-every",
    "2",
    "--optimizer",
    "adamw8bit",
];

fn train(folder: &Path, more: &[&str]) -> Output {
    zoetrope(folder).args(SMALL).args(more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_one_that_is_not() {
    const KILLS: usize = 20;
    let folder = place();
    let options = ["--steps", "30", "--ema", "0.9", "--dropout", "0.1", "--preserve", "0.1"];
    let whole = train(folder.path(), &[&options[..], &["--output", "whole.safetensors"]].concat());
    assert!(whole.status.success(), "{}", said(&whole));
    let begun = Instant::now();
    let again = train(folder.path(), &[&options[..], &["--output", "again.safetensors"]].concat());
    assert!(again.status.success(), "{}", said(&again));
    let each = begun.elapsed();
    let wanted = bytes(folder.path().join("whole.safetensors"));
    assert!(
        wanted == bytes(folder.path().join("again.safetensors")),
        "a second run made another adapter"
    );

    let mut words = rand_words();
    let mut killed = 0;
    let last = loop {
        let mut run = zoetrope(folder.path());
        run.args(SMALL).args(options).args(["--output", "killed.safetensors"]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        if killed == KILLS {
            break run.wait_with_output().unwrap();
        }
        // Enough to begin, and mostly too little to end.
        let share = 0.15 + 0.25 * f64::from(words()) / f64::from(u32::MAX);
        std::thread::sleep(Duration::from_secs_f64(each.as_secs_f64() * share));
        run.kill().unwrap();
        run.wait().unwrap();
        killed += 1;
    };
    assert!(last.status.success(), "{}", said(&last));
    assert!(said(&last).contains("goes on after"), "no checkpoint was left: {}", said(&last));
    assert!(
        wanted == bytes(folder.path().join("killed.safetensors")),
        "another adapter after {killed} kills"
    );
}

/// Numbers of chance, different in every run: the moments of the kills are nobody's choice.
fn rand_words() -> impl FnMut() -> u32 {
    let mut state =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos()
            | 1;
    println!("the kills begin at {state}");
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

#[test]
fn adapters_in_all_namings_draw_the_same_picture() {
    let folder = place();
    let draw = |lora: Option<&str>| {
        let mut command = zoetrope(folder.path());
        command.args([
            "generate",
            "a red house",
            "--size",
            "64x64",
            "--steps",
            "2",
            "--seed",
            "1",
            "-o",
            "out.png",
        ]);
        let drawn = command.args(lora.iter().flat_map(|file| ["--lora", file])).output().unwrap();
        assert!(drawn.status.success(), "{}", said(&drawn));
        bytes(folder.path().join("out.png"))
    };
    // alpha is not the rank, so that a naming that lost it would be seen.
    let options = ["--steps", "6", "--learning-rate", "0.02", "--alpha", "12", "--work", "work"];
    let pictures = ["diffusers", "comfyui", "kohya"].map(|naming| {
        let file = format!("{naming}.safetensors");
        let more = ["--naming", naming, "--output", &file, "--sample", "a red house"];
        let trained = train(folder.path(), &[&options[..], &more].concat());
        assert!(trained.status.success(), "{}", said(&trained));
        draw(Some(&file))
    });
    let decoded = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8().into_raw();
    let off = |a: &[u8], b: &[u8]| {
        let each = decoded(a).into_iter().zip(decoded(b)).map(|(a, b)| f64::from(a.abs_diff(b)));
        each.sum::<f64>() / decoded(a).len() as f64
    };
    let changed = off(&pictures[0], &draw(None));
    assert!(changed > 4.0, "the adapter changes nothing: {changed} levels");
    assert!(decoded(&pictures[1]) == decoded(&pictures[2]), "one name draws another picture");
    // A scale that is multiplied in is rounded to bfloat16 with the values.
    let rounded = off(&pictures[0], &pictures[1]);
    assert!(rounded < changed / 10.0, "{rounded} levels of {changed}");
    let page = String::from_utf8(bytes(folder.path().join("work/report.html"))).unwrap();
    assert!(page.contains("samples/step-0000006-1.png") && page.contains("<polyline"));
    assert!(folder.path().join("work/samples/step-0000000-1.png").is_file());
}

#[test]
fn an_adapter_is_gone_on_from_if_it_fits() {
    let folder = place();
    let first = train(folder.path(), &["--steps", "2", "--output", "first.safetensors"]);
    assert!(first.status.success(), "{}", said(&first));
    let more =
        ["--steps", "1", "--continue-from", "first.safetensors", "--output", "second.safetensors"];
    let second = train(folder.path(), &more);
    assert!(second.status.success(), "{}", said(&second));
    let base: Vec<&str> = SMALL.iter().copied().filter(|a| !["--rank", "4"].contains(a)).collect();
    for (options, wanted) in [
        (&["--rank", "8"][..], "has rank 4, but rank 8"),
        (&["--rank", "4", "--targets", "attention"], "feed_forward.w1"),
    ] {
        let mut command = zoetrope(folder.path());
        let refused = command.args(&base).args(options).args(more).args(["--work", "third"]);
        let refused = refused.output().unwrap();
        assert!(!refused.status.success() && said(&refused).contains(wanted), "{}", said(&refused));
    }
}

#[test]
fn another_run_in_the_same_folder_is_refused_until_it_may_begin_anew() {
    let folder = place();
    let run = |more: &[&str]| {
        train(folder.path(), &[&["--steps", "2", "--output", "x.safetensors"], more].concat())
    };
    assert!(run(&[]).status.success());
    let other = run(&["--learning-rate", "0.5"]);
    assert!(!other.status.success(), "it went on from another run");
    assert!(
        said(&other).contains("learning_rate") && said(&other).contains("--restart"),
        "{}",
        said(&other)
    );
    let anew = run(&["--learning-rate", "0.5", "--restart"]);
    assert!(anew.status.success(), "{}", said(&anew));
}

#[test]
fn every_way_to_train_changes_the_adapter() {
    let folder = place();
    let first = train(folder.path(), &["--steps", "1", "--output", "first.safetensors"]);
    assert!(first.status.success(), "{}", said(&first));
    let ways: [&[&str]; 8] = [
        &["--dtype", "q8_0", "--checkpointing", "on"],
        &["--dtype", "bf16"],
        &["--optimizer", "prodigy"],
        &["--optimizer", "adamw", "--schedule", "cosine", "--warmup", "1"],
        &["--prior", "pictures", "--prior-weight", "0.5", "--preserve", "1"],
        &["--timesteps", "logit-normal:0.5:1", "--caption-dropout", "1"],
        &["--targets", "attention,feed-forward,modulation"],
        &["--beside", "first.safetensors:0.5"],
    ];
    let made = ways.map(|way| {
        let more = ["--steps", "1", "--restart", "--work", "way", "--output", "way.safetensors"];
        // Of an option that is given twice, the one in `way` counts.
        let taken = |option: &&str| way.contains(option);
        let usual = SMALL.chunks(2).filter(|pair| !taken(&pair[0])).flatten();
        let mut command = zoetrope(folder.path());
        let trained = command.args(usual).args(way).args(more).output().unwrap();
        assert!(trained.status.success(), "{way:?}: {}", said(&trained));
        bytes(folder.path().join("way.safetensors"))
    });
    let unlike: std::collections::BTreeSet<_> = made.iter().collect();
    assert_eq!(unlike.len(), ways.len(), "two ways made the same adapter");
}

#[test]
fn bad_input_is_refused_with_its_name() {
    let folder = place();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::write(folder.path().join("no.zip"), b"PK nothing").unwrap();
    for (arguments, wanted) in [
        (&["train", "pictures", "--rank", "0"][..], "`rank` must be in 1..=1024, but is 0"),
        (&["train", "pictures", "--learning-rate", "NaN"], "learning_rate"),
        (&["train", "pictures", "--targets", "everything"], "`everything`"),
        (&["train", "pictures", "--timesteps", "noon"], "logit-normal"),
        (&["train", "pictures"], "0.png"),
        (&["train", "empty"], "holds no pictures"),
        (&["train", "nowhere"], "nowhere"),
        (&["train", "no.zip"], "whole zip"),
        (&["train", "pictures", "--output", "no/where.safetensors"], "no folder"),
        (&["train", "pictures", "--beside", "gone.safetensors"], "gone.safetensors"),
    ] {
        let mut command = zoetrope(folder.path());
        // Pictures without a caption are left out unless that is an error.
        let refused = command.args(arguments).args(["--strict", "--steps", "1"]).output().unwrap();
        assert!(!refused.status.success(), "{arguments:?} was accepted");
        assert!(said(&refused).contains(wanted), "{arguments:?}: {}", said(&refused));
        assert!(!said(&refused).contains("panicked"), "{}", said(&refused));
    }
}

//! The house rules that machines can check: which room may use which, where `unsafe` and the environment are, and that
//! every file says what it holds.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What each room may use. An arrow that is not here needs a reason in ARCHITECTURE.md first.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("kernels", &[]),
    ("checkpoint", &["kernels"]),
    ("engine", &["api", "checkpoint", "kernels"]),
    ("files", &["api"]),
    ("jobs", &[]),
    ("trace", &[]),
    ("gateway", &["api", "files", "jobs"]),
    ("arena", &["api", "files", "gateway", "jobs"]),
    ("server", &["api", "arena", "files", "gateway", "jobs", "trace"]),
    ("web", &["api", "arena", "files", "gateway", "jobs", "server"]),
    ("trainer", &["api", "checkpoint", "engine", "files"]),
    ("worker", &["api", "checkpoint", "engine", "files", "jobs", "trace", "trainer"]),
    (
        "zoetrope",
        &[
            "api",
            "arena",
            "checkpoint",
            "engine",
            "files",
            "gateway",
            "jobs",
            "server",
            "trace",
            "trainer",
            "web",
            "worker",
        ],
    ),
];

#[test]
fn rooms_use_only_the_rooms_below_them() {
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_string();
        let (_, allowed) = ARROWS
            .iter()
            .find(|(room, _)| *room == name)
            .unwrap_or_else(|| panic!("{name} is not in the map"));
        let manifest: toml::Table =
            fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
        let used = manifest["dependencies"]
            .as_table()
            .unwrap()
            .keys()
            .filter_map(|k| k.strip_prefix("zoetrope-"));
        for room in used {
            assert!(allowed.contains(&room), "{name} uses {room}");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&root().join("crates"), &mut found);
    assert!(found.len() > 30);
    let name = |p: &PathBuf| p.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|p| (name(p), fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn every_file_says_what_it_holds() {
    for (name, text) in all_sources() {
        assert!(text.starts_with("//! "), "{name} does not begin with `//!`");
    }
}

#[test]
fn unsafe_code_and_the_environment_have_one_place_each() {
    for (name, text) in all_sources() {
        let marker = concat!("allow(unsafe", "_code)");
        let may = [
            // A memory map.
            "crates/checkpoint/src/blob.rs",
            // Instructions that not every processor has.
            "crates/kernels/src/simd/neon.rs",
            "crates/kernels/src/simd/x86.rs",
            // Advice to the system about pages.
            "crates/kernels/src/memory.rs",
            // An allocator.
            "crates/kernels/src/recycle.rs",
            // One bounds check a tile in place of one a value.
            "crates/kernels/src/product/tile.rs",
            // One matrix, filled by many threads.
            "crates/kernels/src/product/output.rs",
            // A GPU's driver and its library of products, which are C.
            "crates/kernels/src/cuda/gpu.rs",
            "crates/kernels/src/cuda/product.rs",
            // What a library takes from the environment alone, said before there are threads.
            "crates/zoetrope/src/environment.rs",
        ]
        .contains(&name.as_str());
        assert!(!text.contains(marker) || may, "{name} has unsafe code");
        let read = concat!("env::", "var");
        let may = [
            "crates/zoetrope/src/environment.rs",
            "crates/zoetrope/tests/tidy.rs",
            // What Cargo and whoever builds say to a build.
            "crates/kernels/build.rs",
            // Which databases and buckets there are to test with, only whoever starts the tests can say.
            "crates/jobs/tests/place/mod.rs",
            "crates/files/tests/store.rs",
        ]
        .contains(&name.as_str());
        assert!(!text.contains(read) || may, "{name} reads the environment");
    }
}

#[test]
fn sql_has_one_place() {
    let statement = concat!("SELECT", " ");
    for (name, text) in all_sources() {
        let may = name.starts_with("crates/jobs/src/sql/");
        assert!(!text.contains(statement) || may, "{name} has SQL");
    }
}

#[test]
fn the_architecture_page_knows_every_room() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (room, _) in ARROWS {
        assert!(page.contains(&format!("`{room}`")), "ARCHITECTURE.md does not name `{room}`");
    }
}

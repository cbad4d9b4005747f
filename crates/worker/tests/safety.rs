//! From a file's pixels to what a safety checker finds, against Pillow's image processors, transformers and diffusers, as
//! `tests/fixtures/safety/record.py` recorded them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;
use zoetrope_checkpoint::VisionModel;
use zoetrope_engine::safety;
use zoetrope_files::{Limits, Picture};
use zoetrope_worker::Checker;
use zoetrope_worker::prepared;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/safety").join(path)
}

/// The two checkers with their recorded cases.
fn cases() -> Vec<Value> {
    let manifest = std::fs::read(fixture("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["cases"].as_array().unwrap().clone()
}

fn pictures(case: &Value) -> Vec<Picture> {
    let inputs = case["params"]["inputs"].as_array().unwrap();
    let read = |path: &Value| {
        zoetrope_files::read(&fixture(path.as_str().unwrap()), &Limits::default()).unwrap().picture
    };
    inputs.iter().map(read).collect()
}

#[test]
fn pictures_are_prepared_as_pillow_and_transformers_do() {
    for case in cases() {
        let name = case["id"].as_str().unwrap();
        let files = VisionModel::safety_checker(&fixture(name)).unwrap();
        let checker = safety::Checker::open(&files, &Device::Cpu).unwrap();
        let golden = fixture(case["file"].as_str().unwrap());
        let golden = candle_core::safetensors::load(golden, &Device::Cpu).unwrap();
        for (i, picture) in pictures(&case).iter().enumerate() {
            let processor = checker.processor();
            let got = processor.pixels(&prepared(picture, processor), &Device::Cpu).unwrap();
            let want = &golden[&format!("pixels.{i}")];
            assert_eq!(got.dims(), want.dims(), "{name} {i}");
            let off = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            let off: f32 = off.to_scalar().unwrap();
            // A level of 255 would be 0.008 at the least.
            assert!(off < 2e-6, "{name} {i}: {off}");
        }
    }
}

#[test]
fn the_same_pictures_are_found_unsafe() {
    for case in cases() {
        let files = VisionModel::safety_checker(&fixture(case["id"].as_str().unwrap())).unwrap();
        let checker = Checker::open(&files, &Device::Cpu).unwrap();
        let want: Vec<bool> = serde_json::from_value(case["facts"]["unsafe"].clone()).unwrap();
        assert_eq!(checker.look(&pictures(&case)).unwrap(), want);
        assert_eq!(checker.look(&[]).unwrap(), Vec::<bool>::new());
    }
}

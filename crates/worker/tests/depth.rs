//! From a file's pixels to a depth picture, against Pillow's image processor and transformers' pipeline, as
//! `tests/fixtures/depth/record.py` recorded them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;
use zoetrope_checkpoint::VisionModel;
use zoetrope_engine::depth::DepthEstimator;
use zoetrope_files::{Limits, Picture};
use zoetrope_worker::{Depth, prepared};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/depth").join(path)
}

fn cases() -> Vec<Value> {
    let manifest = std::fs::read(fixture("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["cases"].as_array().unwrap().clone()
}

fn read(path: &Value) -> Picture {
    zoetrope_files::read(&fixture(path.as_str().unwrap()), &Limits::default()).unwrap().picture
}

fn files() -> VisionModel {
    VisionModel::depth(&fixture("model")).unwrap()
}

#[test]
fn pictures_are_prepared_as_pillow_and_transformers_do() {
    let estimator = DepthEstimator::open(&files(), &Device::Cpu).unwrap();
    for case in cases() {
        let golden =
            candle_core::safetensors::load(fixture(case["file"].as_str().unwrap()), &Device::Cpu);
        let want = golden.unwrap()["pixels"].clone();
        let rgb = prepared(&read(&case["params"]["input"]), estimator.processor());
        let got = estimator.processor().pixels(&rgb, &Device::Cpu).unwrap();
        assert_eq!(got.dims(), want.dims(), "{}", case["id"]);
        let off = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let off = off.to_scalar::<f32>().unwrap();
        assert!(off < 2e-6, "{}: {off}", case["id"]);
    }
}

#[test]
fn depth_pictures_are_those_of_transformers_pipeline() {
    let depth = Depth::new(files(), &Device::Cpu);
    for case in cases() {
        let (id, tolerance) = (&case["id"], &case["image_outputs"]["0"]);
        let got = depth.of(&read(&case["params"]["input"])).unwrap();
        let want = read(&case["images"]["0"]);
        assert_eq!((got.width, got.height), (want.width, want.height), "{id}");
        let off = got.rgb.iter().zip(&want.rgb).map(|(got, want)| u64::from(got.abs_diff(*want)));
        let off: Vec<u64> = off.filter(|off| *off > 0).collect();
        let share = off.len() as f64 / got.rgb.len() as f64;
        assert!(off.iter().all(|off| *off <= tolerance["max_diff"].as_u64().unwrap()), "{id}");
        assert!(share <= tolerance["mismatch"].as_f64().unwrap(), "{id}: {share}");
        assert!(got.rgb.contains(&0) && got.rgb.contains(&255), "{id}: from black to white");
    }
}

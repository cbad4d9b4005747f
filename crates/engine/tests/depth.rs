//! The depth network against transformers, stage by stage, as `tests/fixtures/depth/record.py` recorded it.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::{Device, Tensor};
use common::Fixture;
use zoetrope_checkpoint::VisionModel;
use zoetrope_engine::depth::DepthEstimator;
use zoetrope_engine::{Result, Watch};

/// Writes down what every stage computed.
#[derive(Default)]
struct Recorder(Mutex<BTreeMap<String, Tensor>>);

impl Watch for Recorder {
    fn stage(&self, name: &dyn Display, value: &Tensor) -> Result<()> {
        self.0.lock().unwrap().insert(name.to_string(), value.clone());
        Ok(())
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/depth/model")
}

fn open(folder: &std::path::Path) -> Result<DepthEstimator> {
    DepthEstimator::open(&VisionModel::depth(folder).unwrap(), &Device::Cpu)
}

#[test]
fn every_stage_is_transformers() {
    let estimator = open(&folder()).unwrap();
    let cases = Fixture::open("depth").cases(&["depth"]);
    assert_eq!(cases.len(), 4);
    for case in cases {
        let recorder = Recorder::default();
        let depth = estimator.look_at(case.input("pixels"), &recorder).unwrap();
        case.check("depth", &depth);
        let stages = recorder.0.into_inner().unwrap();
        assert_eq!(stages.len(), 15, "{:?}", stages.keys());
        let recorded = stages.iter().filter(|(name, _)| case.has(name));
        let recorded: Vec<_> = recorded.map(|(name, value)| case.check(name, value)).collect();
        assert!(recorded.len() == 15 || ["tall", "large"].contains(&&*case.id), "{}", case.id);
    }
}

#[test]
fn pictures_in_a_batch_are_seen_as_alone() {
    let estimator = open(&folder()).unwrap();
    let case = Fixture::open("depth").cases(&["depth"]).remove(0);
    let pixels = case.input("pixels");
    let other = pixels.affine(-0.5, 0.1).unwrap();
    let both = Tensor::cat(&[&other, pixels], 0).unwrap();
    let both = estimator.look_at(&both, &zoetrope_engine::Unwatched).unwrap();
    case.check("depth", &both.narrow(0, 1, 1).unwrap());
}

#[test]
fn a_folder_that_is_no_depth_network_says_what_one_is() {
    let checker = folder().join("../../safety/vit");
    let message = open(&checker).err().unwrap().to_string();
    assert!(message.contains("`vit`") && message.contains("depth-anything/"), "{message}");
    let message = VisionModel::depth(&folder().join("..")).unwrap_err().to_string();
    assert!(message.contains("models pull depth"), "{message}");
    let temporary = tempfile::tempdir().unwrap();
    for file in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(folder().join(file), temporary.path().join(file)).unwrap();
    }
    let weights = checker.join("model.safetensors");
    std::fs::copy(weights, temporary.path().join("model.safetensors")).unwrap();
    let message = open(temporary.path()).err().unwrap().to_string();
    assert!(message.contains("is missing"), "{message}");
}

//! Safety checkers against transformers and diffusers, stage by stage, as `tests/fixtures/safety/record.py` recorded them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::{D, Device, Tensor};
use common::{Case, Fixture};
use zoetrope_checkpoint::{Role, Storage, VisionModel, Weights};
use zoetrope_engine::layers::Parameters;
use zoetrope_engine::networks::SafetyChecker;
use zoetrope_engine::networks::vision::Sizes;
use zoetrope_engine::safety::Checker;
use zoetrope_engine::{Result, Unwatched, Watch};
use zoetrope_kernels::Gelu;

/// Writes down what every stage computed.
#[derive(Default)]
struct Recorder(Mutex<BTreeMap<String, Tensor>>);

impl Watch for Recorder {
    fn stage(&self, name: &dyn Display, value: &Tensor) -> Result<()> {
        self.0.lock().unwrap().insert(name.to_string(), value.clone());
        Ok(())
    }
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/safety").join(name)
}

fn checker(name: &str) -> Checker {
    Checker::open(&VisionModel::safety_checker(&folder(name)).unwrap(), &Device::Cpu).unwrap()
}

/// The case's pictures, as the reference prepared them, in one batch.
fn pixels(case: &Case) -> Tensor {
    let count = case.params()["inputs"].as_array().unwrap().len();
    let each: Vec<&Tensor> = (0..count).map(|i| case.input(&format!("pixels.{i}"))).collect();
    Tensor::cat(&each, 0).unwrap()
}

fn case(kind: &str) -> Case {
    Fixture::open("safety").cases(&[kind]).remove(0)
}

/// Checks every recorded stage; which pictures are unsafe; and that each is found alone as in a batch.
fn check(kind: &str) -> BTreeMap<String, Tensor> {
    let case = case(kind);
    let (checker, recorder, pixels) = (checker(&case.id), Recorder::default(), pixels(&case));
    let findings = checker.look_at(&pixels, &recorder).unwrap();
    let stages = recorder.0.into_inner().unwrap();
    assert!(stages.len() > 3, "{:?}", stages.keys());
    stages.iter().for_each(|(name, value)| case.check(name, value));
    let unsafe_ones: Vec<bool> = findings.iter().map(|finding| finding.is_unsafe).collect();
    let want: Vec<bool> = serde_json::from_value(case.json["facts"]["unsafe"].clone()).unwrap();
    assert_eq!(unsafe_ones, want);
    assert!(want.contains(&true) && want.contains(&false), "both kinds are among the pictures");
    for (i, finding) in findings.iter().enumerate() {
        let alone = checker.look_at(&pixels.narrow(0, i, 1).unwrap(), &Unwatched).unwrap();
        assert_eq!(alone[0].is_unsafe, finding.is_unsafe);
        assert!((alone[0].score - finding.score).abs() < 2e-3);
    }
    stages
}

#[test]
fn the_image_classifier_is_transformers() {
    let (stages, case) = (check("classifier"), case("classifier"));
    let logits = stages["logits"].clone();
    let powers =
        logits.broadcast_sub(&logits.max_keepdim(D::Minus1).unwrap()).unwrap().exp().unwrap();
    let probabilities = powers.broadcast_div(&powers.sum_keepdim(D::Minus1).unwrap()).unwrap();
    case.check("probabilities", &probabilities);
    let findings = checker("vit").look_at(&pixels(&case), &Unwatched).unwrap();
    let want: Vec<Vec<f32>> = case.input("probabilities").to_vec2().unwrap();
    for (finding, want) in findings.iter().zip(want) {
        assert!((finding.score - want[1]).abs() < 1e-4, "{} is not {}", finding.score, want[1]);
    }
}

#[test]
fn the_checker_with_concepts_is_diffusers() {
    check("concepts");
    let case = case("concepts");
    let files = VisionModel::safety_checker(&folder("clip")).unwrap();
    let weights = Weights::open(&files.weights, Role::Safety).unwrap().with_storage(Storage::F32);
    let sizes = Sizes {
        hidden: 40,
        intermediate: 80,
        layers: 2,
        heads: 4,
        image: 56,
        patch: 14,
        eps: 1e-5,
        activation: Gelu::Quick,
    };
    let network = SafetyChecker::load(&Parameters::new(weights, &Device::Cpu), &sizes, 24).unwrap();
    let scores = network.forward(&pixels(&case), &Unwatched).unwrap();
    let facts = &case.json["facts"];
    let want =
        |name: &str| -> Vec<Vec<f32>> { serde_json::from_value(facts[name].clone()).unwrap() };
    // Rounded to thousandths: one that lies on the edge may fall to either side.
    let near = |got: &[f32], want: &[f32]| {
        got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1.1e-3)
    };
    let exact = |got: &[f32], want: &[f32]| {
        got.iter().zip(want).filter(|(g, w)| (*g - *w).abs() < 1e-5).count()
    };
    let (mut same, mut all) = (0, 0);
    for ((scores, special), concepts) in
        scores.iter().zip(want("special_scores")).zip(want("concept_scores"))
    {
        assert!(near(&scores.special, &special), "{scores:?} {special:?}");
        assert!(near(&scores.concepts, &concepts), "{scores:?} {concepts:?}");
        same += exact(&scores.special, &special) + exact(&scores.concepts, &concepts);
        all += special.len() + concepts.len();
    }
    assert!(same * 20 >= all * 19, "{same} of {all} scores are the same to the thousandth");
    let special = want("special_scores");
    assert!(
        special.iter().any(|s| s.iter().any(|v| *v > 0.0))
            && special.iter().any(|s| s.iter().all(|v| *v <= 0.0)),
        "with and without what special concepts add"
    );
}

#[test]
fn what_transformers_5_saves_again_is_read_too() {
    let temporary = tempfile::tempdir().unwrap();
    for file in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(folder("clip").join(file), temporary.path().join(file)).unwrap();
    }
    let path = folder("clip").join("model.safetensors");
    let weights = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let renamed = |(name, value): (String, Tensor)| {
        (name.replace("vision_model.vision_model.", "vision_model."), value)
    };
    let weights = weights.into_iter().map(renamed).collect();
    candle_core::safetensors::save(&weights, temporary.path().join("model.safetensors")).unwrap();
    let files = VisionModel::safety_checker(temporary.path()).unwrap();
    let (again, pixels) = (Checker::open(&files, &Device::Cpu).unwrap(), pixels(&case("concepts")));
    let findings = |checker: &Checker| checker.look_at(&pixels, &Unwatched).unwrap();
    assert_eq!(findings(&again), findings(&checker("clip")));
}

#[test]
fn a_folder_that_is_no_checker_says_what_one_is() {
    let models =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/turbo/model/vae");
    let message = VisionModel::safety_checker(&models).unwrap_err().to_string();
    assert!(
        message.contains("preprocessor_config.json") && message.contains("models pull safety"),
        "{message}"
    );
    let temporary = tempfile::tempdir().unwrap();
    for file in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        std::fs::copy(folder("vit").join(file), temporary.path().join(file)).unwrap();
    }
    let of_clip = folder("clip").join("model.safetensors");
    std::fs::copy(of_clip, temporary.path().join("model.safetensors")).unwrap();
    let files = VisionModel::safety_checker(temporary.path()).unwrap();
    let message = Checker::open(&files, &Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("is missing"), "{message}");
    std::fs::copy(
        folder("vit").join("model.safetensors"),
        temporary.path().join("model.safetensors"),
    )
    .unwrap();
    let config = std::fs::read_to_string(temporary.path().join("config.json")).unwrap();
    let larger = config.replace("\"image_size\": 64", "\"image_size\": 80");
    assert_ne!(larger, config);
    std::fs::write(temporary.path().join("config.json"), larger).unwrap();
    let message = Checker::open(&files, &Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("64x64") && message.contains("80x80"), "{message}");
}

//! Adapters as they are written: read back, and byte for byte as `tests/adapters` gives them to diffusers.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use zoetrope_checkpoint::{Adapter, Blob, Delta, Naming};

const NAMINGS: [(Naming, &str); 3] =
    [(Naming::Diffusers, "diffusers"), (Naming::ComfyUi, "comfyui"), (Naming::Kohya, "kohya")];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// The linear layers of the fixture's transformer.
fn modules() -> BTreeMap<String, [usize; 2]> {
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(fixture("turbo/model/transformer")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            for (name, tensor) in candle_core::safetensors::load(&path, &Device::Cpu).unwrap() {
                if let (Some(module), [out, width]) = (name.strip_suffix(".weight"), tensor.dims())
                {
                    modules.insert(module.to_string(), [*out, *width]);
                }
            }
        }
    }
    assert!(modules.len() > 20);
    modules
}

fn read(file: &str) -> Adapter {
    Adapter::read(&Blob::File(fixture("turbo/lora").join(file)), &modules()).unwrap()
}

/// An adapter of two blocks' attention and feed-forward layers, of rank 4 and alpha 2, and of a modulation, of rank 2 and alpha 1.
fn adapter() -> Adapter {
    let mut adapter = read("style.peft_alpha.safetensors");
    let kept = |name: &str| name.starts_with("layers.0.") || name.starts_with("context_refiner.0.");
    adapter.deltas.retain(|name, _| kept(name));
    let mut other = read("subject.kohya.safetensors");
    other.deltas.retain(|name, _| name == "layers.1.adaLN_modulation.0");
    adapter.deltas.append(&mut other.deltas);
    assert_eq!(adapter.deltas.len(), 15);
    adapter
}

fn about() -> BTreeMap<String, String> {
    [("modelspec.trigger_phrase", "in \"ink\""), ("ss_max_train_steps", "100")]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
}

/// What an adapter adds to each layer.
fn effects(adapter: &Adapter) -> BTreeMap<&str, Tensor> {
    let effect = |delta: &Delta| match delta {
        Delta::LowRank { down, up, scale } => {
            (up.matmul(down).unwrap() * f64::from(*scale)).unwrap()
        }
        _ => panic!("a LoRA is of low rank"),
    };
    adapter.deltas.iter().map(|(name, delta)| (name.as_str(), effect(delta))).collect()
}

fn size(x: &Tensor) -> f32 {
    x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
}

#[test]
fn what_is_written_is_read_again() {
    let adapter = adapter();
    let want = effects(&adapter);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.safetensors");
    let tolerances = [(DType::F32, 1e-6), (DType::BF16, 1.0 / 256.0)];
    for ((naming, name), (dtype, tolerance)) in
        NAMINGS.into_iter().flat_map(|naming| tolerances.map(|tolerance| (naming, tolerance)))
    {
        let bytes = adapter.to_bytes(naming, dtype, &about()).unwrap();
        fs::write(&path, &bytes).unwrap();
        let again = Adapter::read(&Blob::File(path.clone()), &modules()).unwrap();
        let got = effects(&again);
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        for (module, want) in &want {
            let off = size(&(&got[module] - want).unwrap()) / size(want);
            assert!(off < tolerance, "{name} {dtype:?} {module}: {off}");
        }
        assert_eq!(bytes, adapter.to_bytes(naming, dtype, &about()).unwrap());
    }
}

#[test]
fn files_say_what_they_are() {
    let adapter = adapter();
    for (naming, name) in NAMINGS {
        let bytes = adapter.to_bytes(naming, DType::BF16, &about()).unwrap();
        let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let said = header.metadata().as_ref().unwrap();
        for (key, value) in about() {
            assert_eq!(said[&key], value);
        }
        // As kohya's tools compute it: of everything behind the header.
        let digest = Sha256::digest(&bytes[8 + length..]);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(said["sshs_model_hash"], digest, "{name}");
        assert_eq!(said["ss_network_dim"], "Dynamic");
        for info in header.tensors().values() {
            assert_eq!(info.data_offsets.0 % (info.dtype.bitsize() / 8), 0, "{name}: {info:?}");
        }
    }
    let mut alike = adapter;
    alike.deltas.remove("layers.1.adaLN_modulation.0");
    let bytes = alike.to_bytes(Naming::Kohya, DType::BF16, &about()).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let said = header.metadata().as_ref().unwrap();
    assert_eq!((said["ss_network_dim"].as_str(), said["ss_network_alpha"].as_str()), ("4", "2"));
}

#[test]
fn tensors_begin_where_their_type_may_even_when_sides_are_odd() {
    let odd = |rows, columns| Tensor::ones((rows, columns), DType::F32, &Device::Cpu).unwrap();
    let delta = || Delta::LowRank { down: odd(1, 3), up: odd(5, 1), scale: 0.5 };
    let deltas = ["a", "b"].map(|name| (name.to_string(), delta())).into();
    let adapter = Adapter { name: "odd".into(), deltas };
    let bytes = adapter.to_bytes(Naming::ComfyUi, DType::BF16, &BTreeMap::new()).unwrap();
    let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(length % 8, 0);
    for (name, info) in header.tensors() {
        assert_eq!(info.data_offsets.0 % (info.dtype.bitsize() / 8), 0, "{name}: {info:?}");
    }
}

#[test]
fn what_is_no_lora_is_not_written_as_one() {
    let error = read("kron.lokr.safetensors")
        .to_bytes(Naming::Diffusers, DType::F32, &BTreeMap::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("kron.lokr") && error.contains("low-rank"), "{error}");
}

/// `tests/adapters/test_diffusers.py` loads these.
#[test]
fn recorded_files_are_written_to_the_byte() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut differing = Vec::new();
    for (naming, name) in NAMINGS {
        let written = adapter().to_bytes(naming, DType::F32, &about()).unwrap();
        let file = format!("{name}.safetensors");
        if fs::read(fixture("written").join(&file)).ok().as_ref() != Some(&written) {
            fs::write(folder.join(&file), written).unwrap();
            differing.push(file);
        }
    }
    let folder = folder.display();
    assert!(
        differing.is_empty(),
        "tests/fixtures/written has other bytes than {differing:?} in {folder}: take those over once tests/adapters passes with them"
    );
}

//! The recorded cases of the reference: a manifest, inputs and golden outputs with their tolerances.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test uses a part

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use zoetrope_checkpoint::{Layout, Role, Storage, Weights};
use zoetrope_engine::layers::Parameters;

pub const FIXTURES: &[&str] = &["turbo", "base", "wide", "slim"];

/// Where recorded cases are computed again: on NVIDIA's first GPU, where these tests were built for it and there is one.
pub fn device() -> Device {
    match zoetrope_engine::cuda_devices() {
        0 => Device::Cpu,
        _ => zoetrope_engine::open_cuda(0).unwrap(),
    }
}

/// One of the fixtures' folders.
pub struct Fixture {
    pub root: PathBuf,
    pub manifest: Value,
}

impl Fixture {
    pub fn open(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
        let manifest = std::fs::read(root.join("manifest.json")).unwrap();
        Self { root, manifest: serde_json::from_slice(&manifest).unwrap() }
    }

    pub fn layout(&self) -> Layout {
        Layout::locate(&self.root.join("model"), None, None).unwrap()
    }

    /// The network's weights in float32.
    pub fn parameters(&self, role: Role) -> Parameters {
        let layout = self.layout();
        let blobs = match role {
            Role::Transformer => layout.transformer,
            Role::TextEncoder => layout.text_encoder,
            Role::Vae => layout.vae,
            Role::Vision => layout.vision,
            Role::Control => layout.control,
            Role::Safety | Role::Depth => panic!("a pipeline has none of these"),
        };
        Parameters::new(Weights::open(&blobs, role).unwrap().with_storage(Storage::F32), &device())
    }

    pub fn config<T: serde::de::DeserializeOwned>(&self, part: &str) -> T {
        let path = self.root.join("model").join(part);
        zoetrope_engine::config::parse(part, &std::fs::read(path).unwrap()).unwrap()
    }

    pub fn prompt(&self, key: &str) -> String {
        self.manifest["prompts"][key].as_str().unwrap().to_string()
    }

    /// All cases of one of `kinds`.
    pub fn cases(&self, kinds: &[&str]) -> Vec<Case> {
        let all = self.manifest["cases"].as_array().unwrap();
        let some = all.iter().filter(|c| kinds.contains(&c["kind"].as_str().unwrap()));
        some.map(|c| Case::open(&self.root, c.clone())).collect()
    }
}

/// A case with its recorded tensors.
pub struct Case {
    pub id: String,
    pub root: PathBuf,
    pub json: Value,
    pub tensors: HashMap<String, Tensor>,
}

impl Case {
    fn open(root: &Path, json: Value) -> Self {
        let tensors = match json["file"].as_str() {
            Some(file) => read_tensors(&root.join(file)),
            None => HashMap::new(),
        };
        Self { id: json["id"].as_str().unwrap().into(), root: root.into(), json, tensors }
    }

    pub fn params(&self) -> &Value {
        &self.json["params"]
    }

    pub fn input(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.id))
    }

    pub fn has(&self, name: &str) -> bool {
        self.json["outputs"].get(name).is_some()
    }

    /// Fails unless `got` is the recorded output within its own tolerances.
    pub fn check(&self, name: &str, got: &Tensor) {
        self.check_rows(name, got, None);
    }

    /// The same, comparing only the first `rows` of the recorded output.
    pub fn check_rows(&self, name: &str, got: &Tensor, rows: Option<usize>) {
        let tolerance = &self.json["outputs"][name];
        assert!(!tolerance.is_null(), "{}: no output {name}", self.id);
        let want = self.input(name);
        let want = rows.map_or(want.clone(), |rows| want.narrow(0, 0, rows).unwrap());
        assert_eq!(got.dims(), want.dims(), "{} {name}: shape", self.id);
        let flat = |t: &Tensor| {
            t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (got, want) = (flat(got), flat(&want));
        let difference = |(g, w): (&f32, &f32)| (f64::from(*g) - f64::from(*w)).abs();
        let worst = got.iter().zip(&want).map(difference).fold(0.0, f64::max);
        let square =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error = square(&mut got.iter().zip(&want).map(difference));
        let relative = error / square(&mut want.iter().map(|w| f64::from(*w))).max(1e-300);
        let atol = tolerance["atol"].as_f64().unwrap_or(0.0);
        let rel_l2 = tolerance["rel_l2"].as_f64().unwrap_or(f64::INFINITY);
        assert!(
            worst <= atol
                && (relative <= rel_l2 || error == 0.0)
                && got.iter().all(|v| v.is_finite()),
            "{} {name}: off by {worst:.2e} (allowed {atol:.2e}), relative {relative:.2e} (allowed {rel_l2:.2e})",
            self.id
        );
    }

    /// Fails unless the picture is the recorded one within its tolerance.
    pub fn check_picture(&self, index: usize, got: &[u8]) {
        let key = index.to_string();
        let Some(file) = self.json["images"].get(&key).and_then(Value::as_str) else { return };
        let want = image::open(self.root.join(file)).unwrap().to_rgb8().into_raw();
        assert_eq!(got.len(), want.len());
        let tolerance = &self.json["image_outputs"][&key];
        let off: Vec<u8> =
            got.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
        let worst = u64::from(off.iter().copied().max().unwrap_or(0));
        let share = off.len() as f64 / got.len() as f64;
        let (max_diff, mismatch) =
            (tolerance["max_diff"].as_u64().unwrap(), tolerance["mismatch"].as_f64().unwrap());
        assert!(
            worst <= max_diff && share <= mismatch,
            "{} picture {index}: {worst} levels, {share} of bytes",
            self.id
        );
    }
}

/// Reads a safetensors file; integers of any width become u32.
pub fn read_tensors(path: &Path) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: safetensors::tensor::TensorView| {
        let four = |f: &mut dyn FnMut([u8; 4])| {
            view.data().chunks_exact(4).for_each(|c| f([c[0], c[1], c[2], c[3]]))
        };
        match view.dtype() {
            safetensors::Dtype::I32 => {
                let mut values = Vec::new();
                four(&mut |b| values.push(i32::from_le_bytes(b) as u32));
                Tensor::from_vec(values, view.shape(), &Device::Cpu).unwrap()
            }
            safetensors::Dtype::F32 => {
                let mut values = Vec::new();
                four(&mut |b| values.push(f32::from_le_bytes(b)));
                Tensor::from_vec(values, view.shape(), &Device::Cpu).unwrap()
            }
            safetensors::Dtype::BF16 => {
                Tensor::from_raw_buffer(view.data(), DType::BF16, view.shape(), &Device::Cpu)
                    .unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    let tensor = |view| tensor(view).to_device(&device()).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, tensor(view))).collect()
}

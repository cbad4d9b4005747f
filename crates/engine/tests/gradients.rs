//! Gradients of adapters against PyTorch's, as `tests/fixtures/gradients/record.py` recorded them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Tensor, Var};
use common::{Fixture, read_tensors};
use zoetrope_checkpoint::Role;
use zoetrope_engine::layers::Delta;
use zoetrope_engine::networks::Transformer;
use zoetrope_engine::networks::transformer::{Gradients, Point};
use zoetrope_engine::{Unwatched, lora};

/// alpha / rank of the recorded adapters.
const SCALE: f64 = 2.0;

struct Recorded {
    tensors: HashMap<String, Tensor>,
    /// `down` and `up` by module.
    adapter: BTreeMap<String, [Var; 2]>,
    transformer: Transformer,
}

impl Recorded {
    fn open(name: &str) -> Self {
        let file = format!("../../tests/fixtures/gradients/{name}.safetensors");
        let tensors = read_tensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        let fixture = Fixture::open(name);
        let config = fixture.config("transformer/config.json");
        let mut transformer =
            Transformer::load(&fixture.parameters(Role::Transformer), &config).unwrap();
        let var = |key: &str| Var::from_tensor(&tensors[key]).unwrap();
        let modules =
            tensors.keys().filter_map(|k| k.strip_prefix("adapter.")?.strip_suffix(".up"));
        let pair =
            |module: &str| ["down", "up"].map(|part| var(&format!("adapter.{module}.{part}")));
        let adapter: BTreeMap<_, _> = modules.map(|m| (m.to_string(), pair(m))).collect();
        let delta = |module: &str| {
            let [down, up] = adapter.get(module)?.each_ref().map(|var| var.as_tensor().clone());
            Some(Delta::LowRank { down, up, scale: SCALE })
        };
        let device = candle_core::Device::Cpu;
        lora::apply_with(&mut transformer, &[], delta, &device).unwrap();
        Self { tensors, adapter, transformer }
    }

    fn backward(&self, checkpointing: bool) -> (f32, Gradients) {
        let t: Vec<f32> = self.tensors["t"].to_vec1().unwrap();
        let point = Point {
            features: &self.tensors["features"],
            latents: &self.tensors["latents"],
            t: f64::from(t[0]),
        };
        let loss =
            |velocity: &Tensor| Ok((velocity - &self.tensors["target"])?.sqr()?.mean_all()?);
        self.transformer.backward(point, checkpointing, &Unwatched, loss).unwrap()
    }

    /// All trained tensors by their recorded names.
    fn named(&self) -> Vec<(String, &Var)> {
        let pairs = self.adapter.iter();
        let both =
            pairs.map(|(m, [down, up])| [(format!("{m}.down"), down), (format!("{m}.up"), up)]);
        both.flatten().collect()
    }
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖got − want‖ / ‖want‖
fn relative(got: &Tensor, want: &Tensor) -> f64 {
    let size = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (got, want) = (values(got), values(want));
    let off: Vec<f64> = got.iter().zip(&want).map(|(g, w)| f64::from(g - w)).collect();
    size(&off) / size(&want.iter().map(|w| f64::from(*w)).collect::<Vec<_>>())
}

#[test]
fn gradients_of_whole_networks_are_pytorch_s() {
    for name in ["slim", "turbo"] {
        let recorded = Recorded::open(name);
        assert!(recorded.adapter.len() > 20, "{name} has {} layers", recorded.adapter.len());
        let wanted: Vec<f32> = recorded.tensors["loss"].to_vec1().unwrap();
        for checkpointing in [false, true] {
            let (loss, gradients) = recorded.backward(checkpointing);
            assert!(
                (loss - wanted[0]).abs() < 1e-5 * wanted[0],
                "{name}: {loss} is not {wanted:?}"
            );
            for (key, var) in recorded.named() {
                let got = gradients.get(var).unwrap_or_else(|| panic!("{name} has none of {key}"));
                let off = relative(got, &recorded.tensors[&format!("gradient.{key}")]);
                assert!(off < 1e-4, "{name} {key}, checkpointing {checkpointing}: {off:.1e}");
            }
        }
    }
}

#[test]
fn checkpointing_changes_no_bit_and_neither_does_doing_it_again() {
    let recorded = Recorded::open("slim");
    let (_, all) = recorded.backward(false);
    for checkpointing in [true, false] {
        let (_, again) = recorded.backward(checkpointing);
        for (key, var) in recorded.named() {
            let (a, b) = (all.get(var).unwrap(), again.get(var).unwrap());
            assert_eq!(values(a), values(b), "{key}, checkpointing {checkpointing}");
        }
    }
}

#[test]
fn a_stopped_computation_ends() {
    let recorded = Recorded::open("slim");
    let stopped = zoetrope_engine::Interrupt::default();
    stopped.stop();
    let (features, latents) = (&recorded.tensors["features"], &recorded.tensors["latents"]);
    let point = Point { features, latents, t: 0.5 };
    let loss = |velocity: &Tensor| Ok(velocity.mean_all()?);
    assert!(recorded.transformer.backward(point, true, &stopped, loss).is_err());
}

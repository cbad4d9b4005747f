//! Ten updates of a whole adapter, gradients and AdamW together, against PyTorch's: `tests/fixtures/gradients/record.py` recorded them.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use zoetrope_checkpoint::{Layout, Role, Storage, Weights};
use zoetrope_engine::layers::{Delta, Parameters};
use zoetrope_engine::networks::Transformer;
use zoetrope_engine::networks::transformer::Point;
use zoetrope_engine::{Unwatched, config, lora};
use zoetrope_trainer::optimizer::State;
use zoetrope_trainer::settings::Optimizer;

const STEPS: usize = 10;
const RATE: f64 = 1e-3;
const WEIGHT_DECAY: f64 = 0.01;
/// alpha / rank of the recorded adapters.
const SCALE: f64 = 2.0;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

fn transformer(name: &str) -> Transformer {
    let model = fixture(name).join("model");
    let blobs = Layout::locate(&model, None, None).unwrap().transformer;
    let weights = Weights::open(&blobs, Role::Transformer).unwrap().with_storage(Storage::F32);
    let file = "transformer/config.json";
    let config = config::parse(file, &std::fs::read(model.join(file)).unwrap()).unwrap();
    Transformer::load(&Parameters::new(weights, &Device::Cpu), &config).unwrap()
}

/// The adapter's matrices as they were recorded under `prefix`, by module and role.
fn matrices(recorded: &HashMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let named = recorded.iter().filter_map(|(key, t)| Some((key.strip_prefix(prefix)?, t)));
    named.map(|(key, tensor)| (key.to_string(), tensor.clone())).collect()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖got − want‖ / ‖want‖
fn relative(got: &Tensor, want: &Tensor) -> f32 {
    let size = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    size(&(got - want).unwrap()) / size(want)
}

#[test]
fn ten_updates_end_where_pytorch_s_do() {
    for name in ["slim", "turbo"] {
        let file = fixture("gradients").join(format!("{name}.safetensors"));
        let recorded = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let (before, wanted) = (matrices(&recorded, "adapter."), matrices(&recorded, "after."));
        let vars: BTreeMap<String, Var> =
            before.iter().map(|(key, t)| (key.clone(), Var::from_tensor(t).unwrap())).collect();
        let mut transformer = transformer(name);
        let part = |module: &str, role: &str| {
            Some(vars.get(&format!("{module}.{role}"))?.as_tensor().clone())
        };
        let delta = |module: &str| {
            let (down, up) = (part(module, "down")?, part(module, "up")?);
            Some(Delta::LowRank { down, up, scale: SCALE })
        };
        lora::apply_with(&mut transformer, &[], delta, &Device::Cpu).unwrap();

        let sizes: Vec<usize> = vars.values().map(|var| var.elem_count()).collect();
        let mut state = State::new(Optimizer::AdamW, &sizes, WEIGHT_DECAY);
        for step in 0..STEPS {
            let input = |part: &str| &recorded[&format!("steps.{step}.{part}")];
            let t = f64::from(values(input("t"))[0]);
            let point = Point { features: &recorded["features"], latents: input("latents"), t };
            let loss = |velocity: &Tensor| Ok((velocity - input("target"))?.sqr()?.mean_all()?);
            let (_, gradients) = transformer.backward(point, true, &Unwatched, loss).unwrap();
            let gradients: Vec<Vec<f32>> =
                vars.values().map(|var| values(gradients.get(var).unwrap())).collect();
            let mut parameters: Vec<Vec<f32>> = vars.values().map(|var| values(var)).collect();
            state.step(&mut parameters, &gradients, RATE);
            for (var, new) in vars.values().zip(parameters) {
                var.set(&Tensor::from_vec(new, var.shape(), &Device::Cpu).unwrap()).unwrap();
            }
        }

        assert_eq!(vars.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (key, wanted) in &wanted {
            let off = relative(&vars[key], wanted);
            assert!(off < 1e-3, "{name} {key}: {off:.1e}");
            let change = |now: &Tensor| (now - &before[key]).unwrap();
            let off_change = relative(&change(&vars[key]), &change(wanted));
            assert!(off_change < 1e-3, "{name} {key}: its change is off by {off_change:.1e}");
        }
    }
}

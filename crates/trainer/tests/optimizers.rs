//! The optimisers against the published ones, as `recorded/record.py` recorded them.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use safetensors::SafeTensors;
use zoetrope_trainer::optimizer::State;
use zoetrope_trainer::settings::Optimizer;

/// Of the recorded runs: updates, tensors, and decay of the weights.
const STEPS: usize = 20;
const TENSORS: usize = 3;
const DECAY: f64 = 0.1;

/// One of the recorded files.
struct Recorded(Vec<u8>);

impl Recorded {
    fn open(name: &str) -> Self {
        let file = format!("tests/recorded/{name}.safetensors");
        Self(std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn singles(&self, name: &str) -> Vec<f32> {
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        self.bytes(name).chunks_exact(4).map(value).collect()
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        let value = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
        self.bytes(name).chunks_exact(8).map(value).collect()
    }

    /// Row `step` of `name.I` for all tensors.
    fn rows(&self, name: &str, step: usize) -> Vec<Vec<f32>> {
        let row = |i| {
            let all = self.singles(&format!("{name}.{i}"));
            let width = all.len() / STEPS;
            all[step * width..][..width].to_vec()
        };
        (0..TENSORS).map(row).collect()
    }
}

/// ‖got − want‖ / ‖want‖
fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let off = size(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    off / size(&mut want.iter().map(|w| f64::from(*w)))
}

/// Gives `kind` the gradients that the published one saw, and compares what both leave after every update.
fn follows(kind: Optimizer, name: &str, tolerance: f64) {
    let recorded = Recorded::open(name);
    let mut values: Vec<Vec<f32>> =
        (0..TENSORS).map(|i| recorded.singles(&format!("start.{i}"))).collect();
    let sizes: Vec<usize> = values.iter().map(Vec::len).collect();
    let mut state = State::new(kind, &sizes, DECAY);
    let (rates, found) = (recorded.doubles("rates"), recorded.doubles("found"));
    for step in 0..STEPS {
        state.step(&mut values, &recorded.rows("gradients", step), rates[step]);
        for (i, (got, want)) in values.iter().zip(recorded.rows("after", step)).enumerate() {
            let off = relative(got, &want);
            assert!(off < tolerance, "{name}, update {step}, tensor {i}: {off:.1e}");
        }
        let off = (state.found_rate() / found[step] - 1.0).abs();
        assert!(off < tolerance, "{name}, update {step}: the rate found is off by {off:.1e}");
    }
}

#[test]
fn adamw_is_torch_s() {
    follows(Optimizer::AdamW, "adamw", 1e-6);
}

#[test]
fn prodigy_is_its_authors() {
    follows(Optimizer::Prodigy, "prodigy", 1e-5);
}

#[test]
fn a_tensor_below_4096_values_is_not_in_8_bits() {
    follows(Optimizer::AdamW8bit, "adamw", 1e-6);
}

/// The gradients of `adamw8bit.safetensors`.
fn formula(step: usize) -> impl Fn(usize) -> f32 {
    move |i| {
        let whole = (i * 7919 + (step + 1) * 104_729) % 1999;
        (whole as f32 - 999.0) / 999.0 * 0.5f32.powi((i % 12) as i32)
    }
}

/// bitsandbytes rounds by a coarse table on a CPU, so the two are not compared with each other but with what they stand for. A few of the
/// gradients are 0 or next to it where others were not.
#[test]
fn adamw_in_8_bits_is_no_farther_from_adamw_than_bitsandbytes() {
    let theirs = Recorded::open("adamw8bit").singles("after");
    let after = |kind| {
        let mut values = vec![vec![0.0f32; theirs.len()]];
        let mut state = State::new(kind, &[theirs.len()], 0.0);
        for step in 0..STEPS {
            let gradients = (0..theirs.len()).map(formula(step)).collect();
            state.step(&mut values, &[gradients], 1e-2);
        }
        values.remove(0)
    };
    let full = after(Optimizer::AdamW);
    let (ours, theirs) = (relative(&after(Optimizer::AdamW8bit), &full), relative(&theirs, &full));
    assert!(ours > 0.0 && ours < theirs, "{ours:.3} and {theirs:.3}");
}

//! What turns gradients into changes of the adapter. Parameters are plain values, a list for each tensor.

mod adamw;
mod codes;
mod prodigy;

use std::collections::BTreeMap;

use adamw::AdamW;
use prodigy::Prodigy;

use crate::settings::Optimizer;
use crate::state::Array;
use crate::{Error, Result};

/// Decay of the average of gradients.
const BETA1: f64 = 0.9;
/// Decay of the average of their squares.
const BETA2: f64 = 0.999;
/// Added to the root of the squares' average.
const EPS: f64 = 1e-8;

/// An optimiser and what it remembers.
pub struct State(Kind);

enum Kind {
    AdamW(AdamW),
    Prodigy(Prodigy),
}

impl Optimizer {
    /// Bytes that are kept for each trained value.
    pub fn bytes_a_value(self) -> usize {
        match self {
            Self::AdamW => 8,
            Self::AdamW8bit => 3,
            Self::Prodigy => 16,
        }
    }
}

impl State {
    /// One that has seen nothing, for tensors of `sizes` values.
    pub fn new(kind: Optimizer, sizes: &[usize], weight_decay: f64) -> Self {
        Self(match kind {
            Optimizer::AdamW => Kind::AdamW(AdamW::new(sizes, weight_decay, false)),
            Optimizer::AdamW8bit => Kind::AdamW(AdamW::new(sizes, weight_decay, true)),
            Optimizer::Prodigy => Kind::Prodigy(Prodigy::new(sizes, weight_decay)),
        })
    }

    /// Changes `parameters` against `gradients`, at a learning rate of `rate`.
    pub fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f64) {
        match &mut self.0 {
            Kind::AdamW(state) => state.step(parameters, gradients, rate),
            Kind::Prodigy(state) => state.step(parameters, gradients, rate),
        }
    }

    /// The learning rate that Prodigy found, in units of the one that was given; 1 for others.
    pub fn found_rate(&self) -> f64 {
        match &self.0 {
            Kind::AdamW(_) => 1.0,
            Kind::Prodigy(state) => state.distance(),
        }
    }

    /// Everything that it remembers, by name.
    pub fn save(&self, tensors: &mut BTreeMap<String, Array>, numbers: &mut BTreeMap<String, f64>) {
        match &self.0 {
            Kind::AdamW(state) => state.save(tensors, numbers),
            Kind::Prodigy(state) => state.save(tensors, numbers),
        }
    }

    /// Puts back what `save` gave.
    pub fn restore(
        &mut self,
        tensors: &BTreeMap<String, Array>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<()> {
        match &mut self.0 {
            Kind::AdamW(state) => state.restore(tensors, numbers),
            Kind::Prodigy(state) => state.restore(tensors, numbers),
        }
    }
}

/// Shrinks all `gradients` together to a norm of at most `most`, if it is above 0; the norm that they had.
pub fn clip(gradients: &mut [Vec<f32>], most: f64) -> f64 {
    let squares = |values: &Vec<f32>| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let norm = gradients.iter().map(squares).sum::<f64>().sqrt();
    // As torch.nn.utils.clip_grad_norm_ has it.
    let factor = (most / (norm + 1e-6)) as f32;
    if most > 0.0 && factor < 1.0 {
        gradients.iter_mut().flatten().for_each(|v| *v *= factor);
    }
    norm
}

/// Puts the values that are saved as `name` into `to`.
pub(crate) fn take(tensors: &BTreeMap<String, Array>, name: &str, to: &mut [f32]) -> Result<()> {
    match tensors.get(name) {
        Some(Array::F32(values)) if values.len() == to.len() => {
            to.copy_from_slice(values);
            Ok(())
        }
        _ => Err(unfitting(name)),
    }
}

/// The number that is saved as `name`.
pub(crate) fn number(numbers: &BTreeMap<String, f64>, name: &str) -> Result<f64> {
    numbers.get(name).copied().ok_or_else(|| unfitting(name))
}

pub(crate) fn unfitting(name: &str) -> Error {
    Error::data("the checkpoint", format!("has no `{name}` that fits this run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_clipped_together() {
        let mut gradients = vec![vec![3.0f32], vec![0.0, 4.0]];
        assert_eq!(clip(&mut gradients, 0.0), 5.0);
        assert_eq!(gradients[1], [0.0, 4.0]);
        assert_eq!(clip(&mut gradients, 1.0), 5.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][1] - 0.8).abs() < 1e-6);
    }

    /// Minimises the squares of what is off from a target, each in a scale of its own; what is left of them.
    fn left_after(kind: Optimizer, rate: f64, steps: usize) -> f64 {
        let sizes = [5000, 300];
        let target = |i: usize| ((i * 37 % 100) as f32 - 50.0) / 50.0;
        let scale = |i: usize| 10f32.powi(-((i % 4) as i32));
        let mut values: Vec<Vec<f32>> = sizes.iter().map(|n| vec![0.0; *n]).collect();
        let mut state = State::new(kind, &sizes, 0.0);
        let off = |values: &[Vec<f32>]| {
            let each = values.iter().flat_map(|v| v.iter().enumerate());
            each.map(|(i, v)| f64::from(v - target(i)).powi(2)).sum::<f64>()
        };
        let before = off(&values);
        for _ in 0..steps {
            let gradient = |v: &Vec<f32>| {
                v.iter().enumerate().map(|(i, v)| scale(i) * (v - target(i))).collect()
            };
            let gradients: Vec<Vec<f32>> = values.iter().map(gradient).collect();
            state.step(&mut values, &gradients, rate);
        }
        off(&values) / before
    }

    #[test]
    fn all_find_the_least() {
        let full = left_after(Optimizer::AdamW, 0.01, 400);
        let eight = left_after(Optimizer::AdamW8bit, 0.01, 400);
        assert!(full < 1e-6, "{full}");
        assert!(eight < 1e-6, "{eight}");
        let prodigy = left_after(Optimizer::Prodigy, 1.0, 400);
        assert!(prodigy < 1e-6, "{prodigy}");
    }

    #[test]
    fn what_is_saved_goes_on_to_the_bit() {
        for kind in [Optimizer::AdamW, Optimizer::AdamW8bit, Optimizer::Prodigy] {
            let sizes = [4500, 7];
            let gradients = |step: usize| -> Vec<Vec<f32>> {
                let value = |i: usize| ((i * 31 + step * 17) % 97) as f32 / 97.0 - 0.4;
                sizes.iter().map(|n| (0..*n).map(value).collect()).collect()
            };
            let mut values: Vec<Vec<f32>> = sizes.iter().map(|n| vec![0.5; *n]).collect();
            let mut state = State::new(kind, &sizes, 0.01);
            (0..3).for_each(|step| state.step(&mut values, &gradients(step), 1e-2));
            let (mut tensors, mut numbers) = (BTreeMap::new(), BTreeMap::new());
            state.save(&mut tensors, &mut numbers);
            let mut again = State::new(kind, &sizes, 0.01);
            assert!(again.restore(&BTreeMap::new(), &numbers).is_err());
            again.restore(&tensors, &numbers).unwrap();
            let mut others = values.clone();
            for step in 3..6 {
                state.step(&mut values, &gradients(step), 1e-2);
                again.step(&mut others, &gradients(step), 1e-2);
            }
            assert_eq!(values, others, "{kind:?}");
        }
    }
}

//! AdamW (Loshchilov & Hutter, 2019), as torch.optim.AdamW computes it; and the same with averages in 8 bits.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::codes::Codes;
use super::{BETA1, BETA2, EPS, number, take};
use crate::Result;
use crate::state::Array;

/// Tensors below this many values keep their averages in float32 whatever is asked for: there is nothing to save.
const SMALL: usize = 4096;

pub(super) struct AdamW {
    weight_decay: f64,
    steps: i32,
    averages: Vec<Averages>,
}

/// Of a tensor's gradients and of their squares.
enum Averages {
    Full { first: Vec<f32>, second: Vec<f32> },
    Eight { first: Codes, second: Codes },
}

/// The numbers of one step.
struct Step {
    keep: f32,
    rate: f32,
    root: f32,
}

impl AdamW {
    pub(super) fn new(sizes: &[usize], weight_decay: f64, eight_bits: bool) -> Self {
        let averages = |size: &usize| match eight_bits && *size >= SMALL {
            true => Averages::Eight { first: Codes::signed(*size), second: Codes::unsigned(*size) },
            false => Averages::Full { first: vec![0.0; *size], second: vec![0.0; *size] },
        };
        Self { weight_decay, steps: 0, averages: sizes.iter().map(averages).collect() }
    }

    pub(super) fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f64) {
        self.steps += 1;
        let corrected = |beta: f64| 1.0 - beta.powi(self.steps);
        let step = Step {
            keep: (1.0 - rate * self.weight_decay) as f32,
            rate: (rate / corrected(BETA1)) as f32,
            root: corrected(BETA2).sqrt() as f32,
        };
        let tensors = parameters.par_iter_mut().zip(gradients).zip(&mut self.averages);
        tensors.for_each(|((values, gradients), averages)| match averages {
            Averages::Full { first, second } => step.update(values, gradients, first, second),
            Averages::Eight { first, second } => {
                for (i, values) in values.chunks_mut(Codes::BLOCK).enumerate() {
                    let gradients = &gradients[i * Codes::BLOCK..][..values.len()];
                    let (mut m, mut v) = (first.block(i), second.block(i));
                    step.update(values, gradients, &mut m, &mut v);
                    first.set_block(i, &m);
                    second.set_block(i, &v);
                }
            }
        });
    }

    pub(super) fn save(
        &self,
        tensors: &mut BTreeMap<String, Array>,
        numbers: &mut BTreeMap<String, f64>,
    ) {
        numbers.insert("optimizer.steps".into(), f64::from(self.steps));
        for (i, averages) in self.averages.iter().enumerate() {
            let (first, second) = (format!("optimizer.first.{i}"), format!("optimizer.second.{i}"));
            match averages {
                Averages::Full { first: m, second: v } => {
                    tensors.insert(first, Array::F32(m.clone()));
                    tensors.insert(second, Array::F32(v.clone()));
                }
                Averages::Eight { first: m, second: v } => {
                    m.save(&first, tensors);
                    v.save(&second, tensors);
                }
            }
        }
    }

    pub(super) fn restore(
        &mut self,
        tensors: &BTreeMap<String, Array>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<()> {
        self.steps = number(numbers, "optimizer.steps")? as i32;
        for (i, averages) in self.averages.iter_mut().enumerate() {
            let (first, second) = (format!("optimizer.first.{i}"), format!("optimizer.second.{i}"));
            match averages {
                Averages::Full { first: m, second: v } => {
                    take(tensors, &first, m)?;
                    take(tensors, &second, v)?;
                }
                Averages::Eight { first: m, second: v } => {
                    m.restore(&first, tensors)?;
                    v.restore(&second, tensors)?;
                }
            }
        }
        Ok(())
    }
}

impl Step {
    fn update(&self, values: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
        let averages = first.iter_mut().zip(second);
        for ((value, g), (m, v)) in values.iter_mut().zip(gradients).zip(averages) {
            *m += (1.0 - BETA1) as f32 * (g - *m);
            *v = BETA2 as f32 * *v + (1.0 - BETA2) as f32 * g * g;
            *value *= self.keep;
            *value -= self.rate * (*m / (v.sqrt() / self.root + EPS as f32));
        }
    }
}

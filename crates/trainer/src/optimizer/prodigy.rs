//! Prodigy (Mishchenko & Defazio, 2023), algorithm 4 with decoupled decay: Adam whose rate is an estimate of how far the start is from
//! the best point, which grows with what the gradients say.
//!
//! The choices are the authors': a first estimate of 1e-6, no limit to its growth, no correction of the averages' bias.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{BETA1, BETA2, EPS, number, take};
use crate::Result;
use crate::state::Array;

/// The first estimate of the distance.
const FIRST: f64 = 1e-6;

pub(super) struct Prodigy {
    weight_decay: f64,
    distance: f64,
    numerator: f64,
    tensors: Vec<Kept>,
    started: bool,
}

/// What is kept of a tensor.
struct Kept {
    start: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    /// The weighted sum of gradients.
    sum: Vec<f32>,
}

impl Prodigy {
    pub(super) fn new(sizes: &[usize], weight_decay: f64) -> Self {
        let zeros = |size: &usize| vec![0.0; *size];
        let kept = |size| Kept {
            start: zeros(size),
            first: zeros(size),
            second: zeros(size),
            sum: zeros(size),
        };
        let tensors = sizes.iter().map(kept).collect();
        Self { weight_decay, distance: FIRST, numerator: 0.0, tensors, started: false }
    }

    pub(super) fn distance(&self) -> f64 {
        self.distance
    }

    pub(super) fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f64) {
        if !self.started {
            let starts = self.tensors.iter_mut().zip(parameters.iter());
            starts.for_each(|(kept, values)| kept.start.copy_from_slice(values));
            self.started = true;
        }
        let (d, beta3) = (self.distance, BETA2.sqrt());
        let (relative, rate_now) = (d / FIRST, d * rate);
        let both = self.tensors.par_iter_mut().zip(parameters.par_iter()).zip(gradients);
        let sums: Vec<(f64, f64)> = both
            .map(|((kept, values), gradients)| {
                kept.observe(values, gradients, d, (relative * rate_now, beta3))
            })
            .collect();
        // In the tensors' order, so that the sum is always the same.
        let (along, size) = sums.iter().fold((0.0, 0.0), |(a, s), (x, y)| (a + x, s + y));
        if rate == 0.0 {
            return;
        }
        self.numerator = beta3 * self.numerator + relative * rate_now * along;
        if size > 0.0 {
            self.distance = d.max(self.numerator / size);
        }
        let eps = (self.distance * EPS) as f32;
        let (decay, rate) = ((self.weight_decay * rate_now) as f32, rate_now as f32);
        for (values, kept) in parameters.iter_mut().zip(&self.tensors) {
            let averages = kept.first.iter().zip(&kept.second);
            for (value, (m, v)) in values.iter_mut().zip(averages) {
                // Not by a factor, which is rounded to 1 or to 1 − 6e-8 while the distance is small.
                *value -= decay * *value;
                *value -= rate * m / (v.sqrt() + eps);
            }
        }
    }

    pub(super) fn save(
        &self,
        tensors: &mut BTreeMap<String, Array>,
        numbers: &mut BTreeMap<String, f64>,
    ) {
        numbers.insert("optimizer.distance".into(), self.distance);
        numbers.insert("optimizer.numerator".into(), self.numerator);
        numbers.insert("optimizer.started".into(), f64::from(u8::from(self.started)));
        for (i, kept) in self.tensors.iter().enumerate() {
            for (name, values) in kept.named() {
                tensors.insert(format!("optimizer.{name}.{i}"), Array::F32(values.clone()));
            }
        }
    }

    pub(super) fn restore(
        &mut self,
        tensors: &BTreeMap<String, Array>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<()> {
        self.distance = number(numbers, "optimizer.distance")?;
        self.numerator = number(numbers, "optimizer.numerator")?;
        self.started = number(numbers, "optimizer.started")? != 0.0;
        for (i, kept) in self.tensors.iter_mut().enumerate() {
            take(tensors, &format!("optimizer.start.{i}"), &mut kept.start)?;
            take(tensors, &format!("optimizer.first.{i}"), &mut kept.first)?;
            take(tensors, &format!("optimizer.second.{i}"), &mut kept.second)?;
            take(tensors, &format!("optimizer.sum.{i}"), &mut kept.sum)?;
        }
        Ok(())
    }
}

impl Kept {
    fn named(&self) -> [(&'static str, &Vec<f32>); 4] {
        let Self { start, first, second, sum } = self;
        [("start", start), ("first", first), ("second", second), ("sum", sum)]
    }

    /// Takes `gradients` in; how far they point back to the start, and the size of their weighted sum.
    fn observe(
        &mut self,
        values: &[f32],
        gradients: &[f32],
        d: f64,
        (weight, beta3): (f64, f64),
    ) -> (f64, f64) {
        let (mut along, mut size) = (0.0, 0.0);
        let (new1, new2) = ((d * (1.0 - BETA1)) as f32, (d * d * (1.0 - BETA2)) as f32);
        for (i, g) in gradients.iter().enumerate() {
            along += f64::from(*g) * f64::from(self.start[i] - values[i]);
            self.first[i] = BETA1 as f32 * self.first[i] + new1 * g;
            self.second[i] = BETA2 as f32 * self.second[i] + new2 * g * g;
            self.sum[i] = beta3 as f32 * self.sum[i] + weight as f32 * g;
            size += f64::from(self.sum[i].abs());
        }
        (along, size)
    }
}

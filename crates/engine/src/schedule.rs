//! Noise levels: from evenly spaced stops, shifted towards noise, to 0.

use crate::config::SchedulerConfig;

/// Noise levels of a run, from the first to 0: one more than there are steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    sigmas: Vec<f32>,
}

impl Schedule {
    /// `steps` levels from 1 down to 1 / `steps`, shifted, then 0. `image_tokens` matters with dynamic shifting.
    pub fn new(config: &SchedulerConfig, steps: usize, image_tokens: usize) -> Self {
        Self::from_stops(config, &linspace(1.0, 1.0 / steps as f32, steps), image_tokens)
    }

    /// The same from levels of the caller's, before shifting.
    pub fn from_stops(config: &SchedulerConfig, stops: &[f32], image_tokens: usize) -> Self {
        let shifted = stops.iter().map(|s| shift(config, *s, image_tokens));
        Self { sigmas: shifted.chain([0.0]).collect() }
    }

    /// Number of network evaluations.
    pub fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// Level `i`; `steps()` is 0.
    pub fn sigma(&self, i: usize) -> f32 {
        self.sigmas[i]
    }

    /// All levels.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The scheduler's timestep before step `i`, 1000 (noise) to 0.
    pub fn timestep(&self, i: usize) -> f32 {
        self.sigmas[i] * 1000.0
    }

    /// The network's time before step `i`, 0 (noise) to 1 (image).
    pub fn time(&self, i: usize) -> f32 {
        (1000.0 - self.timestep(i)) / 1000.0
    }
}

/// `torch.linspace` in float32: from both ends towards the middle.
pub fn linspace(first: f32, last: f32, count: usize) -> Vec<f32> {
    let step = (last - first) / count.saturating_sub(1).max(1) as f32;
    let value = |i: usize| match i < count / 2 || count == 1 {
        true => first + step * i as f32,
        false => last - step * (count - 1 - i) as f32,
    };
    (0..count).map(value).collect()
}

/// `s·σ / (1 + (s − 1)·σ)`, or with dynamic shifting `e^mu / (e^mu + 1/σ − 1)` (Esser et al., 2024).
fn shift(config: &SchedulerConfig, sigma: f32, image_tokens: usize) -> f32 {
    if !config.use_dynamic_shifting {
        let s = config.shift;
        return (s as f32 * sigma) / (1.0 + (s - 1.0) as f32 * sigma);
    }
    let slope = (config.max_shift - config.base_shift)
        / (config.max_image_seq_len - config.base_image_seq_len);
    let mu = config.base_shift + slope * (image_tokens as f64 - config.base_image_seq_len);
    let factor = if config.time_shift_type == "linear" { mu } else { mu.exp() } as f32;
    factor / (factor + (1.0 / sigma - 1.0))
}

//! How an adapter is trained: every number that a run depends on, checked once.

use serde::{Deserialize, Serialize};
use zoetrope_api::InvalidField;

/// Everything that decides what comes of a run, besides the pictures and the model. Checkpoints carry it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Updates of the adapter.
    pub steps: usize,
    /// Pictures an update: their gradients are averaged, and memory is that of one at a time.
    pub batch: usize,
    /// The highest learning rate; Prodigy multiplies its own estimate by it.
    pub learning_rate: f64,
    /// How the rate goes over the run.
    pub schedule: RateSchedule,
    /// Updates until the rate is at its height.
    pub warmup: usize,
    /// What turns gradients into changes.
    pub optimizer: Optimizer,
    /// Decay of the weights, decoupled from their gradients (Loshchilov & Hutter, 2019).
    pub weight_decay: f64,
    /// Gradients are shrunk to at most this norm, all of them together; 0 is off.
    pub clip: f64,
    /// The adapter.
    pub lora: Lora,
    /// Which noise levels are trained at.
    pub timesteps: Timesteps,
    /// Share of updates that see no caption, 0..=1.
    pub caption_dropout: f64,
    /// Weight of the loss where a mask is black, 0..=1; masked parts weigh 1.
    pub outside_mask: f64,
    /// Weight of the loss of prior-preservation pictures.
    pub prior_weight: f64,
    /// Weight of staying where the frozen model is, on captions of the prior or none; 0 is off.
    pub preserve: f64,
    /// Decay of the averaged adapter that is written in place of the last one; 0 is off.
    pub ema: f64,
    /// Where the random numbers start.
    pub seed: u64,
    /// Pixels a side of a square of the area that pictures are trained at.
    pub resolution: u32,
    /// Whether the layers' inner values are computed again for their gradients in place of being kept.
    pub checkpointing: bool,
}

/// The shape of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// Inner width of every pair of matrices.
    pub rank: usize,
    /// The pair's product is scaled by alpha / rank.
    pub alpha: f64,
    /// Which layers get a pair.
    pub targets: Targets,
    /// Share of a layer's inputs that an update does not see, 0..1.
    pub dropout: f64,
}

/// Which linear layers of each block are adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// `to_q`, `to_k`, `to_v`, `to_out.0`.
    pub attention: bool,
    /// `w1`, `w2`, `w3`.
    pub feed_forward: bool,
    /// `adaLN_modulation.0`.
    pub modulation: bool,
}

/// What turns gradients into changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam with decoupled decay.
    AdamW,
    /// The same with its two averages kept in 8 bits (Dettmers et al., 2022).
    AdamW8bit,
    /// Finds its own rate (Mishchenko & Defazio, 2023); the learning rate is then 1.
    Prodigy,
}

/// How the learning rate goes after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateSchedule {
    /// It stays.
    Constant,
    /// Down to 0 by half a cosine.
    Cosine,
}

/// How noise levels are drawn for training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timesteps {
    /// Evenly in 0..1.
    Uniform,
    /// The logistic function of a normal number (Esser et al., 2024).
    LogitNormal {
        /// Of the normal number; above 0 is noisier.
        mean: f64,
        /// Of the normal number.
        deviation: f64,
    },
    /// As sampling shifts its steps: `s·σ / (1 + (s − 1)·σ)` of an even σ; by the model's own shift where it is absent.
    Shifted {
        /// `s`.
        shift: Option<f64>,
    },
    /// More of the low noise levels, where details are made.
    Style,
    /// More of the high noise levels, where things and their places are made.
    Content,
    /// Both alike.
    Balanced,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch: 1,
            learning_rate: 1e-4,
            schedule: RateSchedule::Constant,
            warmup: 0,
            optimizer: Optimizer::AdamW,
            weight_decay: 0.01,
            clip: 1.0,
            lora: Lora {
                rank: 16,
                alpha: 16.0,
                targets: Targets { attention: true, feed_forward: true, modulation: false },
                dropout: 0.0,
            },
            timesteps: Timesteps::Shifted { shift: None },
            caption_dropout: 0.05,
            outside_mask: 0.0,
            prior_weight: 1.0,
            preserve: 0.0,
            ema: 0.0,
            seed: 0,
            resolution: 1024,
            checkpointing: true,
        }
    }
}

/// Updates of a run.
pub const STEPS_MAX: usize = 1_000_000;
/// Pictures an update.
pub const BATCH_MAX: usize = 1024;
/// Inner width of an adapter.
pub const RANK_MAX: usize = 1024;
/// Pixels a side of a square of the area that is trained at.
pub const RESOLUTIONS: std::ops::RangeInclusive<u32> = 64..=2048;

/// Whether a transformer whose stream is so wide is trained with checkpointing where nobody says otherwise: models of full size have 3840, and
/// would take tens of gigabytes without.
pub fn usual_checkpointing(width: usize) -> bool {
    width >= 1024
}

impl Settings {
    /// These settings, if each is what it can be. Names in errors are the fields'.
    pub fn check(self) -> Result<Self, InvalidField> {
        whole("steps", self.steps, 1..=STEPS_MAX)?;
        whole("batch", self.batch, 1..=BATCH_MAX)?;
        whole("rank", self.lora.rank, 1..=RANK_MAX)?;
        whole("resolution", self.resolution as usize, {
            *RESOLUTIONS.start() as usize..=*RESOLUTIONS.end() as usize
        })?;
        if self.warmup > self.steps {
            let problem = format!("is {}, but there are {} steps", self.warmup, self.steps);
            return Err(InvalidField::new("warmup", problem));
        }
        let most = f64::from(f32::MAX);
        number("learning_rate", self.learning_rate, f64::MIN_POSITIVE..=10.0)?;
        number("alpha", self.lora.alpha, f64::MIN_POSITIVE..=most)?;
        number("weight_decay", self.weight_decay, 0.0..=1.0)?;
        number("clip", self.clip, 0.0..=most)?;
        number("dropout", self.lora.dropout, 0.0..=0.95)?;
        number("caption_dropout", self.caption_dropout, 0.0..=1.0)?;
        number("outside_mask", self.outside_mask, 0.0..=1.0)?;
        number("prior_weight", self.prior_weight, 0.0..=1000.0)?;
        number("preserve", self.preserve, 0.0..=1000.0)?;
        number("ema", self.ema, 0.0..=0.99999)?;
        let Targets { attention, feed_forward, modulation } = self.lora.targets;
        if !(attention || feed_forward || modulation) {
            return Err(InvalidField::new("targets", "names no layers: there is nothing to train"));
        }
        match self.timesteps {
            Timesteps::LogitNormal { mean, deviation } => {
                number("timesteps mean", mean, -10.0..=10.0)?;
                number("timesteps deviation", deviation, f64::MIN_POSITIVE..=10.0)?;
            }
            Timesteps::Shifted { shift: Some(shift) } => {
                number("timesteps shift", shift, 0.01..=100.0)?;
            }
            _ => {}
        }
        Ok(self)
    }
}

fn whole(
    field: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<(), InvalidField> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(InvalidField::new(field, format!("must be in {least}..={most}, but is {value}")))
}

fn number(
    field: &'static str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
) -> Result<(), InvalidField> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    let least = if *least == f64::MIN_POSITIVE { "above 0".into() } else { format!("{least}..") };
    Err(InvalidField::new(field, format!("must be {least} up to {most}, but is {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named_with_its_limits() {
        let refused = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(Settings::default().check().is_ok());
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 6] = [
            (|s| s.lora.rank = 0, "rank"),
            (|s| s.learning_rate = f64::NAN, "learning_rate"),
            (|s| s.learning_rate = 0.0, "learning_rate"),
            (|s| s.steps = 0, "steps"),
            (|s| s.warmup = 1001, "warmup"),
            (
                |s| {
                    s.lora.targets =
                        Targets { attention: false, feed_forward: false, modulation: false }
                },
                "targets",
            ),
        ];
        for (change, field) in cases {
            let message = refused(change);
            assert!(message.contains(field), "{message}");
        }
    }
}

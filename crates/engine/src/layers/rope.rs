//! Rotary angles: frequencies in float64, angles rounded to float32, as the reference computes them.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// Cosines and sines for a run of tokens, `[tokens, d / 2]` each.
#[derive(Clone)]
pub struct Angles {
    /// `[tokens, d / 2]`
    pub cos: Tensor,
    /// `[tokens, d / 2]`
    pub sin: Tensor,
}

impl Angles {
    fn from_radians(angles: Vec<f32>, tokens: usize, device: &Device) -> Result<Self> {
        let half = angles.len() / tokens.max(1);
        let of = |f: fn(f32) -> f32| {
            Tensor::from_vec(
                angles.iter().map(|a| f(*a)).collect::<Vec<_>>(),
                (tokens, half),
                device,
            )
        };
        Ok(Self {
            cos: of(|a| f64::from(a).cos() as f32)?,
            sin: of(|a| f64::from(a).sin() as f32)?,
        })
    }
}

/// The transformer's rotary embedding over three axes (time, row, column).
pub struct RopeTable {
    theta: f64,
    axes_dims: [usize; 3],
    axes_lens: [usize; 3],
}

impl RopeTable {
    /// `axes_dims` values of a head turn with each axis; positions stay below `axes_lens`.
    pub fn new(theta: f64, axes_dims: [usize; 3], axes_lens: [usize; 3]) -> Self {
        Self { theta, axes_dims, axes_lens }
    }

    /// Angles for tokens at `positions` (time, row, column).
    pub fn angles(&self, positions: &[[usize; 3]], device: &Device) -> Result<Angles> {
        let frequencies =
            self.axes_dims.map(|dim| frequencies(self.theta, dim).collect::<Vec<f64>>());
        let mut angles = Vec::new();
        for position in positions {
            for ((p, frequencies), len) in position.iter().zip(&frequencies).zip(self.axes_lens) {
                if *p >= len {
                    let problem = format!(
                        "a token's position {position:?} is beyond `axes_lens` {:?}",
                        self.axes_lens
                    );
                    return Err(Error::Config { file: "transformer/config.json".into(), problem });
                }
                angles.extend(frequencies.iter().map(|f| (*p as f64 * f) as f32));
            }
        }
        Angles::from_radians(angles, positions.len(), device)
    }
}

/// Angles of a head of `dim` values at `positions`, as Qwen3 has them: float32 frequencies and products.
pub fn half_angles(
    theta: f64,
    dim: usize,
    positions: Range<usize>,
    device: &Device,
) -> Result<Angles> {
    let tokens = positions.len();
    let frequencies: Vec<f32> =
        (0..dim / 2).map(|k| 1.0 / (theta as f32).powf(2.0 * k as f32 / dim as f32)).collect();
    let angles = positions.flat_map(|p| frequencies.iter().map(move |f| p as f32 * f)).collect();
    Angles::from_radians(angles, tokens, device)
}

/// `theta^(−2k / dim)`.
fn frequencies(theta: f64, dim: usize) -> impl Iterator<Item = f64> {
    (0..dim).step_by(2).map(move |k| 1.0 / theta.powf(k as f64 / dim as f64))
}

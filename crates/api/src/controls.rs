//! What a picture can be made with beyond fal's and OpenAI's fields: samplers, noise levels, seeds, tiles.
//!
//! Everything here is off unless somebody asks, so that clients of those APIs get what they always got.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{InvalidField, Steps};

/// Settings beside prompt, size, steps and seed. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Controls {
    /// How the way from noise to image is walked.
    pub sampler: Sampler,
    /// Noise levels before shifting, in place of even ones.
    pub sigmas: Option<Sigmas>,
    /// Which edges meet, and the windows that the picture is drawn in.
    pub tiling: Option<Tiling>,
    /// Another seed that the noise leans towards.
    pub variation: Option<Variation>,
    /// Whether picture `i` of a batch starts from `seed + i`, as if it had been asked for alone.
    pub seed_per_image: bool,
    /// Whether `(word:1.2)` in a prompt is a weight and not text.
    pub prompt_weighting: bool,
}

impl Controls {
    /// Whether nothing was asked for.
    pub fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A solver of the flow's differential equation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// First order: what the models were distilled for.
    #[default]
    Euler,
    /// Second order, with two evaluations a step but the last.
    Heun,
    /// DPM-Solver++ of second order, with one evaluation a step (Lu et al., 2022).
    #[serde(rename = "dpmpp_2m")]
    DpmPlusPlus2M,
    /// UniPC of second order, with one evaluation a step (Zhao et al., 2023).
    #[serde(rename = "unipc")]
    UniPc,
}

impl Sampler {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Euler, Self::Heun, Self::DpmPlusPlus2M, Self::UniPc];
    /// Their names, in the same order.
    pub const NAMES: [&str; 4] = ["euler", "heun", "dpmpp_2m", "unipc"];
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for Sampler {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let found = Self::ALL.into_iter().find(|sampler| sampler.to_string() == text);
        found.ok_or_else(|| {
            let problem = format!("is `{text}`; the samplers are {}", Self::NAMES.join(", "));
            InvalidField::new("sampler", problem)
        })
    }
}

/// Noise levels that fall from at most 1 to above 0: as many as there are steps. The 0 at the end is not among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub struct Sigmas(Vec<f32>);

impl Sigmas {
    /// `sigmas`, checked.
    pub fn new(sigmas: Vec<f32>) -> Result<Self, InvalidField> {
        let invalid = |problem: String| Err(InvalidField::new("sigmas", problem));
        if sigmas.is_empty() || sigmas.len() > Steps::MAX as usize {
            let (found, most) = (sigmas.len(), Steps::MAX);
            return invalid(format!("has {found} levels; give 1 to {most}, one a step"));
        }
        let falling = sigmas.windows(2).all(|w| w[1] < w[0]);
        if !falling || !sigmas.iter().all(|s| *s > 0.0 && *s <= 1.0) {
            return invalid(
                "must fall from at most 1 to above 0, each below the one before".into(),
            );
        }
        Ok(Self(sigmas))
    }

    /// The levels.
    pub fn get(&self) -> &[f32] {
        &self.0
    }

    /// As many steps.
    pub fn steps(&self) -> Steps {
        Steps::new(self.0.len() as u32).expect("their number was checked")
    }
}

impl TryFrom<Vec<f32>> for Sigmas {
    type Error = InvalidField;

    fn try_from(sigmas: Vec<f32>) -> Result<Self, InvalidField> {
        Self::new(sigmas)
    }
}

impl From<Sigmas> for Vec<f32> {
    fn from(sigmas: Sigmas) -> Self {
        sigmas.0
    }
}

/// A seed that the noise leans towards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    /// Where the other noise comes from.
    pub seed: u64,
    /// How far: 0 is the first seed's noise, 1 this one's.
    pub strength: f64,
}

impl Variation {
    /// How far where nobody said.
    pub const STRENGTH_DEFAULT: f64 = 0.1;

    /// A strength in 0..=1.
    pub fn new(seed: u64, strength: f64) -> Result<Self, InvalidField> {
        if (0.0..=1.0).contains(&strength) {
            return Ok(Self { seed, strength });
        }
        let problem = format!("is {strength}; it must lie between 0 and 1");
        Err(InvalidField::new("variation_strength", problem))
    }
}

/// How a picture is drawn in windows that overlap, of which some reach over its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    /// Which edges meet.
    pub mode: TilingMode,
    /// A window's side, in latent pixels of 8 × 8.
    pub size: u32,
    /// From one window to the next at most, in the same.
    pub stride: u32,
}

/// Which edges of a picture meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TilingMode {
    /// All four: the picture tiles the plane.
    Both,
    /// Left and right.
    Horizontal,
    /// Top and bottom.
    Vertical,
    /// None: the windows alone, for pictures larger than a model draws in one piece.
    Windows,
}

impl TilingMode {
    /// fal's names.
    pub const NAMES: [&str; 3] = ["both", "horizontal", "vertical"];

    /// The mode called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "both" => Some(Self::Both),
            "horizontal" => Some(Self::Horizontal),
            "vertical" => Some(Self::Vertical),
            _ => None,
        }
    }

    /// Whether left and right meet.
    pub fn wraps_columns(self) -> bool {
        matches!(self, Self::Both | Self::Horizontal)
    }

    /// Whether top and bottom meet.
    pub fn wraps_rows(self) -> bool {
        matches!(self, Self::Both | Self::Vertical)
    }
}

impl Tiling {
    /// Least and most of a window's side, as fal has them.
    pub const SIZE: (u32, u32) = (32, 256);
    /// Least and most of a stride.
    pub const STRIDE: (u32, u32) = (16, 128);
    /// A window's side where nobody said: 1024 pixels.
    pub const SIZE_DEFAULT: u32 = 128;
    /// A stride where nobody said.
    pub const STRIDE_DEFAULT: u32 = 64;

    /// Windows of `size` at every `stride`, both even and in their ranges: a token covers 2 × 2 latent pixels.
    pub fn new(mode: TilingMode, size: u32, stride: u32) -> Result<Self, InvalidField> {
        for (field, value, (least, most)) in
            [("tile_size", size, Self::SIZE), ("tile_stride", stride, Self::STRIDE)]
        {
            if value % 2 != 0 || !(least..=most).contains(&value) {
                let problem =
                    format!("is {value}; it must be an even number between {least} and {most}");
                return Err(InvalidField::new(field, problem));
            }
        }
        if stride > size {
            let problem =
                format!("is {stride}, more than the tile_size of {size}: windows would not meet");
            return Err(InvalidField::new("tile_stride", problem));
        }
        Ok(Self { mode, size, stride })
    }

    /// Windows of the usual size.
    pub fn usual(mode: TilingMode) -> Self {
        Self { mode, size: Self::SIZE_DEFAULT, stride: Self::STRIDE_DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (sampler, name) in Sampler::ALL.into_iter().zip(Sampler::NAMES) {
            assert_eq!((sampler.to_string().as_str(), name.parse()), (name, Ok(sampler)));
            assert_eq!(serde_json::to_value(sampler).unwrap(), name);
        }
        for name in TilingMode::NAMES {
            let mode = TilingMode::named(name).unwrap();
            assert_eq!(serde_json::to_value(mode).unwrap(), name);
        }
    }

    #[test]
    fn what_cannot_be_used_names_its_field_and_limit() {
        let cases = [
            (
                "ddim".parse::<Sampler>().unwrap_err(),
                "`sampler` is `ddim`; the samplers are euler, heun, dpmpp_2m, unipc",
            ),
            (
                Sigmas::new(Vec::new()).unwrap_err(),
                "`sigmas` has 0 levels; give 1 to 200, one a step",
            ),
            (
                Sigmas::new(vec![0.5, 0.7]).unwrap_err(),
                "`sigmas` must fall from at most 1 to above 0, each below the one before",
            ),
            (
                Sigmas::new(vec![f32::NAN]).unwrap_err(),
                "`sigmas` must fall from at most 1 to above 0, each below the one before",
            ),
            (
                Variation::new(1, 1.5).unwrap_err(),
                "`variation_strength` is 1.5; it must lie between 0 and 1",
            ),
            (
                Tiling::new(TilingMode::Both, 33, 16).unwrap_err(),
                "`tile_size` is 33; it must be an even number between 32 and 256",
            ),
            (
                Tiling::new(TilingMode::Both, 64, 128).unwrap_err(),
                "`tile_stride` is 128, more than the tile_size of 64: windows would not meet",
            ),
        ];
        for (error, want) in cases {
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn controls_come_back_from_the_queue_and_wrong_ones_do_not() {
        let controls = Controls {
            sampler: Sampler::UniPc,
            sigmas: Some(Sigmas::new(vec![1.0, 0.4]).unwrap()),
            tiling: Some(Tiling::usual(TilingMode::Vertical)),
            variation: Some(Variation::new(7, 0.1 + 0.2).unwrap()),
            seed_per_image: true,
            prompt_weighting: true,
        };
        let written = serde_json::to_string(&controls).unwrap();
        assert_eq!(serde_json::from_str::<Controls>(&written).unwrap(), controls);
        assert!(serde_json::from_str::<Controls>("{}").unwrap().are_default());
        assert!(serde_json::from_str::<Controls>(r#"{"sigmas": [0.1, 0.9]}"#).is_err());
    }
}

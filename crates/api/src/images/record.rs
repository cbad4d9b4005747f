//! What is known of a model from its use: how its providers do, and what people think of its pictures.

use serde::Serialize;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Of each provider that was asked, the quickest first.
    pub performance: Vec<Performance>,
    /// Of each board that it is on.
    pub arena: Vec<ArenaFigure>,
}

/// How a provider did with a model in a window of time. Milliseconds have one decimal, as have percents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Performance {
    /// `provider_performance`.
    pub object: &'static str,
    /// Its name in the configuration, as `fal`.
    pub provider: String,
    /// As people write it.
    pub provider_name: String,
    /// The model's id.
    pub model: String,
    /// Calls.
    pub total_requests: i64,
    /// Those that made their pictures.
    pub completed_requests: i64,
    /// Percent: what callers did wrong, and load, are no failures of the provider.
    pub success_rate: Option<f64>,
    /// Percent of all calls.
    pub raw_success_rate: Option<f64>,
    /// From sending to the last byte of the picture, of calls that were completed.
    pub generation_time_ms: GenerationTime,
    /// From sending to the first byte, of calls that were answered.
    pub time_to_first_byte_ms: FirstByteTime,
    /// Pictures.
    pub images: i64,
    /// Dollars.
    pub cost: f64,
    /// The same in millionths.
    pub total_cost_micros: i64,
}

/// Milliseconds to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GenerationTime {
    /// The median.
    pub p50: Option<f64>,
    /// What 95 of 100 calls stay below.
    pub p95: Option<f64>,
    /// The mean.
    pub average: Option<f64>,
}

/// Milliseconds to the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FirstByteTime {
    /// The median.
    pub p50: Option<f64>,
    /// What 95 of 100 calls stay below.
    pub p95: Option<f64>,
}

/// Where a model stands on one board of the arena.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArenaFigure {
    /// Which board.
    pub board: Board,
    /// The challenge's or the use case's name.
    pub title: String,
    /// `text-to-image` or `image-edit`, where the board is of one of them.
    pub mode: Option<&'static str>,
    /// As it is shown, about 1000 for a newcomer.
    pub rating: f64,
    /// Battles that it won.
    pub wins: u64,
    /// Those that it lost.
    pub losses: u64,
    /// Those that nobody won.
    pub ties: u64,
    /// From 1, the best.
    pub rank: u32,
    /// Models on the board.
    pub of: u32,
}

/// What a board of the arena is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Board {
    /// One challenge.
    Challenge,
    /// All challenges of a use case.
    UseCase,
}

impl ArenaFigure {
    /// All its battles.
    pub fn battles(&self) -> u64 {
        self.wins + self.losses + self.ties
    }

    /// Percent of its battles that it won; nothing without a battle.
    pub fn win_rate(&self) -> Option<f64> {
        let battles = self.battles();
        (battles > 0).then(|| 100.0 * self.wins as f64 / battles as f64)
    }
}

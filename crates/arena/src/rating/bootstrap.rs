//! How sure ratings are: the votes are drawn again from themselves, many times, and every draw is fitted (Efron, Annals of
//! Statistics 7, 1979). What the middle 95 % of the fits span is the interval.
//!
//! It says how much chance there is in these votes; not whether other people would vote alike.

use super::Battle;
use super::chance::Chance;
use super::strength::{Points, VIRTUAL_TIES};

/// Draws; the ends of an interval then vary by about a twentieth of its width from seed to seed.
pub const DRAWS: usize = 1000;
/// The interval's ends.
const QUANTILES: (f64, f64) = (0.025, 0.975);

/// For each of `players`, between which θ it lies, from `draws` draws of `battles`; empty ranges around 0 without any.
pub fn intervals(players: usize, battles: &[Battle], draws: usize, seed: u64) -> Vec<(f64, f64)> {
    if battles.is_empty() || draws == 0 {
        return vec![(0.0, 0.0); players];
    }
    let mut chance = Chance::new(seed);
    let mut fits = vec![Vec::with_capacity(draws); players];
    let mut points = Points::new(players);
    for _ in 0..draws {
        points.clear();
        for _ in 0..battles.len() {
            points.add(&battles[chance.below(battles.len())]);
        }
        // With virtual ties there is always an answer.
        let Some(fit) = points.fit(VIRTUAL_TIES) else { continue };
        for (all, theta) in fits.iter_mut().zip(fit) {
            all.push(theta);
        }
    }
    let ends = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        (quantile(&all, QUANTILES.0), quantile(&all, QUANTILES.1))
    };
    fits.into_iter().map(ends).collect()
}

/// The value below which a share of `sorted` lies, between two neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
}

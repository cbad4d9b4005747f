//! Whether the side decided. Sides are chosen by chance, so that a habit of voting left adds noise to ratings and favours nobody;
//! a large one still says that people did not look.

use super::{Battle, Verdict};

/// Votes by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bias {
    /// Votes for the left.
    pub left: u64,
    /// Votes for the right.
    pub right: u64,
    /// Where the share of the left lies, by Wilson's interval of 95 %.
    pub interval: (f64, f64),
    /// How likely shares at least as uneven are where the side decides nothing: the exact binomial test, both ways.
    pub p_value: f64,
}

/// Below it a bias is told as one: one board in a hundred without any.
pub const TOLD_BELOW: f64 = 0.01;
/// Of a normal distribution, 95 % lie within so many deviations.
const Z: f64 = 1.959_963_984_540_054;

impl Bias {
    /// That of `battles`.
    pub fn of(battles: &[Battle]) -> Self {
        let count = |verdict| battles.iter().filter(|b| b.verdict == verdict).count() as u64;
        let (left, right) = (count(Verdict::Left), count(Verdict::Right));
        Self { left, right, interval: wilson(left, left + right), p_value: p_value(left, right) }
    }

    /// Whether there seems to be one.
    pub fn is_told(&self) -> bool {
        self.p_value < TOLD_BELOW
    }
}

/// Wilson's interval of a share (Journal of the American Statistical Association 22, 1927).
fn wilson(hits: u64, count: u64) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    let (n, share) = (count as f64, hits as f64 / count as f64);
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / (1.0 + Z * Z / n);
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// Twice the smaller tail of a fair coin's distribution, at most 1.
fn p_value(left: u64, right: u64) -> f64 {
    let count = (left + right) as f64;
    let factorial = |n: f64| libm::lgamma(n + 1.0);
    let all = factorial(count) - count * std::f64::consts::LN_2;
    let tail: f64 = (0..=left.min(right))
        .map(|k| (all - factorial(k as f64) - factorial(count - k as f64)).exp())
        .sum();
    (2.0 * tail).min(1.0)
}

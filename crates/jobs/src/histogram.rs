//! How long things took, in buckets of a logarithmic scale: those of any hours and nodes are added up, and a quantile of the sum is
//! within a hundredth of the true one.

use std::collections::BTreeMap;

/// Counts of durations by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(BTreeMap<i64, i64>);

/// From one bucket's end to the next: its middle is a hundredth from both.
const STEP: f64 = 1.02;

impl Histogram {
    /// The bucket of so many microseconds.
    pub(crate) fn bucket(us: i64) -> i64 {
        ((us.max(1) as f64).ln() / STEP.ln()).floor() as i64
    }

    /// Adds `count` durations of a bucket.
    pub(crate) fn add(&mut self, bucket: i64, count: i64) {
        *self.0.entry(bucket).or_default() += count;
    }

    /// Counts one duration of `us` microseconds.
    pub fn count_one(&mut self, us: i64) {
        self.add(Self::bucket(us), 1);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add(*bucket, *count);
        }
    }

    /// How many durations.
    pub fn count(&self) -> i64 {
        self.0.values().sum()
    }

    /// Microseconds that a share of `quantile`, 0 to 1, did not exceed; `None` without any.
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let rank = (quantile.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as i64;
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(bucket, _)| STEP.powf(*bucket as f64 + 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth_wherever_they_were_counted() {
        let durations: Vec<i64> = (1..=10_000).map(|n| n * n).collect(); // 1 us to 100 s
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for (at, us) in durations.iter().enumerate() {
            let half = if at % 3 == 0 { &mut one } else { &mut other };
            half.add(Histogram::bucket(*us), 1);
        }
        one.merge(&other);
        assert_eq!(one.count(), 10_000);
        for quantile in [0.05, 0.5, 0.95, 0.99, 1.0] {
            let expected = durations[(quantile * 10_000.0) as usize - 1] as f64;
            let found = one.quantile_us(quantile).unwrap();
            assert!((found / expected - 1.0).abs() < 0.0101, "{quantile}: {found} for {expected}");
        }
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }
}

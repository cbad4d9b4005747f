//! The learning rate over a run.

use crate::settings::RateSchedule;

/// The rate of update `step` of `steps`, counted from 0: up in even steps over the first `warmup` updates, then as `schedule` says.
pub(crate) fn rate(
    schedule: RateSchedule,
    peak: f64,
    warmup: usize,
    step: usize,
    steps: usize,
) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    match schedule {
        RateSchedule::Constant => peak,
        RateSchedule::Cosine => {
            let way = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
            peak * (1.0 + (std::f64::consts::PI * way).cos()) / 2.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_stay_and_fall() {
        let constant = |step| rate(RateSchedule::Constant, 2.0, 4, step, 10);
        assert_eq!([0, 1, 3, 4, 9].map(constant), [0.5, 1.0, 2.0, 2.0, 2.0]);
        let cosine = |step| rate(RateSchedule::Cosine, 1.0, 0, step, 10);
        assert_eq!(cosine(0), 1.0);
        assert!((cosine(5) - 0.5).abs() < 1e-12 && cosine(9) < 0.03 && cosine(9) > 0.0);
    }
}

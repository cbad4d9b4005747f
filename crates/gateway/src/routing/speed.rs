//! How long a deployment is expected to take, how often it works, and how often it was asked.

use std::time::Duration;

use tokio::time::Instant;
use zoetrope_api::images::Pixels;

/// How fast an old duration is forgotten. One that is longer than expected counts at once: load comes suddenly.
const LATENCY_DECAY: Duration = Duration::from_secs(10);
/// How fast old successes and faults are forgotten.
const SUCCESS_DECAY: Duration = Duration::from_secs(600);
/// How fast it is forgotten that a deployment was asked.
const ASKED_DECAY: Duration = Duration::from_secs(3600);

/// What was measured of a deployment. Times are passed in.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    /// By [`class`] of the pictures: expected seconds, and when that was measured.
    latency: [Option<(f64, Instant)>; CLASSES],
    /// Seconds, from the calls of the last weeks.
    prior: Option<f64>,
    completed: Fading,
    faults: Fading,
    asked: Fading,
}

/// A count that fades.
#[derive(Debug, Default)]
struct Fading(Option<(f64, Instant)>);

impl Fading {
    fn at(&self, now: Instant, decay: Duration) -> f64 {
        self.0.map_or(0.0, |(count, at)| {
            count * (-now.duration_since(at).as_secs_f64() / decay.as_secs_f64()).exp()
        })
    }

    fn add(&mut self, now: Instant, decay: Duration) {
        self.0 = Some((self.at(now, decay) + 1.0, now));
    }
}

/// Small, usual and large pictures take differently long.
const CLASSES: usize = 3;

fn class(size: Pixels) -> usize {
    match size.count() {
        0..=600_000 => 0,
        600_001..=1_600_000 => 1,
        _ => 2,
    }
}

impl Speed {
    /// A call begins.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.asked.add(now, ASKED_DECAY);
    }

    /// Pictures of `size` took `duration`.
    pub(crate) fn took(&mut self, size: Pixels, duration: Duration, now: Instant) {
        let (seconds, known) = (duration.as_secs_f64(), &mut self.latency[class(size)]);
        let expected = match *known {
            Some((expected, at)) if seconds < expected => {
                let age = now.duration_since(at).as_secs_f64() / LATENCY_DECAY.as_secs_f64();
                seconds + (expected - seconds) * (-age).exp()
            }
            _ => seconds,
        };
        *known = Some((expected, now));
    }

    /// It made its pictures.
    pub(crate) fn completed(&mut self, now: Instant) {
        self.completed.add(now, SUCCESS_DECAY);
    }

    /// It failed by its own fault.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.faults.add(now, SUCCESS_DECAY);
    }

    /// What weeks of calls say, for as long as nothing was measured.
    pub(crate) fn learn(&mut self, prior: Option<Duration>) {
        self.prior = prior.map(|prior| prior.as_secs_f64());
    }

    /// Seconds that pictures of `size` are expected to take; `None` where nothing was ever measured.
    pub(crate) fn expected(&self, size: Pixels) -> Option<f64> {
        let any = || self.latency.iter().flatten().max_by_key(|(_, at)| *at);
        let known = self.latency[class(size)].as_ref();
        known.map(|(seconds, _)| *seconds).or(self.prior).or_else(|| any().map(|(s, _)| *s))
    }

    /// The share of calls that work, 0 to 1; 1 where nothing is known.
    pub(crate) fn success(&self, now: Instant) -> f64 {
        let completed = self.completed.at(now, SUCCESS_DECAY);
        let faults = self.faults.at(now, SUCCESS_DECAY);
        (completed + 1.0) / (completed + faults + 1.0)
    }

    /// How often it was asked lately.
    pub(crate) fn times_asked(&self, now: Instant) -> f64 {
        self.asked.at(now, ASKED_DECAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const USUAL: Pixels = Pixels::new(1024, 1024);

    #[test]
    fn it_slows_down_at_once_and_recovers_slowly() {
        let (mut speed, mut now) = (Speed::default(), Instant::now());
        assert_eq!(speed.expected(USUAL), None);
        speed.took(USUAL, SECOND, now);
        speed.took(USUAL, 9 * SECOND, now);
        assert_eq!(speed.expected(USUAL), Some(9.0));
        now += LATENCY_DECAY;
        speed.took(USUAL, SECOND, now);
        let expected = speed.expected(USUAL).unwrap();
        assert!((expected - (1.0 + 8.0 / std::f64::consts::E)).abs() < 1e-9, "{expected}");
        assert_eq!(speed.expected(Pixels::new(512, 512)), Some(expected), "better than nothing");
    }

    #[test]
    fn what_is_measured_goes_before_what_was_known() {
        let (mut speed, now) = (Speed::default(), Instant::now());
        speed.learn(Some(4 * SECOND));
        assert_eq!(speed.expected(USUAL), Some(4.0));
        speed.took(USUAL, SECOND, now);
        assert_eq!(speed.expected(USUAL), Some(1.0));
    }

    #[test]
    fn faults_count_until_they_are_forgotten() {
        let (mut speed, now) = (Speed::default(), Instant::now());
        assert_eq!(speed.success(now), 1.0);
        for _ in 0..3 {
            speed.failed(now);
        }
        assert_eq!(speed.success(now), 0.25);
        assert!(speed.success(now + 10 * SUCCESS_DECAY) > 0.99);
    }
}

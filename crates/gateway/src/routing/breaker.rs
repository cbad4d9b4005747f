//! When a deployment is left alone: after faults, until somebody has tried it again; and for a moment, where it said so.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Health;

/// Calls that are looked back at.
const WINDOW: Duration = Duration::from_secs(60);
/// And no more of them: the share of faults among as many says enough.
const RECENT_MAX: usize = 200;
/// Fewer calls say nothing about a share.
const CALLS_MIN: usize = 5;
/// Faults one after the other that say enough by themselves.
const IN_A_ROW: u32 = 3;
/// From opening to the first probe; doubled with each that fails.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest pause, and that of a deployment that cannot work until somebody changes something: an account there may be topped up
/// without a change here.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// After a 429 that does not say when to come again.
pub(crate) const COOLDOWN: Duration = Duration::from_secs(5);

/// Whether a deployment is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is.
    Closed,
    /// By the next request, as a probe.
    HalfOpen,
    /// It asked for a pause.
    Cooling,
    /// Where everybody else has failed.
    Open,
}

/// What is known of a deployment's health. Times are passed in.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Calls and whether they were faults.
    recent: VecDeque<(Instant, bool)>,
    faults_in_a_row: u32,
    open: Option<Open>,
    cool_until: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    pause: Duration,
    /// Somebody tries it.
    probing: bool,
}

/// What servers tell each other of a deployment's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Until when it is left alone, and how long that was in all.
    pub(crate) open: Option<(Instant, Duration)>,
    /// Until when it is asked last.
    pub(crate) cool_until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        match &self.open {
            Some(open) if open.probing || now < open.until => Standing::Open,
            Some(_) => Standing::HalfOpen,
            None if self.cool_until.is_some_and(|until| now < until) => Standing::Cooling,
            None => Standing::Closed,
        }
    }

    /// Whether it is asked like the others.
    pub(crate) fn is_healthy(&self) -> bool {
        self.open.is_none()
    }

    /// A call begins: of a half-open one, only this.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Some(open) = &mut self.open
            && now >= open.until
        {
            open.probing = true;
        }
    }

    /// It made what it was asked for.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        if self.open.take().is_some() {
            self.recent.clear(); // it begins anew
        }
        self.cool_until = None;
        self.faults_in_a_row = 0;
        self.remember(now, false);
    }

    /// It failed.
    pub(crate) fn failed(&mut self, health: Health, now: Instant) {
        match health {
            Health::Unchanged => self.abandoned(),
            Health::Down => self.shut(PAUSE_MAX, now),
            Health::Fault => {
                self.remember(now, true);
                self.faults_in_a_row += 1;
                let faults = self.recent.iter().filter(|(_, fault)| *fault).count();
                let many = self.recent.len() >= CALLS_MIN && 2 * faults >= self.recent.len();
                match &self.open {
                    Some(open) if open.probing => self.shut((2 * open.pause).min(PAUSE_MAX), now),
                    // Somebody had no other choice; that says nothing new.
                    Some(_) => {}
                    None if many || self.faults_in_a_row >= IN_A_ROW => self.shut(PAUSE, now),
                    None => {}
                }
            }
        }
    }

    /// It asked to be left alone for a while.
    pub(crate) fn throttled(&mut self, pause: Option<Duration>, now: Instant) {
        self.abandoned();
        let until = now + pause.unwrap_or(COOLDOWN).min(PAUSE_MAX);
        self.cool_until = Some(self.cool_until.map_or(until, |before| before.max(until)));
    }

    /// Nobody knows how a call would have ended: the next one is the probe.
    pub(crate) fn abandoned(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// What other servers should know.
    pub(crate) fn shared(&self) -> Shared {
        let open = self.open.as_ref().map(|open| (open.until, open.pause));
        Shared { open, cool_until: self.cool_until }
    }

    /// What another server has found out.
    pub(crate) fn adopt(&mut self, Shared { open, cool_until }: Shared) {
        self.open = open.map(|(until, pause)| Open { until, pause, probing: false });
        self.cool_until = cool_until;
        if self.open.is_none() {
            self.faults_in_a_row = 0;
            self.recent.clear();
        }
    }

    fn shut(&mut self, pause: Duration, now: Instant) {
        self.open = Some(Open { until: now + pause, pause, probing: false });
    }

    fn remember(&mut self, now: Instant, fault: bool) {
        self.recent.push_back((now, fault));
        let old = |(at, _): &(Instant, bool)| now.duration_since(*at) > WINDOW;
        while self.recent.len() > RECENT_MAX || self.recent.front().is_some_and(old) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_faults_in_a_row_open_it_and_a_probe_that_works_closes_it() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        breaker.failed(Health::Fault, start);
        breaker.failed(Health::Fault, start);
        assert_eq!(breaker.standing(start), Standing::Closed);
        breaker.failed(Health::Fault, start);
        assert_eq!(breaker.standing(start), Standing::Open);
        let later = start + PAUSE;
        assert_eq!(breaker.standing(later), Standing::HalfOpen);
        breaker.begin(later);
        assert_eq!(breaker.standing(later), Standing::Open, "one probe, not two");
        breaker.succeeded(later);
        assert_eq!(breaker.standing(later), Standing::Closed);
        breaker.failed(Health::Fault, later);
        assert_eq!(breaker.standing(later), Standing::Closed, "what was before is forgotten");
    }

    #[test]
    fn each_probe_that_fails_doubles_the_pause_up_to_ten_minutes() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            breaker.failed(Health::Fault, now);
        }
        for seconds in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(breaker.standing(now + (seconds - 1) * SECOND), Standing::Open);
            now += seconds * SECOND;
            assert_eq!(breaker.standing(now), Standing::HalfOpen);
            breaker.begin(now);
            breaker.failed(Health::Fault, now);
        }
    }

    #[test]
    fn half_of_five_calls_open_it_if_they_were_in_the_last_minute() {
        let check = |gap: Duration, expected: Standing| {
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            for fault in [true, false, true, false, true] {
                now += gap;
                match fault {
                    true => breaker.failed(Health::Fault, now),
                    false => breaker.succeeded(now),
                }
            }
            assert_eq!(breaker.standing(now), expected, "{gap:?}");
        };
        check(SECOND, Standing::Open);
        check(30 * SECOND, Standing::Closed);
    }

    #[test]
    fn load_and_the_caller_s_mistakes_are_no_faults() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            breaker.failed(Health::Unchanged, start);
        }
        assert_eq!(breaker.standing(start), Standing::Closed);
        breaker.throttled(Some(7 * SECOND), start);
        assert_eq!(breaker.standing(start + 6 * SECOND), Standing::Cooling);
        assert!(breaker.is_healthy());
        assert_eq!(breaker.standing(start + 7 * SECOND), Standing::Closed);
    }

    #[test]
    fn a_probe_that_nobody_waited_for_is_made_again() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        breaker.failed(Health::Down, start);
        let later = start + PAUSE_MAX;
        breaker.begin(later);
        breaker.abandoned();
        assert_eq!(breaker.standing(later), Standing::HalfOpen);
    }
}

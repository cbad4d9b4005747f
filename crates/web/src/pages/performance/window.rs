//! The time that is looked at, and the steps that it is divided into.

use time::OffsetDateTime;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// From when to when, in which steps. Steps begin where they divide the time since 1970, so that sums of hours fall into them.
pub(super) struct Window {
    /// As it stands in addresses.
    pub(super) name: &'static str,
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
    /// Of calls.
    pub(super) step_ms: i64,
    /// Of loads, which are known by the minute.
    pub(super) load_step_ms: i64,
}

impl Window {
    /// The window called `name` up to `now_ms`; a day where there is none of that name.
    pub(super) fn named(name: &str, now_ms: i64) -> Self {
        let (name, length, step_ms, load_step_ms) = match name {
            "week" => ("week", 7 * DAY_MS, 6 * HOUR_MS, 2 * HOUR_MS),
            "month" => ("month", 30 * DAY_MS, DAY_MS, 12 * HOUR_MS),
            _ => ("day", DAY_MS, HOUR_MS, HOUR_MS / 4),
        };
        // The step that has begun is shown too.
        let until_ms = now_ms.div_euclid(step_ms) * step_ms + step_ms;
        Self { name, from_ms: until_ms - length, until_ms, step_ms, load_step_ms }
    }

    /// When each step begins.
    pub(super) fn ticks(&self) -> impl Iterator<Item = i64> + use<> {
        (self.from_ms..self.until_ms).step_by(self.step_ms as usize)
    }

    /// The same of loads.
    pub(super) fn load_ticks(&self) -> impl Iterator<Item = i64> + use<> {
        let from = self.from_ms.div_euclid(self.load_step_ms) * self.load_step_ms;
        (from..self.until_ms).step_by(self.load_step_ms as usize)
    }

    /// The step in which `at_ms` lies.
    pub(super) fn step_of(&self, at_ms: i64) -> i64 {
        at_ms.div_euclid(self.step_ms) * self.step_ms
    }

    /// `at_ms` as it is written under a plot.
    pub(super) fn tick(&self, at_ms: i64) -> String {
        let Ok(at) = OffsetDateTime::from_unix_timestamp(at_ms / 1000) else {
            return String::new();
        };
        let (day, time) = (
            format!("{:02}-{:02}", u8::from(at.month()), at.day()),
            format!("{:02}:{:02}", at.hour(), at.minute()),
        );
        match self.name {
            "month" => day,
            "week" => format!("{day} {time}"),
            _ => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_and_the_one_that_has_begun_is_the_last() {
        let now = 1_800_000_000_000; // 2027-01-15 08:00 UTC
        for (name, count, last) in [
            ("day", 24, "08:00"),
            ("week", 28, "01-15 06:00"),
            ("month", 30, "01-15"),
            ("nonsense", 24, "08:00"),
        ] {
            let window = Window::named(name, now);
            let ticks: Vec<i64> = window.ticks().collect();
            assert_eq!(ticks.len(), count, "{name}");
            assert!(ticks.iter().all(|at| at % window.step_ms == 0));
            assert_eq!(window.step_of(now), ticks[count - 1]);
            assert_eq!(window.tick(ticks[count - 1]), last);
        }
    }
}

//! A rating that follows votes one after the other: a player is a normal distribution of what it may be worth, and each vote
//! moves and narrows two of them (Herbrich, Minka, Graepel: "TrueSkill", 2006). The catalogue's figure is `1000 + 10(μ − 3σ)`.

/// What a player may be worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skill {
    /// The mean.
    pub mu: f64,
    /// The standard deviation.
    pub sigma: f64,
}

const MU: f64 = 25.0;
const SIGMA: f64 = MU / 3.0;
/// How far one performance is from what a player is worth.
const BETA: f64 = MU / 6.0;
/// By how much a player may change between two votes.
const TAU: f64 = MU / 300.0;
/// Φ⁻¹((0.10 + 1) / 2): equals are expected to tie one time in ten.
const DRAW_QUANTILE: f64 = 0.125_661_346_855_074_16;
/// Below it Φ is too small to divide by.
const TINY: f64 = 1e-162;

impl Default for Skill {
    fn default() -> Self {
        Self { mu: MU, sigma: SIGMA }
    }
}

impl Skill {
    /// As the catalogue shows it. Nothing stops it at 1000.
    pub fn shown(&self) -> f64 {
        1000.0 + 10.0 * (self.mu - 3.0 * self.sigma)
    }
}

/// How one vote ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The first is better.
    FirstWins,
    /// Neither is.
    Draw,
}

/// Both after a vote.
pub fn after(first: Skill, second: Skill, ending: Ending) -> (Skill, Skill) {
    let widened = |skill: Skill| skill.sigma * skill.sigma + TAU * TAU;
    let (first_variance, second_variance) = (widened(first), widened(second));
    let c_squared = 2.0 * BETA * BETA + first_variance + second_variance;
    let c = c_squared.sqrt();
    let (t, e) = ((first.mu - second.mu) / c, DRAW_QUANTILE * 2_f64.sqrt() * BETA / c);
    let (v, w) = match ending {
        Ending::FirstWins => win(t, e),
        Ending::Draw => draw(t, e),
    };
    let moved = |mu: f64, variance: f64, sign: f64| Skill {
        mu: mu + sign * variance / c * v,
        sigma: (variance * (1.0 - variance / c_squared * w)).sqrt(),
    };
    (moved(first.mu, first_variance, 1.0), moved(second.mu, second_variance, -1.0))
}

/// By how much a win moves the mean and narrows the deviation, both in units of c.
fn win(t: f64, e: f64) -> (f64, f64) {
    let x = t - e;
    let below = cumulative(x);
    let v = if below < TINY { -x } else { density(x) / below };
    (v, v * (v + x))
}

/// The same of a draw.
fn draw(t: f64, e: f64) -> (f64, f64) {
    // For a difference below 0 the two Φ would both be near 1, and nothing would be left of what they differ by.
    let (t, sign) = (t.abs(), if t < 0.0 { -1.0 } else { 1.0 });
    let between = cumulative(e - t) - cumulative(-e - t);
    if between < TINY {
        return (sign * (e - t), 1.0);
    }
    let v = (density(-e - t) - density(e - t)) / between;
    let w = v * v + ((e - t) * density(e - t) + (e + t) * density(e + t)) / between;
    (sign * v, w)
}

fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn cumulative(x: f64) -> f64 {
    0.5 * libm::erfc(-x / 2_f64.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(skill: Skill, mu: f64, sigma: f64, shown: f64, digits: [f64; 2]) {
        let right = (skill.mu - mu).abs() <= digits[0] && (skill.sigma - sigma).abs() <= digits[0];
        assert!(right && (skill.shown() - shown).abs() <= digits[1], "{skill:?} {}", skill.shown());
    }

    #[test]
    fn the_catalogue_s_numbers_come_out() {
        let new = Skill::default();
        near(new, 25.0, 25.0 / 3.0, 1000.0, [1e-12, 1e-9]);
        let (winner, loser) = after(new, new, Ending::FirstWins);
        near(winner, 29.396, 7.171, 1078.8, [0.0005, 0.05]);
        near(loser, 20.604, 7.171, 990.9, [0.0005, 0.05]);
        let (one, other) = after(new, new, Ending::Draw);
        near(one, 25.0, 6.458, 1056.3, [0.0005, 0.05]);
        assert_eq!(one, other);
        let mut unlucky = new;
        for _ in 0..28 {
            unlucky = after(new, unlucky, Ending::FirstWins).1;
        }
        near(unlucky, 7.04, 3.36, 969.6, [0.005, 0.05]);
    }

    #[test]
    fn the_draw_margin_is_that_of_one_in_ten() {
        assert!((cumulative(DRAW_QUANTILE) - 0.55).abs() < 1e-15);
    }

    #[test]
    fn the_most_unlikely_ends_leave_numbers() {
        let (high, low) = (Skill { mu: 1000.0, sigma: 0.1 }, Skill { mu: -1000.0, sigma: 0.1 });
        for (first, second) in [(low, high), (high, low)] {
            for ending in [Ending::FirstWins, Ending::Draw] {
                let (one, other) = after(first, second, ending);
                for skill in [one, other] {
                    assert!(skill.mu.is_finite() && skill.sigma > 0.0, "{ending:?} {skill:?}");
                }
            }
        }
        let (one, other) = after(low, high, Ending::Draw);
        assert!(one.mu > low.mu && other.mu < high.mu);
    }
}

//! Bradley–Terry: player i beats j with probability σ(θᵢ − θⱼ), and the θ are those under which the votes are most likely.
//!
//! A tie is half a win for each, as in LMArena's fits. The log-likelihood Σ wᵢⱼ ln σ(θᵢ − θⱼ) is concave, and Newton's method
//! finds its top in a few steps (Bradley and Terry, Biometrika 39, 1952; Hunter, Annals of Statistics 32, 2004).

use super::Battle;

/// Ties against an average player that everybody is given: half of one keeps finite who has only won or only lost, joins groups
/// that never met, and says what 0 is.
pub const VIRTUAL_TIES: f64 = 0.5;
/// Steps of Newton's method; a handful is usual.
const STEPS_MAX: usize = 100;
/// A step of less than this in every θ is the end: far below what is shown.
const STEP_MIN: f64 = 1e-12;

/// Points of each against each.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    players: usize,
    /// `[players, players]`: what the row took from the column.
    taken: Vec<f64>,
}

impl Points {
    /// None yet.
    pub fn new(players: usize) -> Self {
        Self { players, taken: vec![0.0; players * players] }
    }

    /// The same, none taken.
    pub fn clear(&mut self) {
        self.taken.fill(0.0);
    }

    /// Those of `battles` among `players`.
    pub fn of(players: usize, battles: &[Battle]) -> Self {
        let mut points = Self::new(players);
        battles.iter().for_each(|battle| points.add(battle));
        points
    }

    /// Counts one vote.
    pub fn add(&mut self, battle: &Battle) {
        let left = battle.left_points();
        self.taken[battle.left * self.players + battle.right] += left;
        self.taken[battle.right * self.players + battle.left] += 1.0 - left;
    }

    fn taken(&self, by: usize, from: usize) -> f64 {
        self.taken[by * self.players + from]
    }

    /// Every player's θ with so many virtual ties; `None` where the votes have no finite answer, which happens without
    /// virtual ties only. Then the mean is 0.
    pub fn fit(&self, virtual_ties: f64) -> Option<Vec<f64>> {
        let count = self.players;
        let mut theta = vec![0.0; count];
        let mut likelihood = self.likelihood(&theta, virtual_ties);
        for _ in 0..STEPS_MAX {
            let (slope, curvature) = self.derivatives(&theta, virtual_ties);
            let step = solve(curvature, slope, count)?;
            let mut length = 1.0;
            let (next, reached) = loop {
                let moved: Vec<f64> =
                    theta.iter().zip(&step).map(|(t, s)| t + length * s).collect();
                let reached = self.likelihood(&moved, virtual_ties);
                // Rounding may take a last bit from the top itself.
                if reached >= likelihood - 1e-9 * likelihood.abs() {
                    break (moved, reached);
                }
                length /= 2.0;
                if length < 1e-9 {
                    return None;
                }
            };
            (theta, likelihood) = (next, reached);
            if step.iter().all(|s| (length * s).abs() < STEP_MIN * (1.0 + THETA_MAX)) {
                return Some(theta);
            }
            if theta.iter().any(|t| t.abs() > THETA_MAX) {
                return None;
            }
        }
        None
    }

    fn likelihood(&self, theta: &[f64], virtual_ties: f64) -> f64 {
        let mut sum = 0.0;
        for i in 0..self.players {
            let against_average = ln_sigmoid(theta[i]) + ln_sigmoid(-theta[i]);
            sum += 0.5 * virtual_ties * against_average;
            for j in 0..self.players {
                let taken = self.taken(i, j);
                if taken > 0.0 {
                    sum += taken * ln_sigmoid(theta[i] - theta[j]);
                }
            }
        }
        sum
    }

    /// The likelihood's slope, and its curvature with the other sign, `[players, players]`.
    fn derivatives(&self, theta: &[f64], virtual_ties: f64) -> (Vec<f64>, Vec<f64>) {
        let count = self.players;
        // Without virtual ties only differences matter; to hold the mean makes the curvature one that can be divided by.
        let hold = if virtual_ties > 0.0 { 0.0 } else { 1.0 / count as f64 };
        let (mut slope, mut curvature) = (vec![0.0; count], vec![hold; count * count]);
        for i in 0..count {
            let p = sigmoid(theta[i]);
            slope[i] += virtual_ties * (0.5 - p);
            curvature[i * count + i] += virtual_ties * p * (1.0 - p);
            for j in 0..count {
                let games = self.taken(i, j) + self.taken(j, i);
                if i == j || games == 0.0 {
                    continue;
                }
                let p = sigmoid(theta[i] - theta[j]);
                slope[i] += self.taken(i, j) - games * p;
                let information = games * p * (1.0 - p);
                curvature[i * count + i] += information;
                curvature[i * count + j] -= information;
            }
        }
        (slope, curvature)
    }
}

/// Beyond this a win is as good as certain (one loss in 10¹³): the answer lies at infinity.
const THETA_MAX: f64 = 30.0;

/// How likely who is stronger by `difference` is to win.
pub fn sigmoid(difference: f64) -> f64 {
    1.0 / (1.0 + (-difference).exp())
}

/// Its logarithm, without overflow on either side.
fn ln_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// Solves `matrix` x = `right`, `[count, count]`, by Cholesky's decomposition; `None` where it is not positive definite.
fn solve(mut matrix: Vec<f64>, right: Vec<f64>, count: usize) -> Option<Vec<f64>> {
    for j in 0..count {
        for i in j..count {
            let dot: f64 = (0..j).map(|k| matrix[i * count + k] * matrix[j * count + k]).sum();
            let rest = matrix[i * count + j] - dot;
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                matrix[j * count + j] = rest.sqrt();
            } else {
                matrix[i * count + j] = rest / matrix[j * count + j];
            }
        }
    }
    let mut x = right;
    for i in 0..count {
        let dot: f64 = (0..i).map(|k| matrix[i * count + k] * x[k]).sum();
        x[i] = (x[i] - dot) / matrix[i * count + i];
    }
    for i in (0..count).rev() {
        let dot: f64 = (i + 1..count).map(|k| matrix[k * count + i] * x[k]).sum();
        x[i] = (x[i] - dot) / matrix[i * count + i];
    }
    Some(x)
}

/// θ as it is shown: 400 points are ten to one, and 1000 is the average, as LMArena has it.
pub fn shown(theta: f64) -> f64 {
    1000.0 + 400.0 / std::f64::consts::LN_10 * theta
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn battles(list: &[(usize, usize, Verdict, usize)]) -> Vec<Battle> {
        let many = |&(left, right, verdict, count): &(usize, usize, Verdict, usize)| {
            std::iter::repeat_n(Battle { left, right, verdict }, count)
        };
        list.iter().flat_map(many).collect()
    }

    #[test]
    fn two_players_have_the_answer_that_can_be_written_down() {
        // Three wins in four: odds of 3, so that θ differs by ln 3.
        let votes = battles(&[
            (0, 1, Verdict::Left, 2),
            (1, 0, Verdict::Right, 1),
            (0, 1, Verdict::Right, 1),
        ]);
        let fit = Points::of(2, &votes).fit(0.0).unwrap();
        assert!((fit[0] - fit[1] - 3_f64.ln()).abs() < 1e-12, "{fit:?}");
        assert!((fit[0] + fit[1]).abs() < 1e-12, "{fit:?}");
    }

    #[test]
    fn who_only_won_has_no_finite_strength_without_virtual_ties() {
        let votes = battles(&[
            (0, 1, Verdict::Left, 5),
            (1, 2, Verdict::Left, 1),
            (2, 1, Verdict::Left, 1),
        ]);
        let points = Points::of(3, &votes);
        assert_eq!(points.fit(0.0), None);
        let fit = points.fit(VIRTUAL_TIES).unwrap();
        assert!(fit[0] > fit[2] && fit[2].is_finite(), "{fit:?}");
        // Groups that never met.
        let apart = battles(&[(0, 1, Verdict::Tie, 5), (2, 3, Verdict::Tie, 5)]);
        assert_eq!(Points::of(4, &apart).fit(VIRTUAL_TIES), Some(vec![0.0; 4]));
    }

    #[test]
    fn nobody_who_never_played_is_anything_but_average() {
        let votes = battles(&[(0, 1, Verdict::Left, 1000)]);
        let fit = Points::of(3, &votes).fit(VIRTUAL_TIES).unwrap();
        assert!(fit[2].abs() < 1e-12 && fit[0] > 0.0, "{fit:?}");
        assert_eq!(shown(0.0), 1000.0);
        assert!((shown(10_f64.ln()) - 1400.0).abs() < 1e-9);
    }
}

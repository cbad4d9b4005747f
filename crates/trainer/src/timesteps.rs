//! Which noise levels a run learns at.

use crate::settings::Timesteps;

/// Noise levels by chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    kind: Timesteps,
    /// The model's own shift.
    shift: f64,
}

impl Times {
    /// As `kind` says, for a model whose sampling is shifted by `shift`.
    pub(crate) fn new(kind: Timesteps, shift: f64) -> Self {
        Self { kind, shift }
    }

    /// The noise level, between 0 (image) and 1 (noise) and neither of them, for an even number `u` in 0..1: the inverse of the levels'
    /// distribution function.
    ///
    /// `Content` and `Style` have densities that fall to 0 at the other end, 3 (1 − x²) / 2: means of 5/8 and 3/8. Both are then shifted as the model's
    /// sampling is, because its steps lie there; `Balanced` is the shift of even numbers alone.
    pub(crate) fn sigma(&self, u: f64) -> f64 {
        let u = u.clamp(1e-6, 1.0 - 1e-6);
        let shifted = |s: f64, x: f64| s * x / (1.0 + (s - 1.0) * x);
        let sigma = match self.kind {
            Timesteps::Uniform => u,
            Timesteps::LogitNormal { mean, deviation } => {
                1.0 / (1.0 + (-(mean + deviation * normal_quantile(u))).exp())
            }
            Timesteps::Shifted { shift } => shifted(shift.unwrap_or(self.shift), u),
            Timesteps::Balanced => shifted(self.shift, u),
            Timesteps::Style => shifted(self.shift, falling(u)),
            Timesteps::Content => shifted(self.shift, 1.0 - falling(1.0 - u)),
        };
        sigma.clamp(1e-4, 1.0 - 1e-4)
    }
}

/// The inverse of `(3 x − x³) / 2`, whose density is `3 (1 − x²) / 2`: the middle root of the cubic, by its angle.
fn falling(u: f64) -> f64 {
    2.0 * ((-u).acos() / 3.0 - 2.0 * std::f64::consts::PI / 3.0).cos()
}

/// The normal distribution's quantile, by Newton's method on its distribution function from a logistic start.
fn normal_quantile(u: f64) -> f64 {
    let mut x = (u / (1.0 - u)).ln() / 1.702;
    for _ in 0..20 {
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        x -= ((normal_below(x) - u) / density).clamp(-1.0, 1.0);
    }
    x
}

/// The share of a normal distribution below `x`, by the series of its integral (Marsaglia, 2004).
fn normal_below(x: f64) -> f64 {
    let (mut sum, mut term, mut i) = (x, x, 1.0);
    while (sum + term) != sum || i < 3.0 {
        i += 2.0;
        term *= x * x / i;
        sum += term;
        if i > 400.0 {
            break;
        }
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(kind: Timesteps, shift: f64) -> Vec<f64> {
        let times = Times::new(kind, shift);
        (0..10_000).map(|i| times.sigma((f64::from(i) + 0.5) / 10_000.0)).collect()
    }

    fn mean(levels: &[f64]) -> f64 {
        levels.iter().sum::<f64>() / levels.len() as f64
    }

    #[test]
    fn levels_lie_between_and_where_they_should() {
        let logit = Timesteps::LogitNormal { mean: 0.0, deviation: 1.0 };
        for (kind, shift, wanted) in [
            (Timesteps::Uniform, 3.0, 0.5),
            (logit, 3.0, 0.5),
            // ∫ 3x / (1 + 2x) dx = 3/2 − 3/4 ln 3.
            (Timesteps::Shifted { shift: None }, 3.0, 1.5 - 0.75 * 3f64.ln()),
            (Timesteps::Balanced, 3.0, 1.5 - 0.75 * 3f64.ln()),
            (Timesteps::Shifted { shift: Some(1.0) }, 3.0, 0.5),
            (Timesteps::Style, 1.0, 0.375),
            (Timesteps::Content, 1.0, 0.625),
        ] {
            let levels = levels(kind, shift);
            assert!(levels.iter().all(|s| *s > 0.0 && *s < 1.0), "{kind:?}");
            assert!(levels.windows(2).all(|w| w[0] <= w[1]), "{kind:?} is no quantile function");
            assert!((mean(&levels) - wanted).abs() < 1e-3, "{kind:?}: {}", mean(&levels));
        }
    }

    #[test]
    fn normal_quantiles_are_those_of_the_tables() {
        for (u, x) in [(0.5, 0.0), (0.975, 1.959_964), (0.001, -3.090_232), (0.84134475, 1.0)] {
            assert!((normal_quantile(u) - x).abs() < 1e-5, "{u}: {}", normal_quantile(u));
        }
        let spread = levels(Timesteps::LogitNormal { mean: 1.0, deviation: 0.5 }, 1.0);
        // The median is the logistic function of the mean.
        assert!((spread[5000] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-3);
    }
}

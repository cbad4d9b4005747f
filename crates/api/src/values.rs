//! The sampler's settings, each in its range.

use crate::InvalidField;

/// Number of network evaluations, 1 to 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(u32);

impl Steps {
    /// More than any schedule gains from; a mistyped 10000 should not run for days.
    pub const MAX: u32 = 200;

    /// `steps` evaluations.
    pub fn new(steps: u32) -> Result<Self, InvalidField> {
        match steps {
            0 => Err(InvalidField::new("steps", "is 0; a picture takes at least 1 step")),
            1..=Self::MAX => Ok(Self(steps)),
            _ => Err(InvalidField::new("steps", format!("is {steps}; the most is {}", Self::MAX))),
        }
    }

    /// The number.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// Share of the schedule that image to image runs: 0 keeps the image, 1 ignores it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength(f64);

impl Strength {
    /// A strength in 0..=1.
    pub fn new(strength: f64) -> Result<Self, InvalidField> {
        if (0.0..=1.0).contains(&strength) {
            return Ok(Self(strength));
        }
        Err(InvalidField::new("strength", format!("is {strength}; it must lie between 0 and 1")))
    }

    /// The first step that is run; an error when none is left.
    ///
    /// `int(max(N − min(N · strength, N), 0))`, as the reference computes it.
    pub fn first_step(self, steps: Steps) -> Result<usize, InvalidField> {
        let n = steps.get() as f64;
        let first = (n - (n * self.0).min(n)).max(0.0) as usize;
        if first < steps.get() {
            return Ok(first);
        }
        let problem = format!(
            "is {} and leaves none of {} steps to run; raise it above 0",
            self.0,
            steps.get()
        );
        Err(InvalidField::new("strength", problem))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Pictures for one prompt, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(u32);

impl Count {
    /// Far above what is useful at once, far below what exhausts a machine by mistake.
    pub const MAX: u32 = 64;

    /// `count` pictures.
    pub fn new(count: u32) -> Result<Self, InvalidField> {
        match count {
            0 => Err(InvalidField::new("count", "is 0; ask for at least 1 picture")),
            1..=Self::MAX => Ok(Self(count)),
            _ => Err(InvalidField::new(
                "count",
                format!("is {count}; the most at once is {}", Self::MAX),
            )),
        }
    }

    /// The number.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// What starts the random numbers. As in torch's CPU generator, only the low 32 bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

/// Classifier-free guidance as Z-Image's reference applies it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    scale: f64,
    normalization: f64,
    truncation: f64,
}

impl Guidance {
    /// No guidance: one evaluation a step.
    pub const OFF: Self = Self { scale: 0.0, normalization: 0.0, truncation: 1.0 };

    /// `scale` ≥ 0 (0: off); `normalization` ≥ 0 caps the guided velocity's norm at that multiple of the prompt's own
    /// (0: off); `truncation` turns guidance off once t exceeds it (1 or more: never).
    pub fn new(scale: f64, normalization: f64, truncation: f64) -> Result<Self, InvalidField> {
        let fields = [
            ("guidance_scale", scale, 100.0),
            ("cfg_normalization", normalization, 100.0),
            ("cfg_truncation", truncation, f64::MAX),
        ];
        for (field, value, most) in fields {
            if !(0.0..=most).contains(&value) {
                let problem = match most < f64::MAX {
                    true => format!("is {value}; it must lie between 0 and {most}"),
                    false => format!("is {value}; it must be 0 or more"),
                };
                return Err(InvalidField::new(field, problem));
            }
        }
        Ok(Self { scale, normalization, truncation })
    }

    /// Whether a negative prompt plays a part at all.
    pub fn is_on(self) -> bool {
        self.scale > 0.0
    }

    /// The scale at time `t`, 0 (noise) to 1 (image); `None` where guidance is off.
    pub fn scale_at(self, t: f64) -> Option<f64> {
        let truncated = self.truncation <= 1.0 && t > self.truncation;
        (self.is_on() && !truncated).then_some(self.scale)
    }

    /// The cap on the velocity's norm, as a multiple of the prompt's own.
    pub fn normalization(self) -> Option<f64> {
        (self.normalization > 0.0).then_some(self.normalization)
    }

    /// The scale that was asked for.
    pub fn scale(self) -> f64 {
        self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_selects_the_reference_s_first_step() {
        let cases = [
            (8, 0.01, 7),
            (8, 0.3, 5),
            (8, 0.6, 3),
            (8, 1.0, 0),
            (5, 0.6, 2),
            (6, 0.6, 2),
            (5, 0.8, 1),
        ];
        for (steps, strength, want) in cases {
            let steps = Steps::new(steps).unwrap();
            assert_eq!(
                Strength::new(strength).unwrap().first_step(steps),
                Ok(want),
                "{steps:?} {strength}"
            );
        }
    }

    #[test]
    fn values_out_of_range_name_themselves() {
        let errors = [
            Steps::new(0).unwrap_err(),
            Steps::new(201).unwrap_err(),
            Strength::new(1.5).unwrap_err(),
            Strength::new(f64::NAN).unwrap_err(),
            Strength::new(0.0).unwrap().first_step(Steps::new(8).unwrap()).unwrap_err(),
            Count::new(0).unwrap_err(),
            Guidance::new(-1.0, 0.0, 1.0).unwrap_err(),
            Guidance::new(1.0, f64::INFINITY, 1.0).unwrap_err(),
            Guidance::new(1.0, 0.0, -0.5).unwrap_err(),
        ];
        let want = [
            "`steps` is 0; a picture takes at least 1 step",
            "`steps` is 201; the most is 200",
            "`strength` is 1.5; it must lie between 0 and 1",
            "`strength` is NaN; it must lie between 0 and 1",
            "`strength` is 0 and leaves none of 8 steps to run; raise it above 0",
            "`count` is 0; ask for at least 1 picture",
            "`guidance_scale` is -1; it must lie between 0 and 100",
            "`cfg_normalization` is inf; it must lie between 0 and 100",
            "`cfg_truncation` is -0.5; it must be 0 or more",
        ];
        for (error, want) in errors.iter().zip(want) {
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn guidance_ends_where_it_is_truncated() {
        let on = Guidance::new(4.0, 0.0, 0.4).unwrap();
        assert_eq!((on.scale_at(0.4), on.scale_at(0.41)), (Some(4.0), None));
        assert_eq!(Guidance::new(4.0, 0.0, 1.0).unwrap().scale_at(1.0), Some(4.0));
        assert_eq!(Guidance::OFF.scale_at(0.0), None);
    }
}

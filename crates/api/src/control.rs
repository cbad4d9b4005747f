//! How a control network works on a picture.

use std::ops::Range;

use crate::InvalidField;

/// How strongly a control network works, and in which share of the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControlSpan {
    scale: f64,
    start: f64,
    end: f64,
}

impl ControlSpan {
    /// The most that its results are multiplied with; beyond about 1 pictures fall apart.
    pub const SCALE_MAX: f64 = 10.0;

    /// Results times `scale`, in steps that lie between the shares `start` and `end` of the way, 0 to 1.
    pub fn new(scale: f64, start: f64, end: f64) -> Result<Self, InvalidField> {
        let most = Self::SCALE_MAX;
        if !(0.0..=most).contains(&scale) {
            let problem = format!("is {scale}; it must lie between 0 and {most}");
            return Err(InvalidField::new("control_scale", problem));
        }
        for (field, share) in [("control_start", start), ("control_end", end)] {
            if !(0.0..=1.0).contains(&share) {
                let problem = format!("is {share}; it must lie between 0 and 1");
                return Err(InvalidField::new(field, problem));
            }
        }
        if start > end {
            let problem = format!("is {start}, after `control_end`, which is {end}");
            return Err(InvalidField::new("control_start", problem));
        }
        Ok(Self { scale, start, end })
    }

    /// What results are multiplied with.
    pub fn scale(self) -> f64 {
        self.scale
    }

    /// Those of `steps` steps in which the network works: the ones that lie wholly between start and end, as diffusers has it.
    pub fn steps(self, steps: usize) -> Range<usize> {
        let share = |step: usize| step as f64 / steps as f64;
        let works = |step: &usize| share(*step) >= self.start && share(step + 1) <= self.end;
        let first = (0..steps).find(works).unwrap_or(steps);
        first..(first..steps).take_while(works).last().map_or(first, |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_in_the_steps_that_lie_wholly_between_its_ends() {
        let cases = [
            ((0.0, 1.0), 8, 0..8),
            ((0.0, 0.8), 8, 0..6),
            ((0.25, 0.75), 8, 2..6),
            ((0.3, 0.6), 10, 3..6),
            ((0.9, 1.0), 4, 4..4),
            ((0.5, 0.5), 2, 2..2),
        ];
        for ((start, end), steps, want) in cases {
            let got = ControlSpan::new(0.75, start, end).unwrap().steps(steps);
            // Where an empty range begins tells nothing.
            let same = got == want || got.is_empty() && want.is_empty();
            assert!(same, "{start} {end} {steps}: {got:?}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let problem =
            |scale, start, end| ControlSpan::new(scale, start, end).unwrap_err().to_string();
        assert_eq!(problem(-1.0, 0.0, 1.0), "`control_scale` is -1; it must lie between 0 and 10");
        assert_eq!(problem(1.0, 0.0, 1.5), "`control_end` is 1.5; it must lie between 0 and 1");
        assert_eq!(
            problem(1.0, 0.6, 0.5),
            "`control_start` is 0.6, after `control_end`, which is 0.5"
        );
        assert!(ControlSpan::new(f64::NAN, 0.0, 1.0).is_err());
    }
}

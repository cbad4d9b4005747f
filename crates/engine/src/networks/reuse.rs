//! What steps leave for those after them, so that some need not be computed in full.
//!
//! Between neighbouring times, what the layers after the first add to the stream changes nearly along a line (first-block
//! caching, with a first-order Taylor prediction as TaylorSeer has it; Liu et al., 2025). The first layer is always
//! computed: it takes in the new latents, and tells how far the stream has moved since the last step in full.

use candle_core::Tensor;

use crate::Result;

/// How far the stream may have moved for a prediction, relative to its length. The 8 steps of Turbo's schedule move it by 0.06 to
/// 0.15 a step, 4 steps by more than this.
const MOVED_MAX: f32 = 0.2;

/// What the last steps of one batch computed.
#[derive(Clone, Default)]
pub struct Past {
    /// At most two, the last one last.
    steps: Vec<Known>,
    /// The stream after the first layer at the last step in full.
    entered: Option<Tensor>,
    /// Whether the step before was predicted: two in a row never are.
    predicted: bool,
    /// Whether a control network worked in these steps.
    guided: bool,
}

#[derive(Clone)]
struct Known {
    t: f64,
    /// What the layers after the first added.
    added: Tensor,
}

impl Past {
    /// Forgets steps with a control network where there is none now, and the other way round: they tell nothing of each other.
    pub(super) fn keep_apart(&mut self, guided: bool) {
        if self.guided != guided {
            *self = Self { guided, ..Self::default() };
        }
    }

    /// What the layers after the first would add at time `t` to `entered`, where the steps before tell it.
    pub(super) fn predict(&mut self, t: f64, entered: &Tensor) -> Result<Option<Tensor>> {
        let (Some(last), [first, second]) = (&self.entered, &self.steps[..]) else {
            return Ok(None);
        };
        if self.predicted || moved(last, entered)? > MOVED_MAX {
            return Ok(None);
        }
        self.predicted = true;
        let along = (t - second.t) / (second.t - first.t);
        Ok(Some((&second.added + ((&second.added - &first.added)? * along)?)?))
    }

    /// Remembers a step in full: what entered the layers after the first, and what left them.
    pub(super) fn record(&mut self, t: f64, entered: &Tensor, left: &Tensor) -> Result<()> {
        if self.steps.len() == 2 {
            self.steps.remove(0);
        }
        self.steps.push(Known { t, added: (left - entered)? });
        self.entered = Some(entered.clone());
        self.predicted = false;
        Ok(())
    }
}

/// The distance of `b` from `a`, relative to the length of `a`.
fn moved(a: &Tensor, b: &Tensor) -> Result<f32> {
    let square = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f32>();
    Ok((square(&(b - a)?)? / square(a)?).sqrt())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn stream(values: [f32; 2]) -> Tensor {
        Tensor::new(&values, &Device::Cpu).unwrap()
    }

    /// What is added runs along 3 + 10 · t in both values.
    fn step(past: &mut Past, t: f64, entered: &Tensor) -> Option<Vec<f32>> {
        let predicted = past.predict(t, entered).unwrap();
        if predicted.is_none() {
            let left = (entered + (3.0 + 10.0 * t)).unwrap();
            past.record(t, entered, &left).unwrap();
        }
        predicted.map(|p| p.to_vec1().unwrap())
    }

    #[test]
    fn every_second_step_from_the_third_on_is_predicted_along_the_line() {
        let (mut past, still) = (Past::default(), stream([1.0, 2.0]));
        let predicted = [0.0, 0.1, 0.2, 0.4, 0.5].map(|t| step(&mut past, t, &still));
        let [None, None, Some(third), None, Some(fifth)] = predicted else {
            panic!("{predicted:?}")
        };
        for (got, want) in [(third, 5.0), (fifth, 8.0)] {
            assert!(got.iter().all(|v| (v - want).abs() < 1e-5), "{got:?} {want}");
        }
    }

    #[test]
    fn a_stream_that_moved_far_is_computed() {
        let mut past = Past::default();
        step(&mut past, 0.0, &stream([1.0, 0.0]));
        step(&mut past, 0.1, &stream([1.0, 0.0]));
        assert!(step(&mut past, 0.2, &stream([1.3, 0.0])).is_none());
        // The distance is from the last step in full.
        assert!(step(&mut past, 0.3, &stream([1.4, 0.0])).is_some());
    }
}

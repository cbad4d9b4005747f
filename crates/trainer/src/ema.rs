//! The adapter averaged over its updates, which is steadier than the last of them.

/// A running average.
pub(crate) struct Average {
    decay: f64,
    updates: f64,
    values: Vec<Vec<f32>>,
}

impl Average {
    /// Begins at `values`.
    pub(crate) fn new(decay: f64, values: &[Vec<f32>]) -> Self {
        Self { decay, updates: 0.0, values: values.to_vec() }
    }

    /// Takes the values after an update in. Early ones count less, as the first were not worth keeping: the decay begins at 2/11.
    pub(crate) fn update(&mut self, values: &[Vec<f32>]) {
        self.updates += 1.0;
        let decay = self.decay.min((1.0 + self.updates) / (10.0 + self.updates));
        let share = (1.0 - decay) as f32;
        for (average, values) in self.values.iter_mut().zip(values) {
            average.iter_mut().zip(values).for_each(|(a, v)| *a += share * (v - *a));
        }
    }

    /// The averages, a list for each tensor.
    pub(crate) fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// How many updates were taken in.
    pub(crate) fn updates(&self) -> f64 {
        self.updates
    }

    /// Puts a saved average in place.
    pub(crate) fn restore(&mut self, values: Vec<Vec<f32>>, updates: f64) {
        (self.values, self.updates) = (values, updates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_and_forget() {
        let mut average = Average::new(0.99, &[vec![0.0]]);
        average.update(&[vec![1.0]]);
        assert!((average.values()[0][0] - 9.0 / 11.0).abs() < 1e-6);
        (0..2000).for_each(|_| average.update(&[vec![3.0]]));
        assert!((average.values()[0][0] - 3.0).abs() < 1e-4);
    }
}

//! A training's log, read back into numbers: the loss by step, and the samples.

use zoetrope_jobs::LogLine;

/// What the log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Updates and their losses, in their order.
    pub(super) losses: Vec<(u64, f64)>,
    /// Updates in all.
    pub(super) of: u64,
    /// What is left, as the trainer says it.
    pub(super) left: String,
    /// Updates after which a picture was drawn, and its address.
    pub(super) samples: Vec<(u64, String)>,
}

impl Told {
    /// What `lines` say. After a worker was lost steps are told again; the last word counts.
    pub(super) fn of(lines: &[LogLine]) -> Self {
        let mut told = Self::default();
        for line in lines {
            if let Some((step, of, loss, left)) = step(&line.message) {
                told.losses.retain(|(known, _)| *known < step);
                told.losses.push((step, loss));
                (told.of, told.left) = (of, left);
            } else if let Some((step, url)) = sample(&line.message) {
                told.samples.retain(|(known, _)| *known != step);
                told.samples.push((step, url.into()));
            }
        }
        told.samples.sort_by_key(|(step, _)| *step);
        told
    }

    /// The last update.
    pub(super) fn step(&self) -> u64 {
        self.losses.last().map_or(0, |(step, _)| *step)
    }

    /// The losses in at most `most` groups of neighbouring updates: the last update of each, its mean, and the mean of all so far with
    /// what is long past forgotten.
    pub(super) fn means(&self, most: usize) -> Vec<(u64, f64, f64)> {
        let each = (self.step() as usize).div_ceil(most.max(1)).max(1) as u64;
        let mut groups: Vec<(u64, u64, f64, f64)> = Vec::new(); // number, last update, sum, count
        for (step, loss) in &self.losses {
            let number = (step - 1) / each;
            match groups.last_mut().filter(|group| group.0 == number) {
                Some(group) => (group.1, group.2, group.3) = (*step, group.2 + loss, group.3 + 1.0),
                None => groups.push((number, *step, *loss, 1.0)),
            }
        }
        let mut smooth = None;
        let mean = |(_, step, sum, count): &(u64, u64, f64, f64)| {
            let mean = sum / count;
            let before = smooth.unwrap_or(mean);
            smooth = Some(before + SMOOTHING * (mean - before));
            (*step, mean, smooth.unwrap_or(mean))
        };
        groups.iter().map(mean).collect()
    }
}

/// How much of each group's mean the smooth line takes: about ten groups are remembered.
const SMOOTHING: f64 = 0.2;

/// `Step 7/1000: loss 0.2500, learning rate 1.00e-4, 1.50 s, 90 min left`
fn step(line: &str) -> Option<(u64, u64, f64, String)> {
    let (place, rest) = line.strip_prefix("Step ")?.split_once(": loss ")?;
    let (step, of) = place.split_once('/')?;
    let mut parts = rest.split(", ");
    let loss: f64 = parts.next()?.parse().ok()?;
    let left = parts.find_map(|part| part.strip_suffix(" left")).unwrap_or_default();
    Some((step.parse().ok().filter(|step| *step > 0)?, of.parse().ok()?, loss, left.into()))
}

/// `Sample after 25 of 100 steps: http://…/files/…`
fn sample(line: &str) -> Option<(u64, &str)> {
    let (step, rest) = line.strip_prefix("Sample after ")?.split_once(" of ")?;
    let (_, url) = rest.split_once(" steps: ")?;
    Some((step.parse().ok()?, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<LogLine> {
        let line = |(number, text): (usize, &&str)| LogLine {
            number: number as i64,
            at_ms: 0,
            level: "INFO".into(),
            message: text.to_string(),
        };
        texts.iter().enumerate().map(line).collect()
    }

    #[test]
    fn the_trainer_s_own_lines_are_understood() {
        let told = Told::of(&lines(&[
            "Encoded 10 of 10 pictures",
            "Sample after 0 of 1000 steps: http://here/files/0/a.jpeg",
            "Step 1/1000: loss 0.5000, learning rate 1.00e-4, 1.50 s, 25 min left",
            "Step 2/1000: loss 0.2500, learning rate 1.00e-4, 1.50 s",
            "Step 3/1000: loss NaN, learning rate 1.00e-4",
            "Step of a dance",
            "Sample after 250 of 1000 steps: http://here/files/1/b.jpeg",
        ]));
        assert_eq!(told.losses[..2], [(1, 0.5), (2, 0.25)]);
        assert!(told.losses[2].1.is_nan());
        assert_eq!((told.of, told.left.as_str(), told.step()), (1000, "", 3));
        let steps: Vec<u64> = told.samples.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [0, 250]);
    }

    #[test]
    fn what_was_done_again_is_told_once() {
        let step = |n: u64, loss: f64| {
            format!("Step {n}/9: loss {loss:.4}, learning rate 1.00e-4, 1.00 s, 5 s left")
        };
        let texts = [step(1, 0.5), step(2, 0.4), step(3, 0.3), step(2, 0.39)];
        let told = Told::of(&lines(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(told.losses, [(1, 0.5), (2, 0.39)]);
        assert_eq!(told.left, "5 s");
    }

    #[test]
    fn long_trainings_are_drawn_in_few_points_whose_mean_is_theirs() {
        let told = Told { losses: (1..=1000).map(|n| (n, n as f64)).collect(), ..Told::default() };
        let means = told.means(100);
        assert_eq!(means.len(), 100);
        assert_eq!((means[0].0, means[0].1), (10, 5.5));
        assert_eq!((means[99].0, means[99].1), (1000, 995.5));
        assert!(means[99].2 < 995.5 && means[99].2 > 900.0);
        assert_eq!(Told::default().means(100), []);
    }
}

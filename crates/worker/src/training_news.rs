//! What a training says while it runs: lines of the request's log, and pictures for those who watch.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use zoetrope_api::task::Train;
use zoetrope_engine::pipeline::PREVIEW_SIDE;
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::{Format, Picture};
use zoetrope_jobs::{Lease, Preview};
use zoetrope_trainer::{Event, Listener, Update};

use crate::attempt::Room;
use crate::error::JobError;
use crate::generate::{data_uri, picture_of};
use crate::outputs;
use crate::safety::Looking;

/// What is told of a training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// A line of the log.
    Line(&'static str, String),
    /// What the adapter draws after so many updates.
    Sample(usize, Rgb),
}

/// The first updates, each of which is told.
const FIRST: usize = 10;
/// About how many of the others are.
const LINES: usize = 480;
/// Notes about the pictures that are told; a thousand small pictures would be a thousand lines.
const NOTES: usize = 50;
/// Lines while captions or pictures are encoded.
const PARTS: usize = 10;

/// Hears of a training, and passes on what its sender may want to know.
pub(crate) fn listener(news: &mpsc::UnboundedSender<News>) -> Listener {
    let (news, told) = (news.clone(), Mutex::new(Told::default()));
    Arc::new(move |event: Event| {
        let item = match event {
            Event::Sample { step, picture, .. } => Some(News::Sample(step, picture.clone())),
            event => told.lock().expect("nothing panics while it is held").line(event),
        };
        if let Some(item) = item {
            let _ = news.send(item); // nobody listens any more once the request has ended
        }
    })
}

/// What was told so far.
#[derive(Default)]
struct Told {
    component: &'static str,
    notes: usize,
}

impl Told {
    fn line(&mut self, event: Event) -> Option<News> {
        let info = |text: String| Some(News::Line("INFO", text));
        match event {
            Event::Loading { component, of, .. } => {
                let new = std::mem::replace(&mut self.component, component) != component;
                new.then(|| format!("Loading the {component} ({:.1} GB)", of as f64 / 1e9))
                    .and_then(info)
            }
            Event::Note(text) => {
                self.notes += 1;
                match self.notes {
                    ..=NOTES => Some(News::Line("WARN", text.into())),
                    n if n == NOTES + 1 => info("More of this kind is not told".into()),
                    _ => None,
                }
            }
            Event::Preparing { what, done, of } => {
                let told = done == of || done > 0 && done % of.div_ceil(PARTS) == 0;
                told.then(|| format!("Encoded {done} of {of} {what}")).and_then(info)
            }
            Event::Memory(memory) => {
                info(format!("Training takes at most {:.1} GB", memory.total() as f64 / 1e9))
            }
            Event::Resumed { step } => info(format!("Goes on after step {step}")),
            Event::Step(update) if is_told(update) => info(step(update)),
            Event::Step(_) | Event::Saved { .. } | Event::Sample { .. } => None,
        }
    }
}

/// Whether an update gets a line: the first, the last, and evenly many between.
fn is_told(update: &Update) -> bool {
    let Update { step, of, .. } = *update;
    step <= FIRST || step == of || step % of.div_ceil(LINES) == 0
}

fn step(update: &Update) -> String {
    let Update { step, of, loss, rate, seconds, seconds_left, .. } = *update;
    let left = match seconds_left.round() as u64 {
        0 => String::new(),
        left @ 1..120 => format!(", {left} s left"),
        left @ 120..7200 => format!(", {} min left", left / 60),
        left => format!(", {} h {} min left", left / 3600, left % 3600 / 60),
    };
    format!("Step {step}/{of}: loss {loss:.4}, learning rate {rate:.2e}, {seconds:.2} s{left}")
}

/// Passes on what is heard, until there is nothing more. What cannot be written is lost: the adapter counts.
pub(crate) async fn report(
    task: &Train,
    (lease, room): (&Lease, &Room),
    looking: &Looking<'_>,
    mut heard: mpsc::UnboundedReceiver<News>,
) {
    while let Some(news) = heard.recv().await {
        let said = match news {
            News::Line(level, text) => lease.log(level, &text).await.map_err(JobError::from),
            News::Sample(step, rgb) => match looking.at_preview(picture_of(rgb)).await {
                Some(seen) => sample(task, (step, seen), lease, room).await,
                None => Err(JobError::Engine("the safety checker failed on a sample".into())),
            },
        };
        if let Err(error) = said {
            tracing::warn!(request = %lease.request.id, %error, "progress could not be written");
        }
    }
}

/// Stores a picture that was drawn on the way and tells its address; who watches sees it smaller.
async fn sample(
    task: &Train,
    (step, (picture, flagged)): (usize, (Picture, bool)),
    lease: &Lease,
    room: &Room,
) -> Result<(), JobError> {
    let shrink = (PREVIEW_SIDE as f64 / f64::from(picture.width.max(picture.height))).min(1.0);
    let side = |side: u32| ((f64::from(side) * shrink).round() as u32).max(1);
    let small = picture.resized(side(picture.width), side(picture.height));
    let bytes = zoetrope_files::encode(&picture, Format::Jpeg, None);
    let bytes = bytes.map_err(|e| JobError::Engine(e.to_string()))?;
    let name = format!("{}-step-{step}.jpeg", lease.request.id);
    let url = outputs::keep(&name, bytes, task.keep_seconds, lease, room).await?;
    lease.log("INFO", &format!("Sample after {step} of {} steps: {url}", task.steps)).await?;
    if flagged {
        let line = "The safety checker found this sample unsafe: replaced by black";
        lease.log("WARN", line).await?;
    }
    if step > 0
        && let Some(picture) = data_uri(&small)
    {
        let of = i64::from(task.steps);
        lease.preview(&Preview { step: step as i64, of, picture }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(step: usize, of: usize) -> Update {
        Update { step, of, loss: 0.25, rate: 1e-4, norm: 1.0, seconds: 1.5, seconds_left: 5400.0 }
    }

    #[test]
    fn a_long_training_has_no_more_than_five_hundred_lines_of_steps() {
        for (of, want) in [(100, 100..=100), (1000, 300..=500), (10_000, 450..=500)] {
            let told: Vec<usize> = (1..=of).filter(|step| is_told(&update(*step, of))).collect();
            assert!(want.contains(&told.len()), "{of}: {}", told.len());
            assert_eq!((&told[..10], told.last()), (&(1..=10).collect::<Vec<_>>()[..], Some(&of)));
        }
        let line = "Step 7/1000: loss 0.2500, learning rate 1.00e-4, 1.50 s, 90 min left";
        assert_eq!(step(&update(7, 1000)), line);
    }

    #[test]
    fn what_repeats_is_told_once_and_notes_end() {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let on = listener(&sender);
        for read in 0..3 {
            on(Event::Loading { component: "VAE", read, of: 2_000_000_000 });
        }
        for _ in 0..100 {
            on(Event::Note("a.png: is small"));
        }
        for done in 0..=100 {
            on(Event::Preparing { what: "pictures", done, of: 100 });
        }
        drop((on, sender));
        let mut lines = Vec::new();
        while let Ok(News::Line(_, text)) = heard.try_recv() {
            lines.push(text);
        }
        assert_eq!(lines.len(), 1 + NOTES + 1 + PARTS);
        assert_eq!(lines[0], "Loading the VAE (2.0 GB)");
        assert_eq!(lines.last().unwrap(), "Encoded 100 of 100 pictures");
    }
}

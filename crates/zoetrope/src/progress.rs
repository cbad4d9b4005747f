//! What is going on, on a terminal; a pipe stays quiet.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use zoetrope_engine::pipeline::{Event, Listener};
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::Picture;
use zoetrope_trainer::{Event as Training, Update};
use zoetrope_worker::Checker;

use crate::terminal::Terminal;

/// A bar on standard error, hidden where that is no terminal; with `previews`, pictures of the steps above it on that terminal, but for those
/// that `checker` finds unsafe.
pub(crate) fn listener(
    previews: Option<Terminal>,
    checker: Option<Checker>,
) -> (ProgressBar, Listener) {
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    let shown = bar.clone();
    let on = move |event: Event| match event {
        Event::Preview { picture, .. } => {
            if let Some(terminal) = previews
                && may_be_seen(picture, checker.as_ref())
            {
                shown.suspend(|| terminal.preview(picture));
            }
        }
        event => show(&shown, event),
    };
    (bar, Arc::new(on))
}

/// What nobody could look at is not shown.
fn may_be_seen(picture: &Rgb, checker: Option<&Checker>) -> bool {
    let Some(checker) = checker else { return true };
    let (width, height) = (picture.width as u32, picture.height as u32);
    let seen = checker.look(&[Picture { width, height, rgb: picture.bytes.clone() }]);
    seen.is_ok_and(|flagged| flagged == [false])
}

fn show(bar: &ProgressBar, event: Event) {
    match event {
        Event::Loading { component, read, of } => {
            bar.set_style(style("{msg:28} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {eta}"));
            bar.set_message(format!("reading the {component}"));
            bar.set_length(of);
            bar.set_position(read);
        }
        Event::Step { done, of, .. } => {
            bar.set_style(style("{msg:28} {wide_bar:.cyan/dim} {pos}/{len} {eta}"));
            bar.set_message("drawing");
            if done == 1 {
                bar.reset_eta();
            }
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        Event::Words { .. } => {
            bar.set_style(style("{msg:28} {spinner}"));
            bar.set_message("expanding the prompt");
        }
        Event::Preview { .. } => {}
        Event::Decoding => bar.set_message("developing"),
        Event::Note { text } => bar.suspend(|| eprintln!("note: {text}")),
        Event::PromptCut { tokens } => {
            bar.suspend(|| {
                eprintln!("note: the prompt is too long; its last {tokens} tokens are cut off")
            });
        }
    }
}

/// The same for a training; where there is no terminal, a line now and then tells how far it is.
pub(crate) fn training() -> (ProgressBar, zoetrope_trainer::Listener) {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    let shown = bar.clone();
    let told = Mutex::new(None::<Instant>);
    let on = move |event: Training| match event {
        Training::Step(update) if !terminal => {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let due = told.is_none_or(|told| told.elapsed() > LINES_APART);
            if due || update.step == update.of {
                *told = Some(Instant::now());
                eprintln!("{}", told_update(update));
            }
        }
        event => show_training(&shown, event),
    };
    (bar, Arc::new(on))
}

/// Between two lines of a training.
const LINES_APART: Duration = Duration::from_secs(20);

fn told_update(update: &Update) -> String {
    let Update { step, of, loss, rate, seconds, .. } = update;
    format!("update {step} of {of}: loss {loss:.4}, rate {rate:.2e}, {seconds:.2} s")
}

fn show_training(bar: &ProgressBar, event: Training) {
    let say = |text: &str| bar.suspend(|| eprintln!("{text}"));
    match event {
        Training::Note(text) => say(&format!("note: {text}")),
        Training::Loading { component, read, of } => {
            show(bar, Event::Loading { component, read, of });
        }
        Training::Preparing { what, done, of } => {
            bar.set_style(style("{msg:28} {wide_bar:.cyan/dim} {pos}/{len} {eta}"));
            bar.set_message(format!("encoding {what}"));
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        Training::Memory(memory) => {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            say(&format!(
                "needs up to {:.2} GB of memory: {:.2} for the frozen weights, {:.2} for the adapter, {:.2} for gradients",
                gigabytes(memory.total()),
                gigabytes(memory.weights),
                gigabytes(memory.adapter),
                gigabytes(memory.activations)
            ));
        }
        Training::Resumed { step } => say(&format!("goes on after {step} updates")),
        Training::Step(update) => {
            bar.set_style(style("{msg:28} {wide_bar:.cyan/dim} {pos}/{len} {eta}"));
            bar.set_message(format!("loss {:.4}", update.loss));
            bar.set_length(update.of as u64);
            bar.set_position(update.step as u64);
        }
        Training::Sample { .. } | Training::Saved { .. } => {}
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is ours")
}

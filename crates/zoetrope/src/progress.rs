//! What is going on, on a terminal; a pipe stays quiet.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use zoetrope_engine::pipeline::{Event, Listener};

/// A bar on standard error, hidden where that is no terminal.
pub(crate) fn listener() -> (ProgressBar, Listener) {
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    let shown = bar.clone();
    let on = move |event: Event| show(&shown, event);
    (bar, Arc::new(on))
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is ours")
}

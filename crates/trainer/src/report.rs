//! What a run tells about itself in its folder: every update as a line of JSON, and a page with the loss and the samples.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::{Format, Picture};

use crate::job::Update;
use crate::{Error, Result};

/// The lines and the page of a run.
pub(crate) struct Report {
    folder: PathBuf,
    title: String,
    settings: Vec<(String, String)>,
    losses: Vec<(usize, f64)>,
    seconds: f64,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    step: usize,
    prompt: String,
    /// Beside the page.
    file: String,
}

/// A line of `events.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Step { step: usize, loss: f64, rate: f64, norm: f64, seconds: f64 },
    Sample(Sample),
}

impl Line {
    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Sample(Sample { step, .. }) => *step,
        }
    }
}

const EVENTS: &str = "events.jsonl";
const PAGE: &str = "report.html";

impl Report {
    /// Goes on after `step` updates: lines of later ones, which will be made again, are dropped.
    pub(crate) fn open(
        folder: &Path,
        step: usize,
        title: String,
        settings: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut report = Self {
            folder: folder.into(),
            title,
            settings,
            losses: Vec::new(),
            seconds: 0.0,
            samples: Vec::new(),
        };
        let path = folder.join(EVENTS);
        let before = match fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|source| Error::File { path: path.clone(), source })?,
        };
        let mut kept = String::new();
        for text in before.lines() {
            // A line that was cut by a kill is one of an update that will be made again.
            let Ok(line) = serde_json::from_str::<Line>(text) else { continue };
            if line.step() <= step {
                kept += text;
                kept.push('\n');
                report.take(line);
            }
        }
        zoetrope_files::write(&path, kept.as_bytes())?;
        Ok(report)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Step { step, loss, seconds, .. } => {
                self.losses.push((step, loss));
                self.seconds += seconds;
            }
            // One that was drawn again after a kill took the place of the first.
            Line::Sample(sample) => {
                self.samples.retain(|s| s.file != sample.file);
                self.samples.push(sample);
            }
        }
    }

    fn tell(&mut self, line: Line) -> Result<()> {
        let path = self.folder.join(EVENTS);
        let failed = |source| Error::File { path: path.clone(), source };
        let text = serde_json::to_string(&line).map_err(|e| Error::data(path.display(), e))?;
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        writeln!(file, "{text}").map_err(failed)?;
        self.take(line);
        Ok(())
    }

    /// An update was made.
    pub(crate) fn update(&mut self, update: &Update) -> Result<()> {
        let Update { step, loss, rate, norm, seconds, .. } = *update;
        self.tell(Line::Step { step, loss, rate, norm, seconds })
    }

    /// Picture `index` was drawn after `step` updates.
    pub(crate) fn sample(
        &mut self,
        step: usize,
        index: usize,
        prompt: &str,
        picture: &Rgb,
    ) -> Result<()> {
        let file = format!("samples/step-{step:07}-{}.png", index + 1);
        let folder = self.folder.join("samples");
        fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder, source })?;
        let Rgb { width, height, bytes } = picture.clone();
        let picture = Picture { width: width as u32, height: height as u32, rgb: bytes };
        let bytes = zoetrope_files::encode(&picture, Format::Png, None)?;
        zoetrope_files::write(&self.folder.join(&file), &bytes)?;
        self.tell(Line::Sample(Sample { step, prompt: prompt.into(), file }))
    }

    /// Writes the page.
    pub(crate) fn write(&self) -> Result<()> {
        Ok(zoetrope_files::write(&self.folder.join(PAGE), self.page().as_bytes())?)
    }

    fn page(&self) -> String {
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>",
            title = escaped(&self.title)
        );
        if let Some((step, _)) = self.losses.last() {
            let _ = write!(page, "<p>{step} updates in {}.</p>", duration(self.seconds));
            page += &curve(&self.losses);
        }
        let mut prompts: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !prompts.contains(&sample.prompt.as_str()) {
                prompts.push(&sample.prompt);
            }
        }
        for prompt in prompts {
            let _ = write!(page, "<h2>{}</h2><div class=\"row\">", escaped(prompt));
            for Sample { step, file, .. } in self.samples.iter().filter(|s| s.prompt == prompt) {
                let _ = write!(
                    page,
                    "<figure><img src=\"{file}\" alt=\"after {step} updates\" loading=\"lazy\"><figcaption>{step}</figcaption></figure>"
                );
            }
            page += "</div>";
        }
        page += "<h2>Settings</h2><table>";
        for (name, value) in &self.settings {
            let _ = write!(page, "<tr><th>{}<td>{}", escaped(name), escaped(value));
        }
        page + "</table></html>\n"
    }
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1rem;margin-top:2rem}.row{display:flex;gap:.75rem;overflow-x:auto}figure{margin:0}\
img{display:block;max-height:16rem;border-radius:.3rem}figcaption,th{opacity:.7;font-weight:normal;text-align:left;padding-right:1rem}\
svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor;opacity:.7}";

/// Loss by update as a picture: all values faint, their running mean strong. The axis begins at 0.
fn curve(losses: &[(usize, f64)]) -> String {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 240.0;
    let last = losses.last().map_or(1, |(step, _)| *step).max(1) as f64;
    let mut sorted: Vec<f64> = losses.iter().map(|(_, loss)| *loss).collect();
    sorted.sort_by(f64::total_cmp);
    // A few wild values shall not flatten the rest.
    let top = sorted[(sorted.len() - 1) * 99 / 100] * 1.1 + f64::MIN_POSITIVE;
    let point = |(step, loss): (usize, f64)| {
        let (x, y) = (step as f64 / last * WIDTH, HEIGHT - (loss / top).min(1.0) * HEIGHT);
        format!("{x:.1},{y:.1} ")
    };
    let every = losses.len().div_ceil(2000);
    let raw: String = losses.iter().step_by(every).copied().map(point).collect();
    let (mut sum, mut weight) = (0.0, 0.0);
    let smoothed = losses.iter().map(|(step, loss)| {
        (sum, weight) = (0.95 * sum + loss, 0.95 * weight + 1.0);
        (*step, sum / weight)
    });
    let smoothed: String = smoothed.step_by(every).map(point).collect();
    format!(
        "<svg viewBox=\"-60 -10 980 280\" role=\"img\" aria-label=\"loss by update\">\
         <path d=\"M0 0V{HEIGHT}H{WIDTH}\" fill=\"none\" stroke=\"currentColor\" opacity=\".3\"/>\
         <polyline points=\"{raw}\" fill=\"none\" stroke=\"currentColor\" opacity=\".2\"/>\
         <polyline points=\"{smoothed}\" fill=\"none\" stroke=\"#2a7de1\" stroke-width=\"2\"/>\
         <text x=\"-8\" y=\"8\" text-anchor=\"end\">{top:.3}</text><text x=\"-8\" y=\"{HEIGHT}\" text-anchor=\"end\">0</text>\
         <text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">update {last}</text></svg>",
        HEIGHT + 18.0
    )
}

fn duration(seconds: f64) -> String {
    match seconds as u64 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(step: usize) -> Update {
        Update { step, of: 9, loss: 0.5, rate: 1e-4, norm: 1.0, seconds: 40.0, seconds_left: 0.0 }
    }

    fn open(folder: &Path, step: usize) -> Report {
        let settings = vec![("rank".to_string(), "<16>".to_string())];
        Report::open(folder, step, "ink & red".into(), settings).unwrap()
    }

    #[test]
    fn a_resumed_run_has_every_update_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = open(folder.path(), 0);
        let picture = Rgb { width: 2, height: 1, bytes: vec![9; 6] };
        report.sample(0, 0, "a <b>", &picture).unwrap();
        (1..=5).for_each(|step| report.update(&update(step)).unwrap());
        fs::write(folder.path().join(EVENTS), {
            fs::read_to_string(folder.path().join(EVENTS)).unwrap() + "{\"event\":\"st"
        })
        .unwrap();
        let mut report = open(folder.path(), 3);
        report.update(&update(4)).unwrap();
        let lines = fs::read_to_string(folder.path().join(EVENTS)).unwrap();
        let steps: Vec<_> =
            lines.lines().map(|l| serde_json::from_str::<Line>(l).unwrap().step()).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4]);
        report.write().unwrap();
        let page = fs::read_to_string(folder.path().join(PAGE)).unwrap();
        for part in [
            "ink &amp; red",
            "a &lt;b&gt;",
            "samples/step-0000000-1.png",
            "2 min 40 s",
            "&lt;16&gt;",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}

//! The prompts of `zoetrope generate`: what was typed, a file with one a line, and wildcards in them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What was typed of them.
#[derive(clap::Args)]
#[group(id = "prompts")]
pub(crate) struct Args {
    /// What the picture shall show; `-` reads it from standard input.
    #[arg(required_unless_present = "batch")]
    prompt: Option<String>,
    /// A file with a prompt a line; empty lines and those that begin with # are left out.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    batch: Option<PathBuf>,
    /// Replace {a|b} by one of them, and __NAME__ by a line of DIR/NAME.txt; the seed decides which.
    #[arg(long, value_name = "DIR")]
    wildcards: Option<PathBuf>,
}

/// The most that is read as a prompt: far more than the 512 tokens that count, and little enough to be harmless.
const PROMPT_BYTES_MAX: u64 = 1 << 20;
/// The most that is read of a file of prompts or wildcards.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Wildcards in wildcards, and so on: more are taken for files that name each other.
const DEPTH_MAX: usize = 8;
/// The most that wildcards make of a prompt.
const EXPANDED_BYTES_MAX: usize = 64 << 10;

impl Args {
    /// The prompts as they were written, at least one.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<String>> {
        let Some(file) = &self.batch else {
            return Ok(vec![typed(self.prompt.as_deref().unwrap_or_default())?]);
        };
        let lines = lines(file).with_context(|| format!("--batch {}", file.display()))?;
        if lines.is_empty() {
            bail!("--batch {}: there is no prompt in it", file.display());
        }
        Ok(lines)
    }

    /// Whether prompts have wildcards, so that each picture has a prompt of its own.
    pub(crate) fn have_wildcards(&self) -> bool {
        self.wildcards.is_some()
    }

    /// `prompt` with its wildcards replaced as `seed` decides.
    pub(crate) fn expanded(&self, prompt: &str, seed: u64) -> anyhow::Result<String> {
        match &self.wildcards {
            None => Ok(prompt.into()),
            Some(folder) => Dice { folder, state: seed }.expand(prompt, 0),
        }
    }
}

fn typed(typed: &str) -> anyhow::Result<String> {
    if typed != "-" {
        return Ok(typed.into());
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(PROMPT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .context("the prompt on standard input")?;
    if bytes.len() as u64 > PROMPT_BYTES_MAX {
        bail!("the prompt on standard input is longer than {PROMPT_BYTES_MAX} bytes");
    }
    let text = String::from_utf8(bytes).context("the prompt on standard input is not UTF-8")?;
    // A pipe ends in a line break that nobody meant.
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t))
        .to_string())
}

/// The lines of a file that say something.
fn lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let opened = std::fs::File::open(file)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("it is larger than {} MiB, the most that is read", FILE_BYTES_MAX >> 20);
    }
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    Ok(text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .filter(said)
        .map(String::from)
        .collect())
}

/// What chooses among wildcards.
struct Dice<'a> {
    folder: &'a Path,
    state: u64,
}

impl Dice<'_> {
    /// A number below `sides` (SplitMix64; Steele et al., 2014).
    fn roll(&mut self, sides: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }

    fn expand(&mut self, text: &str, depth: usize) -> anyhow::Result<String> {
        if depth > DEPTH_MAX {
            bail!("--wildcards: they name each other more than {DEPTH_MAX} deep, last in `{text}`");
        }
        let (mut out, mut rest) = (String::new(), text);
        while let Some(found) = next(rest) {
            out.push_str(&rest[..found.start]);
            let chosen = match found.kind {
                Kind::Choice(options) => options[self.roll(options.len())].to_string(),
                Kind::File(name) => self.line(name)?,
            };
            out.push_str(&self.expand(&chosen, depth + 1)?);
            if out.len() > EXPANDED_BYTES_MAX {
                bail!("--wildcards: they make a prompt longer than {EXPANDED_BYTES_MAX} bytes");
            }
            rest = &rest[found.end..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn line(&mut self, name: &str) -> anyhow::Result<String> {
        let file = self.folder.join(format!("{name}.txt"));
        let lines =
            lines(&file).with_context(|| format!("--wildcards: __{name}__: {}", file.display()))?;
        if lines.is_empty() {
            bail!("--wildcards: __{name}__: {} is empty", file.display());
        }
        Ok(lines[self.roll(lines.len())].clone())
    }
}

/// A wildcard in a text.
struct Found<'a> {
    start: usize,
    end: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Choice(Vec<&'a str>),
    File(&'a str),
}

/// The first wildcard of `text`: braces around a bar, or a name between two pairs of underscores. Anything else is text.
fn next(text: &str) -> Option<Found<'_>> {
    let choice = text.match_indices('{').find_map(|(start, _)| choice(text, start));
    let file = text.match_indices("__").find_map(|(start, _)| {
        let name = &text[start + 2..];
        let name = &name[..name.find("__")?];
        let fine = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        (!name.is_empty() && name.chars().all(fine)).then(|| Found {
            start,
            end: start + name.len() + 4,
            kind: Kind::File(name),
        })
    });
    match (choice, file) {
        (Some(a), Some(b)) => Some(if a.start < b.start { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// The options between the brace at `start` and the one that closes it; `None` where there is no bar between the two.
fn choice(text: &str, start: usize) -> Option<Found<'_>> {
    let (mut depth, mut from, mut options) = (0, start + 1, Vec::new());
    for (at, c) in text[start..].char_indices().map(|(at, c)| (start + at, c)) {
        match c {
            '{' => depth += 1,
            '|' if depth == 1 => {
                options.push(&text[from..at]);
                from = at + 1;
            }
            '}' if depth == 1 => {
                options.push(&text[from..at]);
                let kind = Kind::Choice(options);
                let several = matches!(&kind, Kind::Choice(options) if options.len() > 1);
                return several.then_some(Found { start, end: at + 1, kind });
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("colour.txt"), "# warm\nred\n\n orange \n").unwrap();
        std::fs::write(folder.path().join("thing.txt"), "a {big|small} __colour__ house\n")
            .unwrap();
        std::fs::write(folder.path().join("loop.txt"), "__loop__\n").unwrap();
        folder
    }

    fn all(prompt: &str) -> Vec<String> {
        let folder = folder();
        let expand = |seed| Dice { folder: folder.path(), state: seed }.expand(prompt, 0).unwrap();
        let mut all: Vec<String> = (0..200).map(expand).collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn wildcards_become_one_of_what_they_stand_for() {
        let cases: &[(&str, &[&str])] = &[
            ("a {red|blue} sea", &["a blue sea", "a red sea"]),
            ("{a|{b|c}}", &["a", "b", "c"]),
            ("{|very }big", &["big", "very big"]),
            ("__colour__", &["orange", "red"]),
            (
                "__thing__",
                &[
                    "a big orange house",
                    "a big red house",
                    "a small orange house",
                    "a small red house",
                ],
            ),
            // What is no wildcard stays as it is.
            (r#"{"subject": "a house"}"#, &[r#"{"subject": "a house"}"#]),
            ("{a", &["{a"]),
            ("_ __ ____", &["_ __ ____"]),
        ];
        for (prompt, want) in cases {
            assert_eq!(&all(prompt), want, "{prompt}");
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same() {
        let folder = folder();
        let expand =
            |seed| Dice { folder: folder.path(), state: seed }.expand("{a|b|c}{a|b|c}{a|b|c}", 0);
        assert_eq!(expand(7).unwrap(), expand(7).unwrap());
        assert_ne!(expand(7).unwrap(), expand(8).unwrap());
    }

    #[test]
    fn what_is_missing_or_endless_is_named() {
        let folder = folder();
        let error = |prompt: &str| {
            format!("{:#}", Dice { folder: folder.path(), state: 0 }.expand(prompt, 0).unwrap_err())
        };
        assert!(error("__nothing__").contains("__nothing__"), "{}", error("__nothing__"));
        assert!(error("__loop__").contains("more than 8 deep"), "{}", error("__loop__"));
    }
}

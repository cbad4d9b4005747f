//! Captions: a text file beside each picture, or rows of a table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Skipped;
use super::files::{folder_of, stem_of};
use super::source::Source;

/// All captions of a folder or zip.
#[derive(Default)]
pub(super) struct Captions {
    /// By the picture's name, out of tables.
    rows: BTreeMap<String, String>,
    /// What is in text files, or the file that cannot be read, by their names without the ending.
    texts: BTreeMap<String, Result<String, String>>,
    /// Tables, rows and text files that cannot be used.
    pub(super) problems: Vec<Skipped>,
}

/// The tables that are looked for; where several have a picture, the first counts.
const TABLES: [&str; 3] = ["metadata.jsonl", "metadata.csv", "captions.csv"];

/// Names of a table's columns or fields, in the order in which they are looked for.
const FILE: [&str; 5] = ["file_name", "filename", "file", "image", "path"];
const TEXT: [&str; 4] = ["text", "caption", "prompt", "description"];

impl Captions {
    /// Reads all of them; what is read is taken out of `others`.
    pub(super) fn read(
        source: &Source,
        pictures: &BTreeMap<String, Option<String>>,
        others: &mut BTreeSet<String>,
    ) -> Self {
        let mut captions = Self::default();
        for table in tables(others) {
            others.remove(&table);
            if let Err(problem) = captions.table(source, &table, pictures) {
                captions.problems.push(Skipped { name: table, problem });
            }
        }
        for picture in pictures.keys() {
            let stem = stem_of(picture);
            let name = format!("{stem}.txt");
            if !others.remove(&name) {
                continue;
            }
            let text = text(source, &name).map_err(|problem| {
                captions.problems.push(Skipped { name: name.clone(), problem });
                name
            });
            captions.texts.insert(stem.into(), text.map(|text| text.trim().into()));
        }
        captions
    }

    /// The caption of a picture, which is `default` where it has none of its own.
    pub(super) fn of<'a>(
        &'a self,
        picture: &str,
        default: Option<&'a str>,
    ) -> Result<&'a str, String> {
        match self.texts.get(stem_of(picture)) {
            Some(Ok(text)) => Ok(text),
            Some(Err(name)) => Err(format!("its caption {name} cannot be read")),
            None => self.rows.get(picture).map(String::as_str).or(default).ok_or_else(|| {
                "has no caption: write one into a .txt file of the same name beside it, or give a default caption"
                    .into()
            }),
        }
    }

    /// Takes the rows of a table, which name pictures by their paths from its folder.
    fn table(
        &mut self,
        source: &Source,
        table: &str,
        pictures: &BTreeMap<String, Option<String>>,
    ) -> Result<(), String> {
        let text = text(source, table)?;
        let rows = if table.ends_with("csv") { csv_rows(&text)? } else { json_rows(&text) };
        let folder = folder_of(table);
        let mut wrong = |line: usize, problem: String| {
            let problem = format!("line {line} {problem}");
            self.problems.push(Skipped { name: table.into(), problem });
        };
        for (line, row) in rows {
            let (file, caption) = match row {
                Ok(row) => row,
                Err(problem) => {
                    wrong(line, problem);
                    continue;
                }
            };
            let file = file.replace('\\', "/");
            let file = file.trim_start_matches("./");
            let name = if folder.is_empty() { file.into() } else { format!("{folder}/{file}") };
            if pictures.contains_key(&name) {
                self.rows.entry(name).or_insert(caption);
            } else {
                wrong(line, format!("names `{file}`, which is no picture that is there"));
            }
        }
        Ok(())
    }
}

/// Those of deeper folders first, which are nearer to their pictures.
fn tables(others: &BTreeSet<String>) -> Vec<String> {
    let rank = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        let rank = TABLES.iter().position(|table| *table == file)?;
        Some((Reverse(name.matches('/').count()), rank))
    };
    let mut tables: Vec<_> =
        others.iter().filter_map(|name| Some((rank(name)?, name.clone()))).collect();
    tables.sort();
    tables.into_iter().map(|(_, name)| name).collect()
}

/// A file's text without a byte order mark.
fn text(source: &Source, name: &str) -> Result<String, String> {
    let bytes = source.read(name)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("is not UTF-8 from byte {at} on; save it as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(Into::into).unwrap_or(text))
}

/// A picture's file and caption, or what is wrong with the row.
type Row = Result<(String, String), String>;

fn json_rows(text: &str) -> Vec<(usize, Row)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |line: &str| {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("is no JSON: {e}"))?;
        let field = |names: &[&str]| {
            names.iter().find_map(|name| value.get(*name)?.as_str()).map(ToString::to_string)
        };
        let missing = |names: &[&str]| format!("has no text in `{}`", names.join("`, `"));
        Ok((
            field(&FILE).ok_or_else(|| missing(&FILE))?,
            field(&TEXT).ok_or_else(|| missing(&TEXT))?,
        ))
    };
    lines.map(|(i, line)| (i + 1, row(line))).collect()
}

fn csv_rows(text: &str) -> Result<Vec<(usize, Row)>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| format!("has no header: {e}"))?.clone();
    let column = |names: &[&str]| {
        let found =
            names.iter().find_map(|name| header.iter().position(|h| h.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let has: Vec<&str> = header.iter().collect();
            format!("has the columns {has:?}; one must be called `{}`", names.join("`, `"))
        })
    };
    let (file, caption) = (column(&FILE)?, column(&TEXT)?);
    let row = |(i, record): (usize, csv::Result<csv::StringRecord>)| {
        let line =
            record.as_ref().ok().and_then(|r| r.position()).map_or(i + 2, |p| p.line() as usize);
        let row = record.map_err(|e| format!("cannot be read: {e}"));
        (line, row.map(|r| (r[file].to_string(), r[caption].to_string())))
    };
    Ok(reader.records().enumerate().map(row).collect())
}

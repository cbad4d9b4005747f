//! Captions: a text file beside each picture, or rows of a table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::source::Source;
use super::{Skipped, stem_of};
use crate::{Error, Result};

/// All captions of a folder or zip.
#[derive(Default)]
pub(super) struct Captions {
    /// By the picture's name.
    rows: BTreeMap<String, String>,
    /// The text file of a picture.
    files: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
    /// Files that are no text.
    pub(super) unreadable: Vec<Skipped>,
    pub(super) notes: Vec<String>,
}

/// Names of a table's columns or fields, in the order in which they are looked for.
const FILE: [&str; 5] = ["file_name", "filename", "file", "image", "path"];
const TEXT: [&str; 4] = ["text", "caption", "prompt", "description"];

impl Captions {
    /// Reads all of them; what is read is taken out of `others`.
    pub(super) fn read(
        source: &Source,
        pictures: &BTreeMap<String, Option<String>>,
        others: &mut BTreeSet<String>,
        strict: bool,
    ) -> Result<Self> {
        let mut captions = Self::default();
        for table in tables(others) {
            others.remove(&table);
            captions.table(source, &table, pictures, strict)?;
        }
        for picture in pictures.keys() {
            let file = format!("{}.txt", stem_of(picture));
            if !others.contains(&file) && !captions.texts.contains_key(&file) {
                continue;
            }
            others.remove(&file);
            captions.files.insert(picture.clone(), file.clone());
            match text(source, &file) {
                Ok(text) => drop(captions.texts.insert(file, text.trim().into())),
                Err(problem) => captions.unreadable.push(Skipped { name: file, problem }),
            }
        }
        Ok(captions)
    }

    /// The caption of a picture, if it has one.
    pub(super) fn of(&self, picture: &str) -> Option<&str> {
        let text = self.files.get(picture).and_then(|file| self.texts.get(file));
        text.or_else(|| self.rows.get(picture)).map(String::as_str)
    }

    /// The text file of a picture.
    pub(super) fn file_of(&self, picture: &str) -> Option<&str> {
        self.files.get(picture).map(String::as_str)
    }

    /// Takes the rows of a table; each names a picture of its folder.
    fn table(
        &mut self,
        source: &Source,
        table: &str,
        pictures: &BTreeMap<String, Option<String>>,
        strict: bool,
    ) -> Result<()> {
        let wrong = |problem: String| Error::data(table, problem);
        let text = text(source, table).map_err(wrong)?;
        let rows = if table.ends_with("csv") { csv_rows(&text) } else { json_rows(&text) };
        let folder =
            table.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for (line, row) in rows.map_err(wrong)? {
            let (file, caption) = row.map_err(|problem| wrong(format!("line {line} {problem}")))?;
            let name = format!("{folder}{}", file.replace('\\', "/").trim_start_matches("./"));
            if pictures.contains_key(&name) {
                self.rows.insert(name, caption);
            } else if strict {
                return Err(wrong(format!("line {line} names `{file}`, which is not there")));
            } else {
                self.notes.push(format!("{table}: line {line} names `{file}`, which is not there"));
            }
        }
        Ok(())
    }
}

fn tables(others: &BTreeSet<String>) -> Vec<String> {
    let is_table = |name: &&String| {
        let file = name.rsplit('/').next().unwrap_or_default();
        ["metadata.jsonl", "captions.csv", "metadata.csv"].contains(&file)
    };
    others.iter().filter(is_table).cloned().collect()
}

/// A file's text without a byte order mark.
fn text(source: &Source, name: &str) -> Result<String, String> {
    let bytes = source.read(name)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).to_vec();
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("is not UTF-8 from byte {at} on; save it as UTF-8")
    })
}

/// A picture's file and caption, or what is wrong with the row.
type Row = Result<(String, String), String>;

fn json_rows(text: &str) -> Result<Vec<(usize, Row)>, String> {
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
    Ok(lines.map(|(i, line)| (i + 1, row(line))).collect())
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

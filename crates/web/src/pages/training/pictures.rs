//! Pictures come into a set: uploaded, out of a zip, or from the gallery.
//!
//! However much comes, one picture at a time is in memory: each goes into the store at once, under a name that is free again in an hour
//! unless all of the upload was good.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};

use axum::body::Bytes;
use axum::extract::multipart::Field;
use axum::extract::{Multipart, Path, RawForm, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use url::form_urlencoded;
use uuid::Uuid;
use zip::ZipArchive;
use zoetrope_files::{Limits, Name};
use zoetrope_jobs::{FileRow, TrainingPicture, TrainingSet};
use zoetrope_server::App;
use zoetrope_server::pages::Failure;

use super::set::mine;
use crate::fault::Fault;
use crate::text::training::Training as Words;
use crate::visitor::Visitor;

/// Pictures of a set.
pub(super) const PICTURES_MAX: usize = 500;
/// Characters of a name.
const NAME_MAX: usize = 80;
/// Characters of a caption: far more than a model reads.
pub(super) const CAPTION_MAX: usize = 4000;
/// Bytes of a text, as a name or a caption.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// Entries of a zip: pictures, their captions, and what systems add.
const ENTRIES_MAX: usize = 4 * PICTURES_MAX;
/// How long a picture stays whose upload came to nothing.
const KEPT_MS: i64 = 3_600_000;

/// What was sent for a set.
struct Upload<'a> {
    app: &'a App,
    owner: &'a str,
    name: String,
    /// Whether pictures without a caption are called after their files.
    by_name: bool,
    /// What each was called, and where it lies.
    pictures: Vec<(String, Kept)>,
    /// By the name without its ending.
    captions: HashMap<String, String>,
}

/// A picture in the store.
struct Kept {
    row: FileRow,
    width: u32,
    height: u32,
}

/// The input for pictures, and where captions come from.
pub(super) fn field(words: &Words, required: bool) -> Markup {
    html! {
        div.field {
            label for="pictures" { (words.pictures) }
            input #pictures type="file" name="pictures" multiple required[required] accept="image/*,.zip,.txt" aria-describedby="pictures-help";
            p.help #pictures-help { (words.pictures_help) }
        }
        fieldset {
            legend { (words.captions) }
            label.check { input type="radio" name="captions" value="names" checked; span { (words.captions_names) } }
            label.check { input type="radio" name="captions" value="empty"; span { (words.captions_empty) } }
        }
    }
}

pub(super) async fn create(
    visitor: Visitor,
    State(app): State<App>,
    form: Multipart,
) -> Result<Redirect, Fault> {
    let upload = Upload::read(&app, &visitor.caller.owner, form, 0).await?;
    let name = upload.name.trim();
    if name.is_empty() || name.chars().count() > NAME_MAX {
        return Err(unusable(format!("The set's name has to have 1 to {NAME_MAX} characters.")));
    }
    let set = TrainingSet {
        id: Uuid::now_v7().to_string(),
        owner: visitor.caller.owner.clone(),
        name: name.into(),
        created_ms: app.now_ms(),
    };
    app.queue().insert_training_set(&set).await?;
    upload.finish(&set).await?;
    Ok(Redirect::to(&format!("/training/sets/{}", set.id)))
}

pub(super) async fn add(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
    form: Multipart,
) -> Result<Redirect, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    let there = app.queue().training_pictures(&set.id).await?.len();
    Upload::read(&app, &set.owner, form, there).await?.finish(&set).await?;
    Ok(Redirect::to(&format!("/training/sets/{}", set.id)))
}

fn unusable(text: impl Into<String>) -> Fault {
    Fault::new(StatusCode::UNPROCESSABLE_ENTITY, text)
}

fn too_many() -> Fault {
    unusable(format!(
        "A set has at most {PICTURES_MAX} pictures; take some out, or make another set."
    ))
}

fn broken(error: axum::extract::multipart::MultipartError) -> Fault {
    Fault::new(error.status(), format!("The upload cannot be read: {}", error.body_text()))
}

impl<'a> Upload<'a> {
    /// Reads all of `form` for a set that has so many pictures already.
    async fn read(
        app: &'a App,
        owner: &'a str,
        mut form: Multipart,
        there: usize,
    ) -> Result<Self, Fault> {
        let (name, pictures, captions) = (String::new(), Vec::new(), HashMap::new());
        let mut upload = Self { app, owner, name, by_name: true, pictures, captions };
        while let Some(part) = form.next_field().await.map_err(broken)? {
            let field = part.name().unwrap_or_default().to_string();
            match (field.as_str(), part.file_name().map(String::from)) {
                ("name", _) => upload.name = text(&whole(part, &field, TEXT_BYTES_MAX).await?),
                ("captions", _) => {
                    upload.by_name = whole(part, &field, TEXT_BYTES_MAX).await? != "empty";
                }
                // What browsers send where no file was chosen.
                ("pictures", Some(file)) if file.is_empty() => {}
                ("pictures", Some(file)) if is_zip(&file) => upload.zip(&file, part, there).await?,
                ("pictures", Some(file)) => {
                    let bytes = whole(part, &file, Limits::default().bytes_max).await?;
                    upload.file(&file, bytes, there).await?;
                }
                _ => {}
            }
        }
        match upload.pictures.is_empty() {
            true => Err(unusable("There is no picture in what was sent; choose some.")),
            false => Ok(upload),
        }
    }

    async fn file(&mut self, name: &str, bytes: Bytes, there: usize) -> Result<(), Fault> {
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        if ending.eq_ignore_ascii_case("txt") {
            let caption = text(&bytes).trim().chars().take(CAPTION_MAX).collect();
            self.captions.insert(stem.into(), caption);
            return Ok(());
        }
        if there + self.pictures.len() >= PICTURES_MAX {
            return Err(too_many());
        }
        let kept = keep(self.app, self.owner, name, bytes).await?;
        self.pictures.push((name.into(), kept));
        Ok(())
    }

    /// Everything in a zip that could be a picture or a caption; folders in it make no difference.
    async fn zip(&mut self, name: &str, mut part: Field<'_>, there: usize) -> Result<(), Fault> {
        let unread = |error: &dyn std::fmt::Display| {
            unusable(format!("{name}: the zip cannot be read: {error}"))
        };
        let mut file = tempfile::tempfile().map_err(|error| Failure::internal(&error))?;
        while let Some(piece) = part.chunk().await.map_err(broken)? {
            file.write_all(&piece).map_err(|error| Failure::internal(&error))?;
        }
        let mut zip = ZipArchive::new(file).map_err(|error| unread(&error))?;
        if zip.len() > ENTRIES_MAX {
            return Err(unread(&format!(
                "it has {} entries, and at most {ENTRIES_MAX} are taken",
                zip.len()
            )));
        }
        for index in 0..zip.len() {
            let unpacking = tokio::task::spawn_blocking(move || {
                let entry = unpacked(&mut zip, index);
                (zip, entry)
            });
            let (back, entry) = unpacking.await.map_err(|error| Failure::internal(&error))?;
            zip = back;
            if let Some((inner, bytes)) = entry.map_err(|error| unread(&error))? {
                self.file(&inner, bytes.into(), there).await?;
            }
        }
        Ok(())
    }

    /// Puts the pictures into `set`.
    async fn finish(self, set: &TrainingSet) -> Result<(), Fault> {
        for (name, kept) in self.pictures {
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
            let caption = match self.captions.get(stem) {
                Some(caption) => caption.clone(),
                None if self.by_name => of_name(stem),
                None => String::new(),
            };
            insert(self.app, set, (&name, kept), caption).await?;
        }
        Ok(())
    }
}

fn is_zip(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("zip"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All of a part of at most `most` bytes.
async fn whole(mut part: Field<'_>, name: &str, most: u64) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    while let Some(piece) = part.chunk().await.map_err(broken)? {
        if (bytes.len() + piece.len()) as u64 > most {
            let text = format!("{name} has more than {} KiB, the most that is taken.", most >> 10);
            return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

/// The name and bytes of an entry; `None` of what is neither a picture nor a caption.
fn unpacked(
    zip: &mut ZipArchive<File>,
    index: usize,
) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut entry = zip.by_index(index).map_err(std::io::Error::other)?;
    let name = entry.name().map_err(std::io::Error::other)?.to_string();
    let last = name.rsplit('/').next().unwrap_or_default();
    if entry.is_dir() || last.starts_with('.') || name.starts_with("__MACOSX") || is_zip(&name) {
        return Ok(None);
    }
    let most = Limits::default().bytes_max;
    let mut bytes = Vec::new();
    entry.by_ref().take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!(
            "{name} unpacks to more than {} MiB",
            most >> 20
        )));
    }
    Ok(Some((name, bytes)))
}

/// Puts a picture into the store, for an hour.
async fn keep(app: &App, owner: &str, file_name: &str, bytes: Bytes) -> Result<Kept, Fault> {
    let header = zoetrope_files::header(&bytes, &Limits::default())
        .map_err(|error| unusable(format!("{file_name}: the file {error}")))?;
    let ending = header.content_type.rsplit('/').next().unwrap_or("png");
    let name = Name::new(&format!("picture.{ending}"));
    let now_ms = app.now_ms();
    let row = FileRow {
        name: name.as_str().into(),
        owner: owner.into(),
        request: None,
        size: bytes.len() as i64,
        created_ms: now_ms,
        expires_ms: None,
    };
    app.queue().reserve_file(&row, now_ms + KEPT_MS).await?; // bytes without a row would never be found again
    app.store().put(&name, bytes).await.map_err(|error| Failure::internal(&error))?;
    Ok(Kept { row, width: header.width, height: header.height })
}

/// From now on a picture is one of `set`, and stays.
async fn insert(
    app: &App,
    set: &TrainingSet,
    (name, kept): (&str, Kept),
    caption: String,
) -> Result<(), Fault> {
    let skipped = name.chars().count().saturating_sub(NAME_MAX); // the end tells more
    let picture = TrainingPicture {
        id: Uuid::now_v7().to_string(),
        file: kept.row.name.clone(),
        name: name.chars().skip(skipped).collect(),
        caption,
        width: kept.width.into(),
        height: kept.height.into(),
        bytes: kept.row.size,
    };
    app.queue().fill_file(&kept.row).await?;
    app.queue().insert_training_picture(&set.id, &picture).await?;
    Ok(())
}

/// A file's name as a caption: `10_red-house (2)` is a red house.
pub(super) fn of_name(stem: &str) -> String {
    let words = stem.replace(['_', '-', '.'], " ");
    let words: Vec<&str> = words
        .split_whitespace()
        .filter(|word| !word.trim_matches(['(', ')']).chars().all(|c| c.is_ascii_digit()))
        .collect();
    words.join(" ")
}

/// Pictures of the gallery, with their prompts.
pub(super) async fn from_gallery(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
    RawForm(form): RawForm,
) -> Result<Redirect, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    let chosen: Vec<i64> = form_urlencoded::parse(&form)
        .filter(|(name, _)| name == "picture")
        .filter_map(|(_, number)| number.parse().ok())
        .collect();
    let there = app.queue().training_pictures(&set.id).await?.len();
    if there + chosen.len() > PICTURES_MAX {
        return Err(too_many());
    }
    for number in chosen {
        // What was deleted meanwhile is not there to be taken.
        let Some(picture) = app.queue().picture(number, visitor.owner()).await? else { continue };
        let Some(name) = Name::parse(&picture.file) else { continue };
        let read = app.store().read(&name, Limits::default().bytes_max).await;
        let Some(bytes) = read.map_err(|error| Failure::internal(&error))? else { continue };
        let caption = picture.prompt.chars().take(CAPTION_MAX).collect();
        let kept = keep(&app, &set.owner, name.file_name(), bytes).await?;
        insert(&app, &set, (name.file_name(), kept), caption).await?;
    }
    Ok(Redirect::to(&format!("/training/sets/{}", set.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_captions() {
        let cases = [
            ("10_red-house (2)", "red house"),
            ("a.quiet_lake", "a quiet lake"),
            ("IMG_0042", "IMG"),
            ("墨 竹_03", "墨 竹"),
            ("0001", ""),
        ];
        for (stem, expected) in cases {
            assert_eq!(of_name(stem), expected, "{stem}");
        }
    }
}

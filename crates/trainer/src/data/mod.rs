//! Pictures with captions to learn from, in a folder or a zip: read, checked, and cut to sizes that the model draws.

mod buckets;
mod cache;
mod captions;
mod files;
mod fit;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zoetrope_api::ImageSize;
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::Limits;

pub use buckets::{RATIO_MAX, bucket};
pub use cache::Cache;
pub use source::{ENTRIES_MAX, ENTRY_BYTES_MAX, TOTAL_BYTES_MAX};

use crate::{Error, Result};
use captions::Captions;
use files::{Files, folder_of, repeats};
use source::Source;

/// How pictures are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Pixels a side of a square of the area that pictures are cut to.
    pub resolution: u32,
    /// The caption of pictures that have none of their own.
    pub default_caption: Option<String>,
    /// A word that stands for what is learned: it takes the place of `[trigger]` in captions, and is put in front of those without either.
    pub trigger: Option<String>,
    /// Whether a file that cannot be used ends everything, in place of being left out.
    pub strict: bool,
    /// Pictures of the same kind that shall stay what they are (prior preservation, Ruiz et al., 2023).
    pub prior: Option<PathBuf>,
}

/// All that can be learned from.
pub struct Dataset {
    /// In the order of their names; those of the prior last.
    pub examples: Vec<Example>,
    /// What is left out.
    pub skipped: Vec<Skipped>,
    /// What its owner may want to know.
    pub notes: Vec<String>,
}

/// A file that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Which.
    pub name: String,
    /// Why.
    pub problem: String,
}

/// A picture with its caption.
pub struct Example {
    /// Its path in the folder or zip.
    pub name: String,
    /// What it shows, with the trigger.
    pub caption: String,
    /// How often it is shown where others are shown once.
    pub repeats: usize,
    /// Whether it is one of the prior's.
    pub prior: bool,
    /// What it is cut to.
    pub size: ImageSize,
    source: Arc<Source>,
    mask: Option<String>,
    digest: String,
}

/// A picture as it is trained on.
pub struct Loaded {
    /// In the example's size.
    pub image: Rgb,
    /// A byte a pixel in the same size; 255 counts fully, 0 as what lies outside.
    pub mask: Option<Vec<u8>>,
}

impl Dataset {
    /// Reads a folder or a zip, and every picture in it once, to see that it can be used.
    ///
    /// A picture's caption is `name.txt` beside it; else its row in a `metadata.jsonl`, `metadata.csv` or `captions.csv`, the first of these in the
    /// nearest folder; else the default. A folder called `10_name` is shown ten times. Masks are `name.mask.png`, `name_mask.png` or
    /// `masks/name.png` of the picture's ratio; else the picture's own transparency.
    pub fn open(place: &Path, settings: &Settings) -> Result<Self> {
        let mut dataset = Self { examples: Vec::new(), skipped: Vec::new(), notes: Vec::new() };
        dataset.add(place, settings, false)?;
        if let Some(prior) = &settings.prior {
            dataset.add(prior, settings, true)?;
        }
        Ok(dataset)
    }

    fn add(&mut self, place: &Path, settings: &Settings, prior: bool) -> Result<()> {
        let source = Arc::new(Source::open(place)?);
        let (examples, skipped) = (self.examples.len(), self.skipped.len());
        let mut files = Files::of(&source);
        let captions = Captions::read(&source, &files.pictures, &mut files.others);
        for problem in &captions.problems {
            self.skip(problem.clone(), settings)?;
        }
        for (name, mask) in &files.pictures {
            let caption = captions.of(name, settings.default_caption.as_deref());
            let example = caption.and_then(|caption| {
                example(&source, name, mask.as_deref(), (caption, prior), settings)
            });
            match example {
                Ok((example, notes)) => {
                    self.notes.extend(notes.into_iter().map(|note| format!("{name}: {note}")));
                    self.examples.push(example);
                }
                Err(problem) => self.skip(Skipped { name: name.clone(), problem }, settings)?,
            }
        }
        self.note(&files);
        if self.examples.len() == examples {
            let what = match self.skipped.get(skipped) {
                Some(first) => format!(
                    "holds no picture that can be used; the first problem: {}: {}",
                    first.name, first.problem
                ),
                None => "holds no pictures (PNG, JPEG, WebP, GIF, BMP, TIFF, TGA, PNM, QOI)".into(),
            };
            return Err(Error::data(place.display(), what));
        }
        Ok(())
    }

    /// Tells what is not used, and which folders are shown more than once.
    fn note(&mut self, files: &Files) {
        let folders: BTreeSet<&str> = files.pictures.keys().map(|name| folder_of(name)).collect();
        for folder in folders.into_iter().filter(|folder| repeats(folder) > 1) {
            let times = repeats(folder);
            self.notes.push(format!("{folder}/ is shown {times} times, as its name says"));
        }
        let unused = |name| format!("{name} is the mask of no picture; it is not used");
        self.notes.extend(files.alone.iter().map(unused));
        let unused = |name| format!("{name} is no picture and no caption of one; it is not used");
        self.notes.extend(files.others.iter().map(unused));
    }

    fn skip(&mut self, skipped: Skipped, settings: &Settings) -> Result<()> {
        if settings.strict {
            return Err(Error::data(skipped.name, skipped.problem));
        }
        self.skipped.push(skipped);
        Ok(())
    }
}

/// Checks everything about a picture, `caption` and whether it is one of the prior's given; what is worth a line, or what is wrong.
fn example(
    source: &Arc<Source>,
    name: &str,
    mask: Option<&str>,
    (caption, prior): (&str, bool),
    settings: &Settings,
) -> Result<(Example, Vec<String>), String> {
    let bytes = source.read(name)?;
    let decoded = zoetrope_files::decode(&bytes, &Limits::default()).map_err(|e| e.to_string())?;
    let (width, height) = (decoded.picture.width, decoded.picture.height);
    let size = bucket(width, height, settings.resolution)?;
    let mut notes: Vec<String> = decoded.notes.iter().map(ToString::to_string).collect();
    if width < size.width() || height < size.height() {
        notes.push(format!(
            "is {width}x{height}; it is made larger, to {size}, which adds nothing to it"
        ));
    }
    let mut digest = Sha256::new();
    digest.update(format!("{size} {} ", bytes.len()));
    digest.update(&bytes);
    if let Some(mask) = mask {
        digest.update(check_mask(source, mask, (width, height))?);
    }
    let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let example = Example {
        name: name.into(),
        caption: triggered(caption, settings.trigger.as_deref().filter(|_| !prior)),
        repeats: repeats(folder_of(name)),
        prior,
        size,
        source: source.clone(),
        mask: mask.map(Into::into),
        digest,
    };
    Ok((example, notes))
}

/// The bytes of a mask, if it is one for a picture of `width` × `height` pixels.
fn check_mask(source: &Source, name: &str, (width, height): (u32, u32)) -> Result<Vec<u8>, String> {
    let bytes = source.read(name).map_err(|e| format!("its mask {name} {e}"))?;
    let mask = zoetrope_files::decode_mask(&bytes, &Limits::default());
    let mask = mask.map_err(|e| format!("its mask {name} {e}"))?;
    // One that was scaled may be a pixel off.
    let (width, height) = (i64::from(width), i64::from(height));
    let off = (i64::from(mask.width) * height - i64::from(mask.height) * width).abs();
    if off > width.max(height) {
        return Err(format!(
            "its mask {name} has {}x{} pixels, which is not the ratio of the picture's {width}x{height}; draw it over the picture as it is \
             seen, in the same size",
            mask.width, mask.height
        ));
    }
    Ok(bytes)
}

/// `caption` with the trigger in it.
fn triggered(caption: &str, trigger: Option<&str>) -> String {
    match trigger.map(str::trim).filter(|trigger| !trigger.is_empty()) {
        None => caption.replace("[trigger]", "").trim().into(),
        Some(trigger) if caption.contains("[trigger]") => caption.replace("[trigger]", trigger),
        Some(trigger) if caption.contains(trigger) => caption.into(),
        Some(trigger) if caption.is_empty() => trigger.into(),
        Some(trigger) => format!("{trigger}, {caption}"),
    }
}

impl Example {
    /// The picture, scaled to cover its size and cut to it around the middle; its mask likewise.
    pub fn load(&self) -> Result<Loaded> {
        let wrong = |problem: String| Error::data(&self.name, problem);
        let limits = Limits::default();
        let bytes = self.source.read(&self.name).map_err(wrong)?;
        let decoded = zoetrope_files::decode(&bytes, &limits).map_err(|e| wrong(e.to_string()))?;
        let mask = match &self.mask {
            Some(name) => {
                let its = |e: String| wrong(format!("its mask {name} {e}"));
                let bytes = self.source.read(name).map_err(its)?;
                Some(zoetrope_files::decode_mask(&bytes, &limits).map_err(|e| its(e.to_string()))?)
            }
            None => {
                zoetrope_files::decode_alpha(&bytes, &limits).map_err(|e| wrong(e.to_string()))?
            }
        };
        let (width, height) = (self.size.width() as usize, self.size.height() as usize);
        let bytes = fit::picture(decoded.picture, self.size);
        let mask = mask.map(|mask| fit::mask(mask, self.size));
        Ok(Loaded { image: Rgb { width, height, bytes }, mask })
    }

    /// Tells the picture in its size and with its mask from others: a digest.
    pub fn key(&self) -> &str {
        &self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_take_their_place_or_stand_in_front() {
        for (caption, trigger, wanted) in [
            ("a photo of [trigger]", Some("ohwx"), "a photo of ohwx"),
            ("a dog", Some("ohwx"), "ohwx, a dog"),
            ("ohwx dog", Some("ohwx"), "ohwx dog"),
            ("", Some("ohwx"), "ohwx"),
            ("a [trigger]", None, "a"),
        ] {
            assert_eq!(triggered(caption, trigger), wanted);
        }
    }
}

//! Pictures with captions to learn from, in a folder or a zip: read, checked, and cut to sizes that the model draws.

mod buckets;
mod cache;
mod captions;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zoetrope_api::ImageSize;
use zoetrope_engine::pixels::Rgb;
use zoetrope_files::{Limits, Mask};

pub use buckets::{RATIO_MAX, bucket};
pub use cache::Cache;
pub use source::{ENTRIES_MAX, ENTRY_BYTES_MAX, TOTAL_BYTES_MAX};

use crate::{Error, Result};
use captions::Captions;
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
    /// A picture's caption is `name.txt` beside it; else its row in `metadata.jsonl` or `captions.csv` of its folder; else the default. A folder
    /// called `10_name` is shown ten times. Masks are `name.mask.png`, `name_mask.png` or `masks/name.png`, or the picture's own transparency.
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
        let before = self.examples.len();
        let mut files = Files::of(&source);
        let captions =
            Captions::read(&source, &files.pictures, &mut files.others, settings.strict)?;
        self.notes.extend(captions.notes.iter().cloned());
        self.skip(captions.unreadable.iter().cloned(), settings)?;
        let unreadable: BTreeSet<&str> =
            captions.unreadable.iter().map(|s| s.name.as_str()).collect();
        for (name, mask) in &files.pictures {
            if captions.file_of(name).is_some_and(|file| unreadable.contains(file)) {
                self.skip(
                    [Skipped { name: name.clone(), problem: "its caption cannot be read".into() }],
                    settings,
                )?;
                continue;
            }
            let caption = captions.of(name).or(settings.default_caption.as_deref());
            match example(&source, name, mask.as_deref(), caption, settings, prior) {
                Ok((example, notes)) => {
                    self.notes.extend(notes.into_iter().map(|note| format!("{name}: {note}")));
                    self.examples.push(example);
                }
                Err(problem) => self.skip([Skipped { name: name.clone(), problem }], settings)?,
            }
        }
        self.notes.extend(
            files
                .others
                .iter()
                .map(|name| format!("{name} is no picture and no caption of one; it is not used")),
        );
        if self.examples.len() == before {
            let what = match self.skipped.first() {
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

    fn skip(
        &mut self,
        skipped: impl IntoIterator<Item = Skipped>,
        settings: &Settings,
    ) -> Result<()> {
        for skipped in skipped {
            if settings.strict {
                return Err(Error::data(skipped.name, skipped.problem));
            }
            self.skipped.push(skipped);
        }
        Ok(())
    }
}

/// What a folder or zip holds.
struct Files {
    /// With their masks' names.
    pictures: BTreeMap<String, Option<String>>,
    /// Text, and what nobody asked for.
    others: BTreeSet<String>,
}

/// Endings of what is read as a picture.
const ENDINGS: [&str; 16] = [
    "png", "jpg", "jpeg", "jfif", "webp", "gif", "bmp", "tif", "tiff", "tga", "pnm", "ppm", "pgm",
    "pbm", "qoi", "avif",
];

impl Files {
    fn of(source: &Source) -> Self {
        let (mut pictures, mut others) = (BTreeMap::new(), BTreeSet::new());
        for name in source.names() {
            let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
            if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
                pictures.insert(name.to_string(), None);
            } else {
                others.insert(name.to_string());
            }
        }
        let names: Vec<String> = pictures.keys().cloned().collect();
        for mask in &names {
            let Some(stem) = masked_stem(mask) else { continue };
            let of = names
                .iter()
                .find(|name| *name != mask && stem_of(name) == stem && masked_stem(name).is_none());
            if let Some(of) = of {
                pictures.insert(of.clone(), Some(mask.clone()));
                pictures.remove(mask);
            }
        }
        Self { pictures, others }
    }
}

/// A file's path without its ending.
fn stem_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The stem of the picture that a mask's name stands for.
fn masked_stem(name: &str) -> Option<String> {
    let stem = stem_of(name);
    let beside = stem.strip_suffix(".mask").or_else(|| stem.strip_suffix("_mask"));
    if let Some(stem) = beside {
        return Some(stem.into());
    }
    if let Some(stem) = stem.strip_prefix("masks/") {
        return Some(stem.into());
    }
    stem.rsplit_once("/masks/").map(|(folder, stem)| format!("{folder}/{stem}"))
}

/// How often the pictures of `name`'s folder are shown: the number in front of the folder's name, as in `10_name`.
fn repeats(name: &str) -> usize {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let number = folder.rsplit('/').next().and_then(|folder| folder.split_once('_'));
    number
        .and_then(|(number, _)| number.parse().ok())
        .filter(|n| (1..=10_000).contains(n))
        .unwrap_or(1)
}

/// Checks everything about a picture; what is worth a line, or what is wrong.
fn example(
    source: &Arc<Source>,
    name: &str,
    mask: Option<&str>,
    caption: Option<&str>,
    settings: &Settings,
    prior: bool,
) -> Result<(Example, Vec<String>), String> {
    let caption = caption.ok_or(
        "has no caption: write one into a .txt file of the same name beside it, or give a default caption",
    )?;
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
    digest.update(&bytes);
    if let Some(mask) = mask {
        let bytes = source.read(mask)?;
        zoetrope_files::decode_mask(&bytes, &Limits::default())
            .map_err(|e| format!("its mask {mask} {e}"))?;
        digest.update(&bytes);
    }
    digest.update(format!("{size} {}", mask.is_some()));
    let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let example = Example {
        name: name.into(),
        caption: triggered(caption, settings.trigger.as_deref().filter(|_| !prior)),
        repeats: repeats(name),
        prior,
        size,
        source: source.clone(),
        mask: mask.map(Into::into),
        digest,
    };
    Ok((example, notes))
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
            Some(mask) => {
                let bytes = self.source.read(mask).map_err(wrong)?;
                Some(
                    zoetrope_files::decode_mask(&bytes, &limits)
                        .map_err(|e| wrong(format!("its mask {mask} {e}")))?,
                )
            }
            None => {
                zoetrope_files::decode_alpha(&bytes, &limits).map_err(|e| wrong(e.to_string()))?
            }
        };
        let picture = decoded.picture;
        let (width, height) = covering((picture.width, picture.height), self.size);
        let rgb = cut(&picture.resized(width, height).rgb, (width, height), self.size, 3);
        let (columns, rows) = (self.size.width() as usize, self.size.height() as usize);
        let mask = mask.map(|mask: Mask| {
            cut(&mask.resized(width, height).grey, (width, height), self.size, 1)
        });
        Ok(Loaded { image: Rgb { width: columns, height: rows, bytes: rgb }, mask })
    }

    /// Tells the picture in its size and with its mask from others: a digest.
    pub fn key(&self) -> &str {
        &self.digest
    }
}

/// The size in which a picture covers `size` and touches two of its sides.
fn covering((width, height): (u32, u32), size: ImageSize) -> (u32, u32) {
    let scale = |side: u32, wanted: u32| f64::from(wanted) / f64::from(side);
    let scale = scale(width, size.width()).max(scale(height, size.height()));
    let scaled = |side: u32, least: u32| ((f64::from(side) * scale).round() as u32).max(least);
    (scaled(width, size.width()), scaled(height, size.height()))
}

/// The middle of a picture of `bytes` a pixel.
fn cut(pixels: &[u8], (width, height): (u32, u32), size: ImageSize, bytes: usize) -> Vec<u8> {
    let (left, top) = ((width - size.width()) as usize / 2, (height - size.height()) as usize / 2);
    let row = bytes * width as usize;
    let rows = pixels.chunks_exact(row).skip(top).take(size.height() as usize);
    rows.flat_map(|row| &row[bytes * left..][..bytes * size.width() as usize]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_tell_how_often_they_are_shown() {
        let cases = [
            ("10_cat/a.png", 10),
            ("x/3_b/a.png", 3),
            ("a.png", 1),
            ("cat/a.png", 1),
            ("0_x/a.png", 1),
        ];
        for (name, count) in cases {
            assert_eq!(repeats(name), count, "{name}");
        }
    }

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

    #[test]
    fn pictures_are_cut_around_their_middle() {
        let size = ImageSize::new(16, 32).unwrap();
        assert_eq!(covering((100, 100), size), (32, 32));
        let pixels: Vec<u8> = (0..32 * 32).map(|i| (i % 32) as u8).collect();
        let middle = cut(&pixels, (32, 32), size, 1);
        assert_eq!((middle.len(), middle[0], middle[15]), (16 * 32, 8, 23));
    }
}

//! Pictures and captions as people have them, good and bad, in folders and in zips.

#![allow(clippy::unwrap_used)]

mod bad;
mod captions;
mod pictures;
mod random;
mod zips;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zoetrope_trainer::data::{Dataset, Settings};

/// Files by their paths.
type Files<'a> = &'a [(&'a str, Vec<u8>)];

/// A folder that is removed with this.
struct Place {
    folder: TempDir,
}

impl Place {
    /// A folder of `files`.
    fn folder(files: Files) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Self { folder }
    }

    /// A file of `bytes`, whose name says nothing.
    fn file(bytes: &[u8]) -> (Self, PathBuf) {
        let place = Self::folder(&[("data", bytes.to_vec())]);
        let path = place.path().join("data");
        (place, path)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self, settings: &Settings) -> Result<Dataset, String> {
        Dataset::open(self.path(), settings).map_err(|e| e.to_string())
    }
}

/// `bytes` as the file of a data set.
fn open_file(bytes: &[u8], settings: &Settings) -> Result<Dataset, String> {
    let (_place, path) = Place::file(bytes);
    Dataset::open(&path, settings).map_err(|e| e.to_string())
}

/// Small pictures, all captions from files.
fn settings() -> Settings {
    Settings { resolution: 64, default_caption: None, trigger: None, strict: false, prior: None }
}

/// The same, and a caption for those without.
fn captioned() -> Settings {
    Settings { default_caption: Some("a picture".into()), ..settings() }
}

/// A picture of one colour and opacity.
fn plain(width: u32, height: u32, rgba: [u8; 4]) -> DynamicImage {
    RgbaImage::from_pixel(width, height, Rgba(rgba)).into()
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An opaque PNG of one grey.
fn png(width: u32, height: u32, grey: u8) -> Vec<u8> {
    encoded(&plain(width, height, [grey, grey, grey, 255]).to_rgb8().into(), ImageFormat::Png)
}

/// A zip of `files`, deflated.
fn zip_of(files: Files) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Names of what can be learned from, in order.
fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.examples.iter().map(|example| example.name.as_str()).collect()
}

/// What is left out, as it is told.
fn skipped(dataset: &Dataset) -> Vec<String> {
    dataset.skipped.iter().map(|s| format!("{}: {}", s.name, s.problem)).collect()
}

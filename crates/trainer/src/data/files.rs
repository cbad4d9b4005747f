//! What a folder or zip holds: which files are pictures, which of them are masks of others, and how often each is shown.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// The files of a folder or zip.
pub(super) struct Files {
    /// With their masks' names.
    pub(super) pictures: BTreeMap<String, Option<String>>,
    /// Text, and what nobody asked for.
    pub(super) others: BTreeSet<String>,
    /// Masks whose picture is not there.
    pub(super) alone: Vec<String>,
}

/// Endings of what is read as a picture.
const ENDINGS: [&str; 16] = [
    "png", "jpg", "jpeg", "jfif", "webp", "gif", "bmp", "tif", "tiff", "tga", "pnm", "ppm", "pgm",
    "pbm", "qoi", "avif",
];

/// The most that a folder's number may ask for; above it the number is more likely a year.
pub(super) const REPEATS_MAX: usize = 1000;

impl Files {
    /// Sorts the files of `source` into pictures, masks and others.
    pub(super) fn of(source: &Source) -> Self {
        let is_picture = |name: &&str| {
            let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
            ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
        };
        let (pictures, others): (Vec<&str>, Vec<&str>) = source.names().partition(is_picture);
        let mut files = Self {
            pictures: pictures.iter().map(|name| (name.to_string(), None)).collect(),
            others: others.into_iter().map(Into::into).collect(),
            alone: Vec::new(),
        };
        files.tell_masks(&pictures);
        files
    }

    /// Takes masks out of the pictures and gives them to those they are of.
    fn tell_masks(&mut self, names: &[&str]) {
        let mut stems: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in names.iter().filter(|name| masked_stem(name).is_none()) {
            stems.entry(stem_of(name)).or_default().push(name);
        }
        let masks = names.iter().filter_map(|name| Some((*name, masked_stem(name)?)));
        let (of_pictures, alone): (Vec<_>, Vec<_>) =
            masks.partition(|(_, stem)| stems.contains_key(stem.as_str()));
        let folders: BTreeSet<&str> = of_pictures.iter().map(|(mask, _)| folder_of(mask)).collect();
        for (mask, stem) in of_pictures {
            self.pictures.remove(mask);
            for picture in &stems[stem.as_str()] {
                self.pictures.insert(picture.to_string(), Some(mask.into()));
            }
        }
        // `man_with_mask.png` is a picture, and so is what lies in a folder called `masks` where nothing is a mask.
        for (name, _) in alone {
            let in_masks = folder_of(name).rsplit('/').next() == Some("masks");
            if stem_of(name).ends_with(".mask") || in_masks && folders.contains(folder_of(name)) {
                self.pictures.remove(name);
                self.alone.push(name.into());
            }
        }
    }
}

/// A file's path without its ending.
pub(super) fn stem_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The path of the folder that a file is in; empty at the top.
pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
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

/// How often the pictures of `folder` are shown: the number in front of its own name, as in `10_name`.
pub(super) fn repeats(folder: &str) -> usize {
    let number = folder.rsplit('/').next().and_then(|folder| folder.split_once('_'));
    number
        .and_then(|(number, _)| number.parse().ok())
        .filter(|n| (1..=REPEATS_MAX).contains(n))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_tell_how_often_they_are_shown() {
        let cases = [
            ("10_cat", 10),
            ("x/3_b", 3),
            ("", 1),
            ("cat", 1),
            ("0_x", 1),
            ("3_b/more", 1),
            ("1000_x", 1000),
            ("2024_summer", 1),
        ];
        for (folder, count) in cases {
            assert_eq!(repeats(folder), count, "{folder}");
        }
    }

    #[test]
    fn masks_name_their_pictures() {
        let cases = [
            ("a.mask.png", Some("a")),
            ("x/a_mask.webp", Some("x/a")),
            ("masks/a.png", Some("a")),
            ("x/masks/a.png", Some("x/a")),
            ("masks/x/a.png", Some("x/a")),
            ("a.png", None),
            ("unmasked/a.png", None),
        ];
        for (name, stem) in cases {
            assert_eq!(masked_stem(name).as_deref(), stem, "{name}");
        }
    }
}

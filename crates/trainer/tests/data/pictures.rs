//! Pictures, masks and sizes: what is found, and what comes of its pixels.

use std::slice;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, GrayImage, ImageEncoder, RgbImage};
use zoetrope_trainer::data::{Example, Loaded};

use crate::*;

/// The only picture of `files`, and where it lies.
fn one(files: Files, settings: &Settings) -> (Place, Example) {
    let place = Place::folder(files);
    let mut dataset = place.open(settings).unwrap();
    assert_eq!(dataset.examples.len(), 1, "{:?} {:?}", names(&dataset), dataset.skipped);
    (place, dataset.examples.remove(0))
}

/// What the only picture of `files` is trained on.
fn load(files: Files, settings: &Settings) -> Loaded {
    let (_place, example) = one(files, settings);
    let loaded = example.load().unwrap();
    let size = (loaded.image.width, loaded.image.height);
    assert_eq!(size, (example.size.width() as usize, example.size.height() as usize));
    assert_eq!(loaded.image.bytes.len(), 3 * size.0 * size.1);
    if let Some(mask) = &loaded.mask {
        assert_eq!(mask.len(), size.0 * size.1);
    }
    loaded
}

/// The pixel of a loaded picture.
fn pixel(loaded: &Loaded, x: usize, y: usize) -> [u8; 3] {
    let at = 3 * (y * loaded.image.width + x);
    loaded.image.bytes[at..at + 3].try_into().unwrap()
}

fn png_of(image: RgbImage) -> Vec<u8> {
    encoded(&image.into(), ImageFormat::Png)
}

fn near(a: u8, b: u8, off: u8) -> bool {
    a.abs_diff(b) <= off
}

#[test]
fn every_format_is_read() {
    let image = plain(64, 64, [200, 40, 90, 255]).to_rgb8().into();
    for (ending, format) in [
        ("png", ImageFormat::Png),
        ("JPG", ImageFormat::Jpeg),
        ("jpeg", ImageFormat::Jpeg),
        ("webp", ImageFormat::WebP),
        ("gif", ImageFormat::Gif),
        ("bmp", ImageFormat::Bmp),
        ("tiff", ImageFormat::Tiff),
        ("pnm", ImageFormat::Pnm),
        ("qoi", ImageFormat::Qoi),
        // A name may say anything.
        ("png", ImageFormat::Jpeg),
    ] {
        let name = format!("a.{ending}");
        let loaded = load(&[(name.as_str(), encoded(&image, format))], &captioned());
        let [red, green, blue] = pixel(&loaded, 32, 32);
        let right = near(red, 200, 3) && near(green, 40, 3) && near(blue, 90, 3);
        assert!(right, "{name}: {red} {green} {blue}");
    }
}

#[test]
fn pictures_are_found_everywhere_in_order_and_as_often_as_their_folder_says() {
    let files: Files = &[
        ("b.png", png(64, 64, 1)),
        ("a.png", png(64, 64, 2)),
        ("10_cat/z.png", png(64, 64, 3)),
        ("x/3_dog/deep/c.png", png(64, 64, 4)),
        ("x/3_dog/c.png", png(64, 64, 5)),
        ("2024_summer/c.png", png(64, 64, 6)),
        (".hidden.png", png(64, 64, 7)),
        (".git/c.png", png(64, 64, 7)),
        ("__MACOSX/._a.png", b"resource fork".to_vec()),
        (".DS_Store", b"x".to_vec()),
        ("Thumbs.db", b"x".to_vec()),
        ("readme.md", b"about".to_vec()),
        ("old.zip", zip_of(&[("c.png", png(64, 64, 8))])),
        ("lonely.txt", b"of nothing".to_vec()),
    ];
    let wanted = [
        ("10_cat/z.png", 10),
        ("2024_summer/c.png", 1),
        ("a.png", 1),
        ("b.png", 1),
        ("x/3_dog/c.png", 3),
        ("x/3_dog/deep/c.png", 1),
    ];
    let check = |dataset: Dataset| {
        let found: Vec<_> = dataset.examples.iter().map(|e| (&*e.name, e.repeats)).collect();
        assert_eq!(found, wanted);
        assert_eq!(
            dataset.notes,
            [
                "10_cat/ is shown 10 times, as its name says",
                "x/3_dog/ is shown 3 times, as its name says",
                "lonely.txt is no picture and no caption of one; it is not used",
                "old.zip is no picture and no caption of one; it is not used",
                "readme.md is no picture and no caption of one; it is not used",
            ]
        );
        let keys: Vec<_> = dataset.examples.iter().map(|e| e.key().to_string()).collect();
        let pixels: Vec<_> =
            dataset.examples.iter().map(|e| e.load().unwrap().image.bytes).collect();
        (keys, pixels)
    };
    let place = Place::folder(files);
    let (_zip, path) = Place::file(&zip_of(files));
    let zip = Dataset::open(&path, &captioned()).unwrap();
    assert!(check(place.open(&captioned()).unwrap()) == check(zip), "a zip is as a folder");
}

#[test]
fn pictures_are_scaled_alike_both_ways_and_cut_around_the_middle() {
    // Red tells how far right a pixel was, green how far down; both by 1 in 4 pixels.
    let ramp = |width: u32, height: u32| {
        let pixel = |x: u32, y: u32| {
            let from_middle = |at: u32, side: u32| {
                (128.0 + (at as f64 - side as f64 / 2.0) / 4.0).clamp(0.0, 255.0)
            };
            image::Rgb([from_middle(x, width) as u8, from_middle(y, height) as u8, 0])
        };
        png_of(RgbImage::from_fn(width, height, pixel))
    };
    for (width, height, size) in [
        (512, 512, "128x128"),
        (400, 300, "128x96"),
        (300, 400, "96x128"),
        (1000, 200, "256x64"),
        (100, 900, "64x256"),
        (517, 211, "192x80"),
    ] {
        let files: Files = &[("a.png", ramp(width, height))];
        let settings = Settings { resolution: 128, ..captioned() };
        let (_place, example) = one(files, &settings);
        assert_eq!(example.size.to_string(), size, "{width}x{height}");
        let loaded = example.load().unwrap();
        let (across, down) = (loaded.image.width, loaded.image.height);
        let [red, green, _] = pixel(&loaded, across / 2, down / 2);
        assert!(near(red, 128, 1) && near(green, 128, 1), "{width}x{height}: {red} {green}");
        let (x, y) = (across / 4, down / 4);
        let of = |px: usize, py: usize| pixel(&loaded, px, py).map(f64::from);
        let a_step =
            (of(across / 2 + x, down / 2)[0] - of(across / 2 - x, down / 2)[0]) / (2 * x) as f64;
        let b_step =
            (of(across / 2, down / 2 + y)[1] - of(across / 2, down / 2 - y)[1]) / (2 * y) as f64;
        // Values are rounded to whole numbers at each of the four places.
        let exact = (width as f64 / across as f64).min(height as f64 / down as f64) / 4.0;
        assert!(
            (a_step - exact).abs() <= 1.5 / (2 * x) as f64,
            "{width}x{height}: {a_step} for {exact}"
        );
        assert!(
            (b_step - exact).abs() <= 1.5 / (2 * y) as f64,
            "{width}x{height}: {b_step} for {exact}"
        );
    }
}

#[test]
fn lines_of_a_million_pixels_are_cut_before_they_are_scaled() {
    for (width, height) in [(1_000_000, 1), (1, 1_000_000)] {
        let loaded = load(&[("a.png", png(width, height, 77))], &captioned());
        assert_eq!(loaded.image.width.max(loaded.image.height), 128);
        assert!(loaded.image.bytes.iter().all(|v| *v == 77));
    }
}

#[test]
fn small_pictures_are_made_larger_and_told() {
    for (width, height, told) in
        [(10, 10, true), (64, 63, true), (64, 64, false), (200, 300, false)]
    {
        let place = Place::folder(&[("a.png", png(width, height, 9))]);
        let dataset = place.open(&captioned()).unwrap();
        assert_eq!(dataset.notes.len(), usize::from(told), "{:?}", dataset.notes);
        if told {
            let wanted = format!("a.png: is {width}x{height}; it is made larger");
            assert!(dataset.notes[0].starts_with(&wanted), "{:?}", dataset.notes);
        }
    }
}

#[test]
fn photographs_are_turned_upright() {
    // An EXIF block with one entry: orientation 6, a quarter turn to the right.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let image = RgbImage::from_fn(128, 64, |x, _| {
        if x < 64 { image::Rgb([255, 0, 0]) } else { image::Rgb([0, 0, 255]) }
    });
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.encode(&image, 128, 64, ExtendedColorType::Rgb8).unwrap();
    let loaded = load(&[("a.jpg", bytes)], &captioned());
    assert!(loaded.image.height > loaded.image.width);
    let [above, below] = [8, loaded.image.height - 8].map(|y| pixel(&loaded, 16, y));
    assert!(
        above[0] > 240 && above[2] < 15 && below[0] < 15 && below[2] > 240,
        "{above:?} {below:?}"
    );
}

/// A mask that is white on the left half.
fn half(width: u32, height: u32) -> Vec<u8> {
    let grey = GrayImage::from_fn(width, height, |x, _| {
        image::Luma([if x < width / 2 { 255 } else { 0 }])
    });
    encoded(&grey.into(), ImageFormat::Png)
}

#[test]
fn masks_are_told_by_their_names_and_brought_to_the_same_size() {
    for (picture, mask) in [
        ("a.png", "a.mask.png"),
        ("a.png", "a_mask.png"),
        ("a.png", "masks/a.png"),
        ("x/a.png", "x/masks/a.png"),
        ("x/a.png", "masks/x/a.png"),
        ("x/a.png", "x/a_mask.webp"),
    ] {
        for side in [64, 128] {
            let loaded =
                load(&[(picture, png(128, 128, 50)), (mask, half(side, side))], &captioned());
            let mask = loaded.mask.expect(picture);
            let row = &mask[64 * 30..][..64];
            assert!(row[..28].iter().all(|v| *v > 250), "{row:?}");
            assert!(row[36..].iter().all(|v| *v < 5), "{row:?}");
        }
    }
}

#[test]
fn masks_are_cut_as_their_pictures() {
    // Of 1000 pixels across, the middle 400 are left; white are those from 500 on.
    let image = RgbImage::from_fn(1000, 100, |x, _| image::Rgb([if x < 500 { 0 } else { 255 }; 3]));
    let mask = encoded(&DynamicImage::from(image.clone()).to_luma8().into(), ImageFormat::Png);
    let loaded = load(&[("a.png", png_of(image)), ("a_mask.png", mask)], &captioned());
    let grey: Vec<u8> = loaded.image.bytes.iter().step_by(3).copied().collect();
    assert_eq!(loaded.mask.unwrap(), grey);
    assert_eq!((grey[10], grey[118]), (0, 255));
}

#[test]
fn transparency_is_a_mask_where_there_is_no_other() {
    let mut image = plain(64, 64, [10, 20, 30, 255]).to_rgba8();
    for (x, _, pixel) in image.enumerate_pixels_mut() {
        pixel.0[3] = if x < 32 { 0 } else { 255 };
    }
    let bytes = encoded(&image.into(), ImageFormat::Png);
    let loaded = load(&[("a.png", bytes.clone())], &captioned());
    assert_eq!((pixel(&loaded, 5, 5), pixel(&loaded, 50, 5)), ([255; 3], [10, 20, 30]));
    let mask = loaded.mask.unwrap();
    assert_eq!((mask[5], mask[50]), (0, 255));
    let loaded = load(&[("a.png", bytes), ("a_mask.png", half(64, 64))], &captioned());
    let mask = loaded.mask.unwrap();
    assert_eq!((mask[5], mask[50]), (255, 0));
    let opaque = encoded(&plain(64, 64, [1, 2, 3, 255]), ImageFormat::Png);
    assert_eq!(load(&[("a.png", opaque)], &captioned()).mask, None);
}

#[test]
fn masks_of_nothing_are_no_pictures_and_pictures_of_masks_are() {
    let grey = || png(64, 64, 9);
    let place = Place::folder(&[
        ("a.png", grey()),
        ("masks/a.png", half(64, 64)),
        ("masks/b.png", grey()),
        ("c.mask.png", grey()),
        ("man_with_mask.png", grey()),
        ("venice/masks/d.png", grey()),
    ]);
    let dataset = place.open(&captioned()).unwrap();
    assert_eq!(names(&dataset), ["a.png", "man_with_mask.png", "venice/masks/d.png"]);
    assert_eq!(
        dataset.notes,
        [
            "c.mask.png is the mask of no picture; it is not used",
            "masks/b.png is the mask of no picture; it is not used",
        ]
    );
}

#[test]
fn masks_that_do_not_fit_are_told() {
    for (mask, told) in [
        (
            half(128, 64),
            "its mask a_mask.png has 128x64 pixels, which is not the ratio of the picture's 64x64",
        ),
        (b"no image".to_vec(), "its mask a_mask.png is no image"),
    ] {
        let place = Place::folder(&[
            ("a.png", png(64, 64, 9)),
            ("a_mask.png", mask),
            ("b.png", png(64, 64, 9)),
        ]);
        let dataset = place.open(&captioned()).unwrap();
        assert_eq!(names(&dataset), ["b.png"]);
        assert!(
            skipped(&dataset)[0].starts_with(&format!("a.png: {told}")),
            "{:?}",
            dataset.skipped
        );
    }
}

#[test]
fn keys_tell_pictures_masks_and_sizes_apart() {
    let key = |files: Files, resolution: u32| {
        let (_place, example) = one(files, &Settings { resolution, ..captioned() });
        example.key().to_string()
    };
    let a = ("a.png", png(64, 64, 1));
    let same = key(slice::from_ref(&a), 64);
    assert_eq!(same.len(), 64);
    assert_eq!(same, key(&[("other/name.png", a.1.clone())], 64));
    let others = [
        key(&[("a.png", png(64, 64, 2))], 64),
        key(slice::from_ref(&a), 128),
        key(&[a.clone(), ("a_mask.png", half(64, 64))], 64),
        key(&[a, ("a_mask.png", half(32, 32))], 64),
    ];
    for (i, other) in others.iter().enumerate() {
        assert!(*other != same && !others[..i].contains(other), "{i}");
    }
}

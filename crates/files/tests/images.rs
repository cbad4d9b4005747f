//! Images in and out as users have them: every format, every damage, and the reference's own resampling.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use zoetrope_files::{
    CANNY_THRESHOLDS, Format, Limits, Mask, Note, Picture, check_writable, decode, encode,
    encode_at, glance, glance_base64, header, read, read_mask, read_parameters, write,
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/turbo").join(name)
}

fn gradient(width: u32, height: u32) -> Picture {
    let pixel = |i: u32| [(i % width * 5) as u8, (i / width * 7) as u8, 90];
    Picture { width, height, rgb: (0..width * height).flat_map(pixel).collect() }
}

#[test]
fn edges_are_opencv_s() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    for name in ["photo.png", "odd.png", "tall.png", "large.png"] {
        let read = |folder: &str| {
            let path = fixtures.join(folder).join(name);
            zoetrope_files::read(&path, &Limits::default()).unwrap().picture
        };
        let (got, want) = (read("omni/inputs").edges(CANNY_THRESHOLDS), read("control/edges"));
        assert!(want.rgb.contains(&255), "{name} has no edges");
        assert!(got == want, "{name}");
    }
}

const FORMATS: [Format; 4] = [Format::Png, Format::Jpeg, Format::WebP, Format::Avif];

#[test]
fn every_format_keeps_the_picture_and_its_parameters() {
    let picture = gradient(48, 32);
    let parameters = r#"{"prompt":"a “quoted” 灯塔 🦊","seed":42}"#;
    for format in FORMATS {
        let bytes = encode(&picture, format, Some(parameters)).unwrap();
        assert_eq!(read_parameters(&bytes).as_deref(), Some(parameters), "{format:?}");
        assert_eq!(encode(&picture, format, Some(parameters)).unwrap(), bytes, "{format:?} again");
        assert_eq!(read_parameters(&encode(&picture, format, None).unwrap()), None, "{format:?}");
        let back = decode(&bytes, &Limits::default()).unwrap();
        assert!(back.notes.is_empty());
        let worst =
            back.picture.rgb.iter().zip(&picture.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let most = match format {
            Format::Jpeg => 12,
            Format::Avif => 24,
            _ => 0,
        };
        assert!(worst <= most, "{format:?}: {worst}");
    }
}

#[test]
fn images_of_other_kinds_are_used_and_what_changed_is_said() {
    let cases: [(&str, &[Note]); 7] = [
        ("cmyk.jpg", &[]),
        ("grey16.png", &[Note::Rounded]),
        ("two.gif", &[Note::FirstFrame]),
        ("two.webp", &[Note::FirstFrame]),
        ("two.png", &[Note::FirstFrame]),
        ("turned.jpg", &[Note::Turned]),
        ("alpha.png", &[Note::AlphaOnWhite]),
    ];
    for (name, notes) in cases {
        let got = read(&data(name), &Limits::default()).unwrap();
        assert_eq!(got.notes, notes, "{name}");
        let size = if name == "turned.jpg" { (16, 24) } else { (24, 16) };
        assert_eq!((got.picture.width, got.picture.height), size, "{name}");
    }
    let alpha = read(&data("alpha.png"), &Limits::default()).unwrap().picture;
    assert_eq!(alpha.rgb[..3], [0, 0, 255]);
    assert_eq!(alpha.rgb[3 * 23..3 * 24], [255; 3]);
}

/// libavif decodes all of them to the pictures beside them.
#[test]
fn avif_images_are_what_libavif_makes_of_them() {
    let cases: [(&str, u8, &[Note]); 7] = [
        ("avif444", 1, &[]),
        ("avif422", 16, &[]),
        ("avif420", 16, &[]),
        ("limited", 16, &[]),
        ("grey", 1, &[]),
        ("turned", 1, &[Note::Turned]),
        ("transparent", 2, &[Note::AlphaOnWhite]),
    ];
    for (name, most, notes) in cases {
        let file = format!("{name}.avif");
        let got = read(&data(&file), &Limits::default()).unwrap();
        assert_eq!(got.notes, notes, "{name}");
        let want = read(&data(&format!("{file}.png")), &Limits::default()).unwrap().picture;
        assert_eq!((got.picture.width, got.picture.height), (want.width, want.height), "{name}");
        let off = got.picture.rgb.iter().zip(&want.rgb).map(|(a, b)| a.abs_diff(*b));
        let worst = off.clone().max().unwrap();
        let mean = off.map(f64::from).sum::<f64>() / want.rgb.len() as f64;
        assert!(worst <= most && mean < 1.0, "{name}: {worst} levels, {mean:.2} in the mean");
        let bytes = std::fs::read(data(&file)).unwrap();
        let seen = header(&bytes, &Limits::default()).unwrap();
        assert_eq!((seen.width, seen.height), (want.width, want.height), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_avif_image_is_an_error_or_a_picture(at in 0usize..980, value in any::<u8>(), cut in 0usize..980) {
        let mut bytes = std::fs::read(data("avif444.avif")).unwrap();
        let length = bytes.len();
        bytes[at % length] = value;
        let limits = Limits { pixels_max: 1 << 16, ..Limits::default() };
        let _ = decode(&bytes, &limits);
        let _ = decode(&bytes[..cut % length], &limits);
    }
}

/// A PNG with `profile`.
fn with_profile(
    profile: &moxcms::ColorProfile,
    pixels: &[u8],
    colour: image::ExtendedColorType,
) -> Vec<u8> {
    use image::ImageEncoder as _;
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(profile.encode().unwrap()).unwrap();
    let pixel = usize::from(colour.bits_per_pixel()) / 8;
    encoder.write_image(pixels, (pixels.len() / pixel) as u32, 1, colour).unwrap();
    bytes
}

/// Colours of Display P3 and what they are in sRGB, by the formulas of both; clipped to what sRGB has.
#[test]
fn colours_are_brought_from_their_profile_to_srgb() {
    use image::ExtendedColorType::{L8, Rgb8, Rgba8};
    let colours: [([u8; 3], [u8; 3]); 5] = [
        ([128, 128, 128], [128, 128, 128]),
        ([200, 100, 50], [215, 93, 31]),
        ([60, 140, 90], [0, 142, 85]),
        ([255, 0, 0], [255, 0, 0]),
        ([90, 60, 200], [95, 58, 208]),
    ];
    let p3 = moxcms::ColorProfile::new_display_p3();
    let decoded = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap();
    let sent: Vec<u8> = colours.iter().flat_map(|(p3, _)| *p3).collect();
    let near = |got: &[u8], want: &[u8]| got.iter().zip(want).all(|(a, b)| a.abs_diff(*b) <= 2);
    let want: Vec<u8> = colours.iter().flat_map(|(_, srgb)| *srgb).collect();
    let got = decoded(&with_profile(&p3, &sent, Rgb8));
    assert!(near(&got.picture.rgb, &want), "{:?} is not {want:?}", got.picture.rgb);
    assert_eq!(got.notes, [Note::Colours]);
    // Transparency is laid on white afterwards.
    let sent: Vec<u8> = colours.iter().flat_map(|([r, g, b], _)| [*r, *g, *b, 0]).collect();
    let got = decoded(&with_profile(&p3, &sent, Rgba8));
    assert_eq!(
        (got.picture.rgb, got.notes),
        (vec![255; 15], vec![Note::Colours, Note::AlphaOnWhite])
    );
    // What is sRGB stays as it is, to the bit, and so does what has no use for its profile.
    let srgb = moxcms::ColorProfile::new_srgb();
    let sent: Vec<u8> = colours.iter().flat_map(|(p3, _)| *p3).collect();
    let got = decoded(&with_profile(&srgb, &sent, Rgb8));
    assert_eq!((got.picture.rgb, got.notes), (sent, vec![]));
    let grey = decoded(&with_profile(&p3, &[0, 127, 255], L8));
    assert!(near(&grey.picture.rgb, &[0, 0, 0, 127, 127, 127, 255, 255, 255]), "{grey:?}");
}

fn message(bytes: &[u8]) -> String {
    decode(bytes, &Limits::default()).unwrap_err().to_string()
}

#[test]
fn what_is_no_image_is_told_apart() {
    let cases: [(&[u8], &str); 5] = [
        (b"", "is empty"),
        (b"hello", "is no image of a known format"),
        (b"<?xml version=\"1.0\"?><svg/>", "is an SVG drawing"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\x89PNG\r\n\x1a\n", "is no whole PNG image"),
    ];
    for (bytes, want) in cases {
        assert!(message(bytes).contains(want), "{}", message(bytes));
    }
    let missing = read(Path::new("/nowhere/a.png"), &Limits::default()).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/a.png: cannot be opened"), "{missing}");
    let folder = read(&data(""), &Limits::default()).unwrap_err().to_string();
    assert!(folder.contains("is a folder"), "{folder}");
}

#[test]
fn a_cut_image_is_an_error_at_every_length() {
    for format in FORMATS {
        let bytes = encode(&gradient(40, 24), format, None).unwrap();
        for length in (0..bytes.len() - 16).step_by(7) {
            if decode(&bytes[..length], &Limits::default()).is_ok() {
                // A JPEG that lacks only its end is shown grey by most programs; here it counts as cut.
                panic!("{format:?} cut to {length} of {} was taken", bytes.len());
            }
        }
    }
}

#[test]
fn a_quality_makes_files_smaller_and_keeps_the_parameters() {
    let picture = gradient(97, 64);
    let parameters = r#"{"prompt":"灯塔"}"#;
    for format in [Format::Jpeg, Format::WebP, Format::Avif] {
        let at = |quality| encode_at(&picture, format, quality, Some(parameters)).unwrap();
        let (low, high) = (at(Some(10)), at(Some(95)));
        assert!(low.len() < high.len(), "{format:?}: {} {}", low.len(), high.len());
        for bytes in [low, high, at(Some(0)), at(Some(100))] {
            assert_eq!(read_parameters(&bytes).as_deref(), Some(parameters), "{format:?}");
            if format == Format::Avif {
                continue; // written, not read
            }
            let back = decode(&bytes, &Limits::default()).unwrap().picture;
            assert_eq!((back.width, back.height), (97, 64), "{format:?}");
        }
    }
    let close = encode_at(&picture, Format::WebP, Some(95), None).unwrap();
    let back = decode(&close, &Limits::default()).unwrap().picture;
    let sum: u64 = back.rgb.iter().zip(&picture.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(sum / (back.rgb.len() as u64) < 6, "{sum}");
    let png = encode(&picture, Format::Png, None).unwrap();
    assert_eq!(encode_at(&picture, Format::Png, Some(10), None).unwrap(), png);
    let long = Picture { width: 16_384, height: 1, rgb: vec![0; 3 * 16_384] };
    assert!(encode_at(&long, Format::WebP, Some(50), None).is_err());
}

const GLANCED: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Gif, Format::Avif];

#[test]
fn a_glance_tells_format_and_size_of_whole_files_alone() {
    // The last is of more than what is decoded of base64 at first.
    for (width, height) in [(1, 1), (97, 64), (333, 250)] {
        let picture = noise(width, height);
        for format in GLANCED {
            for quality in [None, Some(90)] {
                let bytes = encode_at(&picture, format, quality, Some("{}")).unwrap();
                let seen = glance(&bytes).unwrap();
                assert_eq!((seen.width, seen.height), (width, height), "{format:?}");
                assert_eq!(Format::from(seen.format), format);
                assert_eq!(glance_base64(&STANDARD.encode(&bytes)).unwrap(), seen);
                // A byte less than all may be padding; what holds a picture's end may not be missing.
                for length in [0, 3, 11, 19, bytes.len() / 2, bytes.len() - 30] {
                    let cut = &bytes[..length.min(bytes.len() - 30)];
                    assert!(glance(cut).is_err(), "{format:?} of {length}");
                    assert!(
                        glance_base64(&STANDARD.encode(cut)).is_err(),
                        "{format:?} of {length}"
                    );
                }
            }
        }
    }
}

/// A picture that no format makes small.
fn noise(width: u32, height: u32) -> Picture {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Picture { width, height, rgb: (0..3 * width * height).map(|_| next()).collect() }
}

#[test]
fn what_is_no_base64_is_no_picture() {
    let bytes = encode(&noise(64, 64), Format::Png, None).unwrap();
    let good = STANDARD.encode(&bytes);
    let mut wrong = good.clone().into_bytes();
    wrong[good.len() / 2] = b'-';
    let wrong = String::from_utf8(wrong).unwrap();
    for text in ["", "=", "====", "AAA", &wrong, &good[1..], &format!("{good}\n")] {
        assert!(glance_base64(text).is_err());
    }
}

#[test]
fn headers_say_what_a_file_will_be_once_it_is_decoded() {
    for name in ["cmyk.jpg", "grey16.png", "two.gif", "two.webp", "turned.jpg", "alpha.png"] {
        let bytes = std::fs::read(data(name)).unwrap();
        let got = header(&bytes, &Limits::default()).unwrap();
        let picture = decode(&bytes, &Limits::default()).unwrap().picture;
        assert_eq!((got.width, got.height), (picture.width, picture.height), "{name}");
    }
    assert!(header(b"<html>", &Limits::default()).is_err());
}

proptest! {
    #[test]
    fn glances_at_anything_end(start in 0usize..5, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let marks: [&[u8]; 5] =
            [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x10ftypavif"];
        let all = [marks[start], &bytes].concat();
        let _ = glance(&all);
        let _ = glance_base64(&STANDARD.encode(&all));
    }
}

#[test]
fn a_picture_that_claims_to_be_huge_is_refused_from_its_header() {
    let mut png = encode(&gradient(16, 16), Format::Png, None).unwrap();
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]); // 60000 x 60000
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(message(&png).contains("60000x60000"), "{}", message(&png));
    let mut gif = std::fs::read(data("two.gif")).unwrap();
    gif[6..10].copy_from_slice(&[0xff; 4]);
    assert!(message(&gif).contains("65535x65535"), "{}", message(&gif));
    let small = Limits { bytes_max: 10, ..Limits::default() };
    assert!(read(&data("two.gif"), &small).unwrap_err().to_string().contains("larger than"));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(
            crc ^ u32::from(*b),
            |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 },
        )
    })
}

/// Recorded `[1, channels, h, w]` floats of the reference's preprocessing, as bytes of `[h, w, channels]`.
fn recorded(name: &str, signed: bool) -> (u32, u32, Vec<u8>) {
    let file = std::fs::read(fixture("golden/preprocess.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let view = tensors.tensor(name).unwrap();
    let [_, channels, height, width] = view.shape() else { panic!() };
    let value = |i: usize| {
        let v = f32::from_le_bytes(view.data()[4 * i..4 * i + 4].try_into().unwrap());
        (if signed { (v + 1.0) / 2.0 * 255.0 } else { v * 255.0 }).round() as u8
    };
    let plane = height * width;
    let bytes =
        (0..plane).flat_map(|p| (0..*channels).map(move |c| c * plane + p)).map(value).collect();
    (*width as u32, *height as u32, bytes)
}

#[test]
fn resampling_is_the_reference_s_byte_for_byte() {
    for name in ["photo.png", "odd.png", "large.png"] {
        let (width, height, want) = recorded(&format!("image.{name}"), true);
        let got = read(&fixture(&format!("inputs/{name}")), &Limits::default())
            .unwrap()
            .picture
            .resized(width, height);
        let worst = got.rgb.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(got.rgb.len() == want.len() && worst == 0, "{name}: {worst}");
    }
    for name in ["mask.png", "mask_large.png"] {
        let (width, height, want) = recorded(&format!("mask.{name}"), false);
        let got: Mask = read_mask(&fixture(&format!("inputs/{name}")), &Limits::default())
            .unwrap()
            .resized(width, height);
        let split: Vec<u8> = got.grey.iter().map(|v| if *v >= 128 { 255 } else { 0 }).collect();
        let other = split.iter().zip(&want).filter(|(a, b)| a != b).count();
        assert_eq!(other, 0, "{name}: pixels that fall on the other side");
    }
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    write(&path, b"one").unwrap();
    write(&path, b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    check_writable(&folder.path().join("b.png")).unwrap();
    let error = |path: &Path| check_writable(path).unwrap_err().to_string();
    assert!(error(folder.path()).contains("is a folder"));
    assert!(error(&folder.path().join("no/b.png")).contains("there is no folder"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    assert!(
        Format::of(Path::new("a.bmp"))
            .unwrap_err()
            .to_string()
            .contains(".png, .jpg, .webp, .gif or .avif")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_images_never_panic(kind in 0..4usize, at in 0.0..1.0f64, bytes in prop::collection::vec(any::<u8>(), 1..12)) {
        let names = ["cmyk.jpg", "two.gif", "two.webp", "alpha.png"];
        let mut file = std::fs::read(data(names[kind])).unwrap();
        let start = ((file.len() - bytes.len()) as f64 * at) as usize;
        file[start..start + bytes.len()].copy_from_slice(&bytes);
        let _ = decode(&file, &Limits::default());
        let _ = read_parameters(&file);
    }
}

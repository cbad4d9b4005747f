//! Zips that are damaged, or made to harm whoever unpacks them.

use zip::CompressionMethod;

use crate::*;

/// What is said of a zip that is refused as a whole.
fn refused(bytes: &[u8]) -> String {
    open_file(bytes, &captioned()).err().expect("it is refused")
}

/// `bytes` with every `from` replaced by `to`, as no honest packer would write it.
fn forged(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|i| bytes[*i..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// Where the headers of the central directory begin.
fn central(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() - 4).filter(|i| bytes[*i..].starts_with(b"PK\x01\x02")).collect()
}

/// A zip whose directory says that each file unpacks to `size` bytes.
fn claiming(mut bytes: Vec<u8>, size: u32) -> Vec<u8> {
    for at in central(&bytes) {
        bytes[at + 24..at + 28].copy_from_slice(&size.to_le_bytes());
    }
    bytes
}

#[test]
fn what_is_no_zip_is_refused() {
    for bytes in [&b""[..], b"PK", b"hello", &png(64, 64, 1)] {
        let told = refused(bytes);
        assert!(told.contains("is neither a folder nor a whole zip"), "{told}");
    }
    let told = Dataset::open(Path::new("/nowhere/at/all"), &captioned()).err().unwrap().to_string();
    assert!(told.starts_with("/nowhere/at/all: cannot be read"), "{told}");
}

#[test]
fn zips_without_pictures_are_refused() {
    let told = refused(&zip_of(&[]));
    assert!(told.contains("is an empty zip"), "{told}");
    let mut folders = zip::ZipWriter::new(Cursor::new(Vec::new()));
    folders.add_directory("a/b", SimpleFileOptions::default()).unwrap();
    for bytes in [
        folders.finish().unwrap().into_inner(),
        zip_of(&[("__MACOSX/a.png", png(64, 64, 1))]),
        zip_of(&[("a.txt", b"a".to_vec())]),
        zip_of(&[("inside.zip", zip_of(&[("a.png", png(64, 64, 1))]))]),
    ] {
        let told = refused(&bytes);
        assert!(told.contains("holds no pictures (PNG, JPEG"), "{told}");
    }
}

#[test]
fn zips_that_are_cut_short_are_refused() {
    let whole = zip_of(&[("a.png", png(64, 64, 1)), ("b.png", png(64, 64, 2))]);
    assert!(open_file(&whole, &captioned()).is_ok());
    for length in 0..whole.len() {
        let told = refused(&whole[..length]);
        assert!(told.contains("cut short"), "{length} of {}: {told}", whole.len());
    }
}

#[test]
fn paths_that_climb_out_are_refused() {
    for name in [
        "../x.png",
        "/abc.png",
        "C:/x.png",
        "a/../../x.png",
        "..\\x.png",
        "a\\..\\..\\x.png",
        "\\\\srv\\x.png",
        "__MACOSX/../../x.png",
    ] {
        let harmless = "n".repeat(name.len());
        let zip = zip_of(&[("a.png", png(64, 64, 1)), (&harmless, png(64, 64, 1))]);
        let told = refused(&forged(zip, harmless.as_bytes(), name.as_bytes()));
        let wanted =
            format!("has the entry `{}`, which leads out of the zip", name.replace('\\', "/"));
        assert!(told.contains(&wanted), "{told}");
    }
}

#[test]
fn links_are_refused() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("a.png", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let told = refused(&zip.finish().unwrap().into_inner());
    assert!(told.contains("has the link `a.png`"), "{told}");
}

#[test]
fn encrypted_zips_are_refused() {
    let mut bytes = zip_of(&[("a.png", png(64, 64, 1))]);
    let at = central(&bytes)[0];
    bytes[at + 8] |= 1;
    let told = refused(&bytes);
    assert!(told.contains("is encrypted at `a.png`"), "{told}");
}

#[test]
fn two_files_of_one_name_are_refused() {
    let two = |a: &str, b: &str| zip_of(&[(a, png(64, 64, 1)), (b, png(64, 64, 2))]);
    let told = refused(&forged(two("a.png", "b.png"), b"b.png", b"a.png"));
    assert!(told.contains("has two files of one name"), "{told}");
    let told = refused(&two("x/a.png", "x/./a.png"));
    assert!(told.contains("has `x/a.png` twice"), "{told}");
}

#[test]
fn files_that_unpack_to_too_much_are_left_out() {
    let zeros = vec![0; (64 << 20) + 1];
    let bytes = zip_of(&[("a.png", png(64, 64, 1)), ("bomb.png", zeros)]);
    assert!(bytes.len() < 200_000, "{} bytes", bytes.len());
    let dataset = open_file(&bytes, &captioned()).unwrap();
    assert_eq!(names(&dataset), ["a.png"]);
    assert_eq!(skipped(&dataset), ["bomb.png: is larger than 64 MiB, the most that is read"]);
}

#[test]
fn zips_that_unpack_to_too_much_are_refused_before_they_are_unpacked() {
    let files: Vec<_> = (0..9).map(|i| (format!("{i}.png"), vec![0; 10])).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let told = refused(&claiming(zip_of(&files), u32::MAX - 1));
    assert!(told.contains("unpacks to more than 32 GiB"), "{told}");
}

#[test]
fn files_that_are_larger_than_the_zip_says_are_left_out() {
    let dataset = open_file(
        &claiming(zip_of(&[("a.png", png(64, 64, 1)), ("zeros.png", vec![0; 1 << 20])]), 4000),
        &captioned(),
    );
    let told = skipped(&dataset.unwrap());
    assert_eq!(
        told,
        [
            "zeros.png: cannot be unpacked (File is larger than its declared uncompressed size); pack it again, deflated or stored"
        ]
    );
}

#[test]
fn zips_of_too_many_files_are_refused() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for i in 0..=zoetrope_trainer::data::ENTRIES_MAX {
        zip.start_file(format!("{i}.png"), stored).unwrap();
    }
    let told = refused(&zip.finish().unwrap().into_inner());
    assert!(told.contains("holds 50001 files; 50000 are the most that is read"), "{told}");
}

#[test]
fn damaged_and_unknown_entries_are_left_out() {
    let whole = zip_of(&[("a.png", png(64, 64, 1)), ("b.png", png(64, 64, 2))]);
    let left = |bytes: &[u8], told: &str| {
        let dataset = open_file(bytes, &captioned()).unwrap();
        assert_eq!(names(&dataset), ["b.png"]);
        assert!(
            skipped(&dataset)[0].starts_with(&format!("a.png: {told}")),
            "{:?}",
            dataset.skipped
        );
    };
    // The first byte of the packed data lies behind a header of 30 bytes and the name.
    let mut damaged = whole.clone();
    damaged[30 + 5 + 20] ^= 0xff;
    left(&damaged, "cannot be unpacked (");
    let mut lzma = whole.clone();
    let at = central(&lzma)[0];
    lzma[at + 10] = 14;
    left(&lzma, "cannot be unpacked (compression method not supported");
}

#[test]
fn paths_that_begin_with_a_dot_are_read() {
    let dataset = open_file(
        &zip_of(&[("./x//a.png", png(64, 64, 1)), ("./x/a.txt", b"one".to_vec())]),
        &settings(),
    );
    let dataset = dataset.unwrap();
    assert_eq!((names(&dataset), &*dataset.examples[0].caption), (vec!["x/a.png"], "one"));
}

//! Files that are no pictures, whatever their names say, and folders that have no end.

use crate::*;

/// A picture `bad.png` of `bytes` is left out with what is `told`, or fatal.
fn check(bytes: &[u8], told: &str) {
    let place = Place::folder(&[("bad.png", bytes.to_vec()), ("good.png", png(64, 64, 9))]);
    let dataset = place.open(&captioned()).unwrap();
    assert_eq!(names(&dataset), ["good.png"]);
    let all = skipped(&dataset);
    assert!(
        all.len() == 1 && all[0].starts_with(&format!("bad.png: {told}")),
        "{all:?} without {told}"
    );
    let strict = place.open(&Settings { strict: true, ..captioned() }).err().unwrap();
    assert_eq!(strict, all[0]);
    let alone = Place::folder(&[("bad.png", bytes.to_vec())]).open(&captioned()).err().unwrap();
    assert!(
        alone.contains("holds no picture that can be used; the first problem: bad.png: "),
        "{alone}"
    );
}

#[test]
fn pictures_that_cannot_be_used_are_told_or_fatal() {
    let whole = png(64, 64, 9);
    let jpeg = encoded(&plain(64, 64, [1, 2, 3, 255]).to_rgb8().into(), ImageFormat::Jpeg);
    // A QOI header says the size in its first 14 bytes, and that is all there is.
    let qoi = |width: u32, height: u32| {
        [&b"qoif"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[3, 0]].concat()
    };
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    check(b"", "is empty");
    check(b"hello", "is no image of a known format");
    check(b"<html><body>404", "is a web page, not an image");
    check(b"<svg xmlns='x'>", "is an SVG drawing");
    check(&whole[..whole.len() / 2], "is no whole PNG image");
    check(&damaged, "is no whole PNG image");
    check(&jpeg[..jpeg.len() - 20], "is no whole JPEG image");
    check(&qoi(8193, 8192), "has 8193x8192 pixels; at most");
    check(&qoi(19_000, 19_000), "has 19000x19000 pixels");
    check(&qoi(0, 5), "is no whole QOI image");
    check(&qoi(64, 64), "is no whole QOI image");
    check(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "is no whole AVIF image");
}

#[test]
fn files_that_are_too_large_are_left_out() {
    let place = Place::folder(&[("good.png", png(64, 64, 9))]);
    let large = std::fs::File::create(place.path().join("large.png")).unwrap();
    large.set_len((64 << 20) + 1).unwrap();
    let dataset = place.open(&captioned()).unwrap();
    assert_eq!(skipped(&dataset), ["large.png: is larger than 64 MiB, the most that is read"]);
}

#[test]
fn the_first_problem_of_a_prior_is_its_own() {
    let place = Place::folder(&[("bad.png", b"x".to_vec()), ("good.png", png(64, 64, 9))]);
    let prior = Place::folder(&[("worse.png", b"x".to_vec())]);
    let settings = Settings { prior: Some(prior.path().into()), ..captioned() };
    let told = place.open(&settings).err().unwrap();
    assert!(told.contains("the first problem: worse.png: "), "{told}");
    assert!(told.starts_with(&prior.path().display().to_string()), "{told}");
}

#[test]
fn empty_folders_are_refused() {
    let told = Place::folder(&[]).open(&captioned()).err().unwrap();
    assert!(told.contains("holds no pictures (PNG, JPEG"), "{told}");
}

#[test]
fn pictures_that_change_after_they_were_checked_are_told() {
    let place = Place::folder(&[("a.png", png(64, 64, 9))]);
    let dataset = place.open(&captioned()).unwrap();
    std::fs::write(place.path().join("a.png"), b"gone").unwrap();
    let told = dataset.examples[0].load().err().unwrap().to_string();
    assert!(told.starts_with("a.png: is no image"), "{told}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_never_in_circles() {
    use std::os::unix::fs::symlink;
    let place = Place::folder(&[("x/a.png", png(64, 64, 9))]);
    let elsewhere = Place::folder(&[("b.png", png(64, 64, 9))]);
    symlink(elsewhere.path(), place.path().join("y")).unwrap();
    symlink("nowhere", place.path().join("z.png")).unwrap();
    let dataset = place.open(&captioned()).unwrap();
    assert_eq!(names(&dataset), ["x/a.png", "y/b.png"]);
    assert!(skipped(&dataset)[0].starts_with("z.png: cannot be read"), "{:?}", dataset.skipped);
    symlink("..", place.path().join("x/up")).unwrap();
    let told = place.open(&captioned()).err().unwrap();
    assert!(told.contains("x/up is a link to a folder that it lies in"), "{told}");
}

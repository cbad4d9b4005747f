//! Where captions come from, and which one counts.

use crate::*;

/// The captions of `files`, beside a picture `a.png` and a picture `sub/b.png`, must be `wanted`.
fn check(files: Files, settings: &Settings, wanted: [&str; 2]) {
    let pictures = [("a.png", png(64, 64, 9)), ("sub/b.png", png(64, 64, 9))];
    let dataset = Place::folder(&[&pictures, files].concat()).open(settings).unwrap();
    let captions: Vec<&str> = dataset.examples.iter().map(|e| e.caption.as_str()).collect();
    assert_eq!(captions, wanted, "{:?}", files.iter().map(|f| f.0).collect::<Vec<_>>());
    assert!(dataset.skipped.is_empty(), "{:?}", dataset.skipped);
}

#[test]
fn every_form_of_caption_is_read() {
    let text = |text: &str| text.as_bytes().to_vec();
    let cases: [(Files, [&str; 2]); 9] = [
        (&[("a.txt", text(" one\n")), ("sub/b.txt", text("two, three"))], ["one", "two, three"]),
        (&[("a.txt", text("\u{feff}with a mark"))], ["with a mark", "a picture"]),
        (&[("a.txt", text(""))], ["", "a picture"]),
        (
            &[("metadata.jsonl", {
                text(concat!(
                    r#"{"file_name": "a.png", "text": "öne", "other": 1}"#,
                    "\n\n",
                    r#"{"image": "sub/b.png", "caption": "two"}"#,
                ))
            })],
            ["öne", "two"],
        ),
        (
            &[("sub/metadata.jsonl", text("{\"file_name\":\"b.png\",\"prompt\":\"inside\"}\r\n"))],
            ["a picture", "inside"],
        ),
        (
            &[(
                "captions.csv",
                text(
                    "id,Image,Caption\r\n1,a.png,\"one, \"\"two\"\"\nthree\"\r\n2,sub\\b.png,four",
                ),
            )],
            ["one, \"two\"\nthree", "four"],
        ),
        (
            &[("captions.csv", text("\u{feff}file_name,text\n./a.png,marked\n"))],
            ["marked", "a picture"],
        ),
        (&[("metadata.csv", text("prompt,file\none,a.png\n"))], ["one", "a picture"]),
        (&[], ["a picture", "a picture"]),
    ];
    for (files, wanted) in cases {
        check(files, &captioned(), wanted);
    }
}

#[test]
fn the_nearest_caption_counts() {
    let row = |path: &str, caption: &str| {
        format!("{{\"file_name\": \"{path}\", \"text\": \"{caption}\"}}\n").into_bytes()
    };
    let csv =
        |path: &str, caption: &str| format!("file_name,text\n{path},{caption}\n").into_bytes();
    let cases: [(Files, [&str; 2]); 4] = [
        (
            &[("a.txt", b"beside".to_vec()), ("metadata.jsonl", row("a.png", "json"))],
            ["beside", "a picture"],
        ),
        (
            &[
                ("captions.csv", csv("a.png", "captions")),
                ("metadata.csv", csv("a.png", "metadata")),
                ("metadata.jsonl", row("a.png", "json")),
            ],
            ["json", "a picture"],
        ),
        (
            &[
                ("captions.csv", csv("a.png", "captions")),
                ("metadata.csv", csv("a.png", "metadata")),
            ],
            ["metadata", "a picture"],
        ),
        (
            &[
                ("metadata.jsonl", row("sub/b.png", "far")),
                ("sub/captions.csv", csv("b.png", "near")),
            ],
            ["a picture", "near"],
        ),
    ];
    for (files, wanted) in cases {
        check(files, &captioned(), wanted);
    }
}

#[test]
fn triggers_stand_in_every_caption() {
    let files: Files =
        &[("a.txt", b"a photo of [trigger]".to_vec()), ("sub/b.txt", b"a dog".to_vec())];
    let with = Settings { trigger: Some("ohwx".into()), ..settings() };
    check(files, &with, ["a photo of ohwx", "ohwx, a dog"]);
    check(
        &[],
        &Settings { default_caption: Some("[trigger] cat".into()), ..with.clone() },
        ["ohwx cat", "ohwx cat"],
    );
    check(&[], &Settings { default_caption: Some(String::new()), ..with }, ["ohwx", "ohwx"]);
    check(files, &settings(), ["a photo of", "a dog"]);
}

#[test]
fn pictures_of_the_prior_come_last_and_have_no_trigger() {
    let prior = Place::folder(&[("a.png", png(64, 64, 1)), ("a.txt", b"a [trigger] dog".to_vec())]);
    let place = Place::folder(&[("z.png", png(64, 64, 2)), ("z.txt", b"this dog".to_vec())]);
    let settings =
        Settings { trigger: Some("ohwx".into()), prior: Some(prior.path().into()), ..settings() };
    let dataset = place.open(&settings).unwrap();
    let told: Vec<_> = dataset.examples.iter().map(|e| (e.caption.as_str(), e.prior)).collect();
    assert_eq!(told, [("ohwx, this dog", false), ("a  dog", true)]);
}

#[test]
fn captions_that_cannot_be_used_are_told_or_fatal() {
    let wrong = |name: &'static str, text: &[u8], told: &str| {
        let files =
            [("a.png", png(64, 64, 9)), ("b.png", png(64, 64, 9)), ("b.txt", b"b".to_vec())];
        let place = Place::folder(&[&files[..], &[(name, text.to_vec())]].concat());
        let dataset = place.open(&settings()).unwrap();
        assert_eq!(names(&dataset), ["b.png"], "{name}");
        let all = skipped(&dataset);
        assert!(all[0].contains(told) && all[0].starts_with(name), "{all:?} without {told}");
        assert!(all.last().unwrap().starts_with("a.png: "), "{all:?}");
        let strict = place.open(&Settings { strict: true, ..settings() }).err().unwrap();
        assert!(strict.contains(told) && strict.starts_with(name), "{strict} without {told}");
    };
    wrong("a.txt", b"caf\xe9 in Latin 1", "is not UTF-8 from byte 3 on");
    wrong("a.txt", b"\xef\xbb\xbfok \xff", "is not UTF-8 from byte 6 on");
    wrong("captions.csv", b"file_name,text\na.png,caf\xe9\n", "is not UTF-8 from byte 24 on");
    wrong(
        "captions.csv",
        b"file_name,words\na.png,hello\n",
        r#"has the columns ["file_name", "words"]; one must be called `text`"#,
    );
    wrong("captions.csv", b"name,text\na.png,hello\n", "one must be called `file_name`");
    wrong("captions.csv", b"", "has the columns []");
    wrong("captions.csv", b"file_name,text\na.png\n", "line 2 cannot be read");
    wrong(
        "captions.csv",
        b"file_name,text\nc.png,hello\n",
        "line 2 names `c.png`, which is no picture",
    );
    wrong("metadata.jsonl", b"\n{\"file_name\": \"a.png\", \"te", "line 2 is no JSON");
    wrong(
        "metadata.jsonl",
        br#"{"file_name": "a.png", "text": 7}"#,
        "line 1 has no text in `text`, `caption`",
    );
    wrong("metadata.jsonl", br#"{"text": "hello"}"#, "line 1 has no text in `file_name`");
    wrong(
        "metadata.jsonl",
        br#"{"file_name": "../a.png", "text": "x"}"#,
        "names `../a.png`, which is no picture",
    );
}

#[test]
fn one_bad_row_spares_the_others() {
    let place = Place::folder(&[
        ("a.png", png(64, 64, 9)),
        ("captions.csv", b"file_name,text\nb.png,gone\nshort\na.png,whole\n".to_vec()),
    ]);
    let dataset = place.open(&settings()).unwrap();
    assert_eq!(dataset.examples[0].caption, "whole");
    assert_eq!(dataset.skipped.len(), 2);
}

#[test]
fn pictures_without_a_caption_are_told_or_fatal() {
    let place = Place::folder(&[
        ("a.png", png(64, 64, 9)),
        ("b.png", png(64, 64, 9)),
        ("b.txt", b"b".to_vec()),
    ]);
    let dataset = place.open(&settings()).unwrap();
    assert_eq!(names(&dataset), ["b.png"]);
    assert!(skipped(&dataset)[0].starts_with("a.png: has no caption"), "{:?}", dataset.skipped);
    let strict = place.open(&Settings { strict: true, ..settings() }).err().unwrap();
    assert!(strict.starts_with("a.png: has no caption"), "{strict}");
    assert_eq!(names(&place.open(&captioned()).unwrap()), ["a.png", "b.png"]);
}

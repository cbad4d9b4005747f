//! Pictures that were made: shown page by page, found by their words, marked and forgotten, in either database.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use place::{Place, done, new};
use zoetrope_jobs::{Attempt, FileRow, Limits, NewPicture, Picture, Queue, Search};

const NOW: i64 = 1_700_000_000_000;

fn picture(prompt: &str, file: &str) -> NewPicture {
    NewPicture {
        file: file.into(),
        model: "fal-ai/z-image/turbo".into(),
        prompt: prompt.into(),
        width: 192,
        height: 128,
        seed: Some(u64::MAX),
    }
}

async fn opened() -> (Place, Queue, Arc<AtomicI64>) {
    let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(NOW)));
    let queue = place.open(&clock, Limits::default()).await;
    (place, queue, clock)
}

/// A picture of each prompt, a second after the other.
async fn made(queue: &Queue, clock: &AtomicI64, owner: &str, prompts: &[&str]) {
    for prompt in prompts {
        let at = clock.load(Ordering::Relaxed);
        let file = format!("{at}/{owner}.png");
        let request = format!("request-{at}");
        queue.show_pictures((&request, owner), &[picture(prompt, &file)]).await.unwrap();
        clock.fetch_add(1000, Ordering::Relaxed);
    }
}

fn prompts(pictures: &[Picture]) -> Vec<&str> {
    pictures.iter().map(|picture| picture.prompt.as_str()).collect()
}

async fn found(queue: &Queue, words: &str) -> Vec<String> {
    let search = Search { words: words.into(), ..Search::default() };
    let pictures = queue.pictures(&search).await.unwrap();
    pictures.into_iter().map(|picture| picture.prompt).collect()
}

#[tokio::test]
async fn a_page_follows_the_other_newest_first() {
    let (_place, queue, clock) = opened().await;
    let all: Vec<String> = (0..7).map(|at| format!("picture {at}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    made(&queue, &clock, "local", &names).await;
    let (mut seen, mut before) = (Vec::new(), i64::MAX);
    loop {
        let search = Search { before, most: 3, ..Search::default() };
        let page = queue.pictures(&search).await.unwrap();
        let Some(last) = page.last() else { break };
        before = last.number;
        seen.extend(prompts(&page).into_iter().map(String::from));
    }
    assert_eq!(seen, all.iter().rev().cloned().collect::<Vec<_>>());
    let search = Search { from_ms: NOW + 2000, until_ms: NOW + 4000, ..Search::default() };
    let page = queue.pictures(&search).await.unwrap();
    assert_eq!(prompts(&page), ["picture 3", "picture 2"]);
    assert_eq!(page[0].seed.as_deref(), Some("18446744073709551615"));
}

#[tokio::test]
async fn words_are_found_and_nothing_else_is() {
    let (_place, queue, clock) = opened().await;
    let all = [
        "a red house, two trees",
        "红色的房子和太阳",
        "A house-boat at dusk",
        "it's 'quoted' \"text\"",
    ];
    made(&queue, &clock, "local", &all).await;
    let cases: [(&str, &[&str]); 10] = [
        ("house", &[all[2], all[0]]),
        ("HOU", &[all[2], all[0]]),
        ("house red", &[all[0]]),
        ("ouse", &[]),
        ("房子", &[all[1]]),
        ("子房", &[]),
        ("太阳 红色", &[all[1]]),
        ("quoted it's", &[all[3]]),
        ("house OR dusk", &[]),
        ("!!", &[all[3], all[2], all[1], all[0]]),
    ];
    for (words, expected) in cases {
        assert_eq!(found(&queue, words).await, expected, "{words}");
    }
    for hostile in
        ["'; DROP TABLE pictures; --", "a\" OR \"b", "* ^ NEAR(a b)", "\0", &"x ".repeat(500)]
    {
        found(&queue, hostile).await;
    }
}

#[tokio::test]
async fn everybody_sees_and_marks_their_own() {
    let (_place, queue, clock) = opened().await;
    made(&queue, &clock, "a", &["of a", "also of a"]).await;
    made(&queue, &clock, "b", &["of b"]).await;
    let of = |owner: &str| Search { owner: owner.into(), ..Search::default() };
    assert_eq!(queue.pictures(&of("a")).await.unwrap().len(), 2);
    let theirs = queue.pictures(&of("b")).await.unwrap()[0].number;
    assert_eq!(queue.mark_pictures(&[theirs], "a", true).await.unwrap(), 0);
    assert_eq!(queue.delete_pictures(&[theirs], "a").await.unwrap(), 0);
    assert!(queue.picture(theirs, "a").await.unwrap().is_none());
    assert_eq!(queue.mark_pictures(&[theirs], "b", true).await.unwrap(), 1);
    let marked = Search { favourites: true, ..Search::default() };
    assert_eq!(prompts(&queue.pictures(&marked).await.unwrap()), ["of b"]);
    let words = Search { words: "of".into(), ..of("a") };
    assert_eq!(queue.pictures(&words).await.unwrap().len(), 2);
    let model = |model: &str| Search { model: model.into(), ..of("a") };
    assert_eq!(queue.pictures(&model("fal-ai/z-image/turbo")).await.unwrap().len(), 2);
    assert_eq!(queue.pictures(&model("fal-ai/z-image/base")).await.unwrap().len(), 0);
}

#[tokio::test]
async fn pictures_come_with_their_request_s_end_and_go_with_it() {
    let (_place, queue, _clock) = opened().await;
    let id = queue.submit(new()).await.unwrap();
    let lease = queue.claim().await.unwrap().unwrap();
    let files = ["one/a.png", "two/b.png"];
    for name in files {
        let row = FileRow {
            name: name.into(),
            owner: "local".into(),
            request: Some(id.clone()),
            size: 1,
            created_ms: NOW,
            expires_ms: None,
        };
        queue.insert_file(&row).await.unwrap();
    }
    let pictures = files.map(|file| picture("two", file));
    assert!(queue.pictures_of(&id).await.unwrap().is_empty());
    lease.finish_with(Attempt::End(done()), &pictures).await.unwrap();
    let shown = queue.pictures_of(&id).await.unwrap();
    assert_eq!(shown.iter().map(|picture| picture.file.as_str()).collect::<Vec<_>>(), files);
    assert_eq!(shown[0].owner, "local");

    assert_eq!(queue.delete_pictures(&[shown[0].number], "").await.unwrap(), 1);
    assert_eq!(queue.files_to_delete(10).await.unwrap(), ["one/a.png"]);
    assert!(queue.request(&id).await.unwrap().is_some(), "it has another picture");
    assert_eq!(queue.delete_pictures(&[shown[1].number], "").await.unwrap(), 1);
    assert!(queue.request(&id).await.unwrap().is_none(), "it has none left");
    assert_eq!(found(&queue, "two").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_whose_time_is_over_takes_its_picture_along() {
    let (_place, queue, clock) = opened().await;
    made(&queue, &clock, "local", &["short"]).await;
    let [picture] = queue.pictures(&Search::default()).await.unwrap().try_into().unwrap();
    assert!(queue.set_thumbnail(picture.number, "small/a.webp").await.unwrap());
    assert!(!queue.set_thumbnail(picture.number, "other/a.webp").await.unwrap());
    queue.forget_file(&picture.file).await.unwrap();
    assert!(queue.pictures(&Search::default()).await.unwrap().is_empty());
}

/// The slowest of some runs may wait for the machine; the median says what a query takes.
async fn median(mut runs: impl AsyncFnMut()) -> Duration {
    let mut took = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        runs().await;
        took.push(begun.elapsed());
    }
    took.sort();
    took[4]
}

/// `cargo test --test pictures -- --ignored --nocapture` prints what docs/web.md tells.
#[tokio::test]
#[ignore = "fills a database with 100,000 pictures"]
async fn a_hundred_thousand_pictures_are_looked_through_at_once() {
    let (_place, queue, clock) = opened().await;
    let (colours, things) = (
        ["red", "blue", "green", "white", "yellow"],
        ["house", "tree", "lake", "hill", "boat", "moon", "cloud"],
    );
    let mut number = 0;
    while number < 100_000 {
        let batch: Vec<NewPicture> = (0..16)
            .map(|_| {
                number += 1;
                let (colour, thing) = (colours[number % 5], things[number % 7]);
                let rare = if number % 10_000 == 0 { ", a zebra 斑马" } else { "" };
                picture(
                    &format!("a {colour} {thing} number {number}{rare}"),
                    &format!("{number}/a.png"),
                )
            })
            .collect();
        let at = clock.fetch_add(1000, Ordering::Relaxed);
        let owner = if at % 2000 == 0 { "a" } else { "b" };
        queue.show_pictures((&format!("request-{at}"), owner), &batch).await.unwrap();
    }
    let middle = Search { most: 1, until_ms: NOW + 3_000_000, ..Search::default() };
    let middle = queue.pictures(&middle).await.unwrap()[0].number;
    queue.mark_pictures(&[middle], "", true).await.unwrap();
    let search = |words: &str, owner: &str, before: i64| Search {
        words: words.into(),
        owner: owner.into(),
        before,
        most: 61,
        ..Search::default()
    };
    let cases = [
        ("the first page", search("", "", i64::MAX), 61),
        ("a page in the middle", search("", "", middle), 61),
        ("a key's page", search("", "a", middle), 61),
        ("a common word", search("red house", "", i64::MAX), 61),
        ("a rare word", search("zebra", "", i64::MAX), 10),
        ("a rare word in Chinese", search("斑马", "", i64::MAX), 10),
        ("a word that is nowhere", search("giraffe", "", i64::MAX), 0),
        (
            "an endpoint that made none",
            Search { model: "none".into(), ..search("", "", i64::MAX) },
            0,
        ),
        ("the first day", Search { until_ms: NOW + 60_000, ..search("", "", i64::MAX) }, 61),
        ("favourites", Search { favourites: true, ..search("", "", i64::MAX) }, 1),
    ];
    for (name, search, expected) in cases {
        assert_eq!(queue.pictures(&search).await.unwrap().len(), expected, "{name}");
        let took = median(async || drop(queue.pictures(&search).await.unwrap())).await;
        println!("{name}: {:.1} ms", took.as_secs_f64() * 1000.0);
        assert!(took < Duration::from_millis(100), "{name} took {took:?}");
    }
}

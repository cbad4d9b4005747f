//! What is kept, how long, and how little of it is read by those who only look.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use place::{Place, done, new};
use zoetrope_jobs::{
    Attempt, Cancelled, End, Error, FileRow, Limits, New, Outcome, Page, Priority, Queue, State,
};

const START: i64 = 1_000_000;
const HOUR: i64 = 3_600_000;
const FOR_EVER: i64 = i64::MAX / 2;

struct Room {
    queue: Queue,
    clock: Arc<AtomicI64>,
    _place: Place,
}

impl Room {
    async fn new() -> Self {
        let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
        let queue = place.open(&clock, Limits::default()).await;
        Self { queue, clock, _place: place }
    }

    fn wait(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// A request that has ended, and made these files, each with a time of its own or without.
    async fn ended(&self, new: New, files: &[(&str, Option<i64>)]) -> String {
        let id = self.queue.submit(new).await.unwrap();
        let lease = self.queue.claim().await.unwrap().unwrap();
        for (name, expires_ms) in files {
            self.queue.insert_file(&file(name, &id, *expires_ms)).await.unwrap();
        }
        lease.finish(Attempt::End(done())).await.unwrap();
        id
    }

    async fn to_delete(&self) -> Vec<String> {
        let mut names = self.queue.files_to_delete(100).await.unwrap();
        names.sort();
        names
    }
}

fn file(name: &str, request: &str, expires_ms: Option<i64>) -> FileRow {
    let (name, owner, request) = (name.into(), "local".into(), Some(request.into()));
    FileRow { name, owner, request, size: 3, created_ms: START, expires_ms }
}

#[tokio::test]
async fn a_file_lives_as_long_as_its_request_or_as_its_sender_said() {
    let room = Room::new().await;
    let files = [("a/plain", None), ("b/short", Some(START + 60_000)), ("c/long", Some(FOR_EVER))];
    room.ended(new(), &files).await;
    assert_eq!(room.to_delete().await, Vec::<String>::new());
    room.wait(60_000);
    assert_eq!(room.to_delete().await, ["b/short"]);
    room.wait(HOUR);
    assert_eq!(room.queue.sweep(HOUR).await.unwrap().expired, 1);
    assert_eq!(room.to_delete().await, ["a/plain", "b/short"], "the long one outlives its request");
}

#[tokio::test]
async fn whoever_asks_to_forget_a_request_is_rid_of_all_its_files() {
    let room = Room::new().await;
    let id = room.ended(new(), &[("a/plain", None), ("c/long", Some(FOR_EVER))]).await;
    assert!(room.queue.delete(&id).await.unwrap());
    assert_eq!(room.to_delete().await, ["a/plain", "c/long"]);
}

#[tokio::test]
async fn a_worker_that_was_given_up_leaves_no_file_behind() {
    let room = Room::new().await;
    let id = room.ended(new(), &[]).await;
    assert!(room.queue.delete(&id).await.unwrap());
    let late = room.queue.insert_file(&file("a/late", &id, None)).await;
    assert!(matches!(late, Err(Error::LeaseLost(lost)) if lost == id));
    assert_eq!(room.queue.file("a/late").await.unwrap(), None);
    let upload = FileRow { request: None, ..file("a/upload", "", None) };
    room.queue.insert_file(&upload).await.unwrap();
}

#[tokio::test]
async fn an_answer_stays_until_its_webhook_was_told_or_given_up() {
    let room = Room::new().await;
    for given_up in [false, true] {
        let hook = Some("https://example.com/hook".into());
        let id = room.ended(New { keep_io: false, webhook: hook, ..new() }, &[]).await;
        room.queue.take_due(60_000, &[]).await.unwrap().unwrap();
        room.queue.undelivered(&id, "status 500", Some(2 * HOUR)).await.unwrap();
        room.wait(HOUR + 1);
        assert_eq!(room.queue.sweep(FOR_EVER).await.unwrap().expired, 0);
        room.wait(HOUR);
        assert_eq!(room.queue.take_due(60_000, &[]).await.unwrap().unwrap().attempt, 2);
        match given_up {
            true => room.queue.undelivered(&id, "status 500", None).await.unwrap(),
            false => room.queue.delivered(&id).await.unwrap(),
        }
        assert_eq!(room.queue.sweep(FOR_EVER).await.unwrap().expired, 1);
        assert_eq!(room.queue.request(&id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_not_kept_is_listed_until_it_ends() {
    let room = Room::new().await;
    let id = room.queue.submit(New { keep_io: false, ..new() }).await.unwrap();
    let listed = async || room.queue.history(&Page::default()).await.unwrap().0.len();
    assert_eq!(listed().await, 1);
    let lease = room.queue.claim().await.unwrap().unwrap();
    assert_eq!(listed().await, 1);
    lease.finish(Attempt::End(done())).await.unwrap();
    assert_eq!(listed().await, 0);
    assert_eq!(room.queue.standing(&id).await.unwrap().unwrap().state, State::Done);
}

#[tokio::test]
async fn a_standing_is_the_request_without_its_texts() {
    let room = Room::new().await;
    let id = room.ended(New { task: r#"{"image":"…"}"#.into(), ..new() }, &[]).await;
    let request = room.queue.request(&id.to_uppercase()).await.unwrap().unwrap();
    assert_eq!(room.queue.standing(&id.to_uppercase()).await.unwrap().unwrap(), request.standing);
    let (ended, end) = (request.standing.ended.clone().unwrap(), request.end.clone().unwrap());
    assert_eq!((ended.outcome, ended.status_code), (end.outcome, end.status_code));
    assert_eq!(request.input, new().input);
    assert_eq!(request.task, "{}", "a picture that was sent is not kept twice");
}

#[tokio::test]
async fn no_text_from_outside_is_too_much_for_either_database() {
    let room = Room::new().await;
    let id = room.queue.submit(new()).await.unwrap();
    for wrong in ["", "\0", "nobody", &format!("{id}\0"), &format!("{{{id}}}")] {
        assert_eq!(room.queue.request(wrong).await.unwrap(), None, "{wrong:?}");
        assert_eq!(room.queue.standing(wrong).await.unwrap(), None);
        assert_eq!(room.queue.cancel(wrong).await.unwrap(), Cancelled::NotFound);
        assert!(!room.queue.delete(wrong).await.unwrap());
    }
    assert_eq!(room.queue.key("a\0b").await.unwrap(), None);
    let nowhere = Page { endpoint: "a\0b".into(), ..Page::default() };
    assert!(room.queue.history(&nowhere).await.unwrap().0.is_empty());
    for wrong in ["\0", "1.\0", "x.", "1.2.3"] {
        let cursor = room.queue.history(&Page { after: wrong.into(), ..Page::default() }).await;
        assert!(matches!(cursor, Err(Error::Cursor(_))), "{cursor:?}");
    }

    let lease = room.queue.claim().await.unwrap().unwrap();
    lease.log("INFO", "a\0b").await.unwrap();
    assert_eq!(room.queue.logs(&id, 0, 1).await.unwrap()[0].message, "a\u{fffd}b");
    let end = End::of_request(Outcome::Failed, 500, "internal_error", "a\0b");
    lease.finish(Attempt::End(end)).await.unwrap();
    let ended = room.queue.standing(&id).await.unwrap().unwrap().ended.unwrap();
    assert_eq!(ended.error.as_deref(), Some("a\u{fffd}b"));
}

#[tokio::test]
async fn places_in_a_long_line_are_looked_up_once_a_second() {
    let room = Room::new().await;
    let mut waiting = Vec::new();
    for _ in 0..1100 {
        let queue = room.queue.clone();
        waiting.push(tokio::spawn(async move { queue.submit(new()).await.unwrap() }));
    }
    let mut ids = Vec::new();
    for submission in waiting {
        ids.push(submission.await.unwrap());
    }
    ids.sort();
    let low = room.queue.submit(New { priority: Priority::Low, ..new() }).await.unwrap();
    let at = async |id: &str| {
        let standing = room.queue.standing(id).await.unwrap().unwrap();
        room.queue.position(&standing).await.unwrap()
    };
    assert_eq!((at(&low).await, at(&ids[0]).await, at(&ids[1099]).await), (1100, 0, 1099));
    let first = room.queue.claim().await.unwrap().unwrap();
    assert_eq!(first.request.id, ids[0]);
    assert_eq!(at(&low).await, 1100, "as it was a moment ago");
    // Whoever asks first afterwards is told the same, and somebody looks meanwhile.
    room.wait(1000);
    assert_eq!(at(&low).await, 1100);
    let begun = std::time::Instant::now();
    while at(&low).await != 1099 {
        assert!(begun.elapsed().as_secs() < 20, "nobody looks");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // What is much older is nobody's answer.
    let second = room.queue.claim().await.unwrap().unwrap();
    room.wait(10_000);
    assert_eq!((at(&low).await, at(&second.request.id).await), (1098, 0));
}

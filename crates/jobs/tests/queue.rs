//! The queue's promises, in a file or on PostgreSQL.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use place::{Place, done, new, work_through};
use zoetrope_jobs::{
    Attempt, Cancelled, End, Error, Heartbeat, Key, KeyLimits, Limits, New, Outcome, Page,
    Priority, Queue, Scope, Settings, Sort, State, Status, Swept,
};

/// A queue whose clock stands until it is moved.
struct Room {
    queue: Queue,
    clock: Arc<AtomicI64>,
    place: Place,
}

const START: i64 = 1_000_000;
const LEASE_MS: i64 = 30_000;

impl Room {
    async fn new() -> Self {
        Self::with(Limits { attempts_max: 3, lease_ms: LEASE_MS, ..Limits::default() }).await
    }

    async fn with(limits: Limits) -> Self {
        let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
        let queue = place.open(&clock, limits).await;
        Self { queue, clock, place }
    }

    fn wait(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn submit(&self, change: impl FnOnce(&mut New)) -> String {
        let mut new = new();
        change(&mut new);
        self.queue.submit(new).await.unwrap()
    }

    async fn state(&self, id: &str) -> State {
        self.queue.request(id).await.unwrap().unwrap().state
    }
}

fn broken() -> End {
    End::of_request(Outcome::Failed, 500, "runner_server_error", "It broke")
}

#[tokio::test]
async fn numbers_may_be_missing_in_one_request_and_there_in_the_next() {
    let room = Room::new().await;
    for number in [None, Some(0.1), None, Some(1.048_576), Some(1e-9), None].repeat(4) {
        let id = room.submit(|new| new.unit_price = number).await;
        let lease = room.queue.claim().await.unwrap().unwrap();
        let end = End { billable_units: number, ..done() };
        lease.finish(Attempt::End(end.clone())).await.unwrap();
        let ended = room.queue.request(&id).await.unwrap().unwrap();
        assert_eq!((ended.unit_price, ended.end), (number, Some(end)));
    }
}

#[tokio::test]
async fn a_request_waits_runs_and_ends_once() {
    let room = Room::new().await;
    let id = room.submit(|_| {}).await;
    let waiting = room.queue.request(&id.to_uppercase()).await.unwrap().unwrap();
    assert_eq!((waiting.state, waiting.attempts, waiting.created_ms), (State::Queued, 0, START));
    let lease = room.queue.claim().await.unwrap().unwrap();
    assert_eq!((lease.request.id.as_str(), lease.request.attempts), (id.as_str(), 1));
    assert!(room.queue.claim().await.unwrap().is_none());
    lease.log("INFO", "step 1/8").await.unwrap();
    lease.log("INFO", "step 2/8").await.unwrap();
    let logs = room.queue.logs(&id, 1, 100).await.unwrap();
    assert_eq!((logs.len(), logs[0].number, logs[0].message.as_str()), (1, 1, "step 2/8"));
    lease.finish(Attempt::End(done())).await.unwrap();
    let ended = room.queue.request(&id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.end), (State::Done, Some(done())));
    assert_eq!(room.queue.cancel(&id).await.unwrap(), Cancelled::AlreadyDone);
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart() {
    let room = Room::new().await;
    let id = room.submit(|_| {}).await;
    let again = room.place.open(&room.clock, Limits::default()).await; // the first is never closed
    assert_eq!(again.claim().await.unwrap().unwrap().request.id, id);
}

#[tokio::test]
async fn normal_requests_run_before_low_ones_each_in_order() {
    let room = Room::new().await;
    let low = room.submit(|new| new.priority = Priority::Low).await;
    let first = room.submit(|_| {}).await;
    let second = room.submit(|_| {}).await;
    for (id, place) in [(&first, 0), (&second, 1), (&low, 2)] {
        let request = room.queue.request(id).await.unwrap().unwrap();
        assert_eq!(room.queue.position(&request).await.unwrap(), place);
    }
    for want in [first, second, low] {
        assert_eq!(room.queue.claim().await.unwrap().unwrap().request.id, want);
    }
}

#[tokio::test]
async fn a_lost_worker_s_request_is_tried_again_and_ends_at_last() {
    let room = Room::new().await;
    let id = room.submit(|_| {}).await;
    for attempt in 1..=3 {
        room.wait(60_000);
        let lease = room.queue.claim().await.unwrap().unwrap();
        assert_eq!(lease.request.attempts, attempt);
        room.wait(LEASE_MS);
        assert_eq!(room.queue.sweep(i64::MAX / 2).await.unwrap(), Swept::default());
        room.wait(1);
        assert_eq!(room.queue.sweep(i64::MAX / 2).await.unwrap().lost, 1);
        // The worker comes back: its work is no longer wanted.
        let late = lease.finish(Attempt::End(done())).await;
        assert!(matches!(late, Err(Error::LeaseLost(lost)) if lost == id));
    }
    let ended = room.queue.request(&id).await.unwrap().unwrap();
    let end = ended.end.unwrap();
    assert_eq!((end.outcome, end.status_code), (Outcome::Failed, 503));
    assert_eq!(end.error_type.as_deref(), Some("runner_disconnected"));
}

#[tokio::test]
async fn a_failed_attempt_pauses_longer_each_time() {
    let room = Room::new().await;
    room.submit(|_| {}).await;
    for pause in [500, 1000] {
        let lease = room.queue.claim().await.unwrap().unwrap();
        lease.finish(Attempt::Again(broken())).await.unwrap();
        room.wait(pause - 1);
        assert!(room.queue.claim().await.unwrap().is_none());
        room.wait(1);
    }
    let lease = room.queue.claim().await.unwrap().unwrap();
    let id = lease.request.id.clone();
    lease.finish(Attempt::Again(broken())).await.unwrap();
    assert_eq!(room.state(&id).await, State::Done);
    let once = room.submit(|new| new.retry = false).await;
    let lease = room.queue.claim().await.unwrap().unwrap();
    lease.finish(Attempt::Again(broken())).await.unwrap();
    assert_eq!(room.state(&once).await, State::Done);
}

#[tokio::test]
async fn what_is_handed_back_does_not_count() {
    let room = Room::new().await;
    let id = room.submit(|_| {}).await;
    for _ in 0..5 {
        let lease = room.queue.claim().await.unwrap().unwrap();
        assert_eq!(lease.request.attempts, 1);
        lease.finish(Attempt::HandedBack).await.unwrap();
        assert_eq!(room.state(&id).await, State::Queued);
    }
}

#[tokio::test]
async fn cancelling_removes_what_waits_and_tells_what_runs() {
    let room = Room::new().await;
    let waiting = room.submit(|_| {}).await;
    assert_eq!(room.queue.cancel(&waiting).await.unwrap(), Cancelled::Removed);
    assert!(room.queue.claim().await.unwrap().is_none());
    let end = room.queue.request(&waiting).await.unwrap().unwrap().end.unwrap();
    assert_eq!((end.outcome, end.status_code), (Outcome::Cancelled, 499));

    let running = room.submit(|_| {}).await;
    let lease = room.queue.claim().await.unwrap().unwrap();
    assert_eq!(lease.heartbeat().await.unwrap(), Heartbeat::Held);
    assert_eq!(room.queue.cancel(&running).await.unwrap(), Cancelled::Requested);
    assert_eq!(lease.heartbeat().await.unwrap(), Heartbeat::CancelAsked);
    // Its attempt fails in the meantime: there is no other.
    lease.finish(Attempt::Again(broken())).await.unwrap();
    let end = room.queue.request(&running).await.unwrap().unwrap().end.unwrap();
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert_eq!(room.queue.cancel("nobody").await.unwrap(), Cancelled::NotFound);
}

#[tokio::test]
async fn an_owner_s_limit_leaves_room_for_others() {
    let room = Room::new().await;
    let mut ids = Vec::new();
    for owner in ["a", "a", "b"] {
        ids.push(room.submit(|new| (new.owner, new.concurrency_max) = (owner.into(), 1)).await);
    }
    let first = room.queue.claim().await.unwrap().unwrap();
    assert_eq!(first.request.id, ids[0]);
    assert_eq!(room.queue.claim().await.unwrap().unwrap().request.id, ids[2]);
    assert!(room.queue.claim().await.unwrap().is_none());
    first.finish(Attempt::End(done())).await.unwrap();
    assert_eq!(room.queue.claim().await.unwrap().unwrap().request.id, ids[1]);
}

#[tokio::test]
async fn what_does_not_start_in_time_ends_with_504() {
    let room = Room::new().await;
    let id = room.submit(|new| new.start_within_ms = Some(2000)).await;
    room.wait(2000);
    assert!(room.queue.claim().await.unwrap().is_none());
    assert_eq!(room.queue.sweep(i64::MAX / 2).await.unwrap().overdue, 1);
    let end = room.queue.request(&id).await.unwrap().unwrap().end.unwrap();
    assert_eq!((end.status_code, end.error_type.as_deref()), (504, Some("request_timeout")));
}

#[tokio::test]
async fn a_full_queue_refuses_and_keeps_what_it_has() {
    let room = Room::with(Limits { queued_max: 2, ..Limits::default() }).await;
    room.submit(|_| {}).await;
    room.submit(|_| {}).await;
    let refused = room.queue.submit(new()).await;
    assert!(matches!(refused, Err(Error::Full { waiting: 2, most: 2 })), "{refused:?}");
    assert_eq!(room.queue.queued().await.unwrap(), 2);
}

#[tokio::test]
async fn one_owner_cannot_fill_the_queue() {
    let limits = Limits { queued_max: 3, owner_queued_max: 2, ..Limits::default() };
    let room = Room::with(limits).await;
    room.submit(|new| new.owner = "a".into()).await;
    room.submit(|new| new.owner = "a".into()).await;
    let of_a = || New { owner: "a".into(), ..new() };
    let refused = room.queue.submit(of_a()).await;
    assert!(matches!(refused, Err(Error::OwnerFull { waiting: 2, most: 2 })), "{refused:?}");
    room.submit(|new| new.owner = "b".into()).await;
    let refused = room.queue.submit(New { owner: "c".into(), ..new() }).await;
    assert!(matches!(refused, Err(Error::Full { waiting: 3, most: 3 })), "{refused:?}");
    // What is taken leaves room, as soon as somebody has counted again.
    let lease = room.queue.claim().await.unwrap().unwrap();
    lease.finish(Attempt::End(done())).await.unwrap();
    let begun = std::time::Instant::now();
    while room.queue.submit(of_a()).await.is_err() {
        assert!(begun.elapsed().as_secs() < 20, "nobody counts");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let refused = room.queue.submit(of_a()).await;
    assert!(matches!(refused, Err(Error::Full { .. } | Error::OwnerFull { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_receiver_that_hangs_keeps_only_its_own_waiting() {
    let room = Room::new().await;
    let hooks = ["http://slow.example:81/a", "http://slow.example:81?b", "https://other.example/c"];
    for hook in hooks {
        room.submit(|new| new.webhook = Some(hook.into())).await;
        let lease = room.queue.claim().await.unwrap().unwrap();
        lease.finish(Attempt::End(done())).await.unwrap();
        room.wait(1);
    }
    let first = room.queue.take_due(60_000, &[]).await.unwrap().unwrap();
    assert_eq!((first.url.as_str(), first.receiver.as_str()), (hooks[0], "http://slow.example:81"));
    let busy = [first.receiver];
    let next = room.queue.take_due(60_000, &busy).await.unwrap().unwrap();
    assert_eq!(next.url, hooks[2]);
    assert_eq!(room.queue.take_due(60_000, &busy).await.unwrap(), None);
    assert_eq!(room.queue.take_due(60_000, &[]).await.unwrap().unwrap().url, hooks[1]);
}

#[tokio::test]
async fn the_history_is_filtered_sorted_and_paged() {
    let room = Room::new().await;
    let ends = [
        (done(), 300),
        (End { inference_ms: Some(100), ..done() }, 100),
        (End { status_code: 422, inference_ms: None, ..broken() }, 200),
        (broken(), 50),
    ];
    let mut leases = Vec::new();
    for _ in &ends {
        room.submit(|_| {}).await;
        leases.push(room.queue.claim().await.unwrap().unwrap());
        room.wait(10);
    }
    let ids: Vec<String> = leases.iter().map(|lease| lease.request.id.clone()).collect();
    for (lease, (end, at)) in leases.into_iter().zip(ends) {
        room.clock.store(START + 1000 + at, Ordering::Relaxed);
        lease.finish(Attempt::End(end)).await.unwrap();
    }
    // Page by page, two requests each, until there are no more.
    let listed = async |page: Page| {
        let (mut page, mut found) = (Page { most: 2, ..page }, Vec::new());
        loop {
            let (requests, next) = room.queue.history(&page).await.unwrap();
            let place =
                |r: &zoetrope_jobs::Standing| ids.iter().position(|id| *id == r.id).unwrap();
            found.extend(requests.iter().map(place));
            match next {
                Some(next) => page.after = next,
                None => return found,
            }
        }
    };
    let all = Page::default;
    assert_eq!(listed(all()).await, [3, 2, 1, 0]);
    assert_eq!(listed(Page { sort: Sort::End, ..all() }).await, [0, 2, 1, 3]);
    assert_eq!(listed(Page { sort: Sort::Duration, ..all() }).await, [0, 1, 3, 2]);
    let status = |status| Page { status: Some(status), ..all() };
    assert_eq!(listed(status(Status::Success)).await, [1, 0]);
    assert_eq!(listed(status(Status::UserError)).await, [2]);
    assert_eq!(listed(status(Status::Error)).await, [3]);
    let between = Page { from_ms: START + 10, until_ms: START + 30, ..all() };
    assert_eq!(listed(between).await, [2, 1]);
}

#[tokio::test]
async fn a_hundred_workers_claim_each_request_once() {
    let room = Room::new().await;
    let mut submissions = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let queue = room.queue.clone();
        submissions.spawn(async move {
            let new = New { concurrency_max: 1000, ..new() };
            queue.submit(new).await.unwrap()
        });
    }
    let mut submitted = submissions.join_all().await;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        workers.spawn(work_through(room.queue.clone()));
    }
    let mut worked: Vec<String> = workers.join_all().await.concat();
    submitted.sort();
    worked.sort();
    assert_eq!(worked, submitted);
}

#[tokio::test]
async fn a_webhook_is_due_with_the_end_and_again_until_it_is_taken() {
    let room = Room::new().await;
    let id = room.submit(|new| new.webhook = Some("https://example.com/hook".into())).await;
    assert_eq!(room.queue.take_due(60_000, &[]).await.unwrap(), None);
    let lease = room.queue.claim().await.unwrap().unwrap();
    lease.finish(Attempt::End(done())).await.unwrap();
    let due = room.queue.take_due(60_000, &[]).await.unwrap().unwrap();
    assert_eq!((due.request.as_str(), due.attempt), (id.as_str(), 1));
    assert_eq!(room.queue.take_due(60_000, &[]).await.unwrap(), None);
    room.queue.undelivered(&id, "status 500", Some(5_000)).await.unwrap();
    room.wait(5_000);
    assert_eq!(room.queue.take_due(60_000, &[]).await.unwrap().unwrap().attempt, 2);
    room.queue.delivered(&id).await.unwrap();
    room.wait(1_000_000);
    assert_eq!(room.queue.take_due(60_000, &[]).await.unwrap(), None);
    let delivery = room.queue.delivery(&id).await.unwrap().unwrap();
    assert_eq!((delivery.attempts, delivery.error), (2, None));
}

#[tokio::test]
async fn history_is_listed_by_owner_and_forgotten_in_time() {
    let room = Room::new().await;
    let kept = room.submit(|new| new.owner = "a".into()).await;
    let secret = room.submit(|new| (new.owner, new.keep_io) = ("b".into(), false)).await;
    for _ in 0..2 {
        let lease = room.queue.claim().await.unwrap().unwrap();
        lease.log("INFO", "done").await.unwrap();
        lease.finish(Attempt::End(done())).await.unwrap();
    }
    let list = |owner: &'static str| {
        let queue = room.queue.clone();
        async move {
            let page = Page { owner: owner.into(), ..Page::default() };
            queue
                .history(&page)
                .await
                .unwrap()
                .0
                .into_iter()
                .map(|request| request.id)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(list("a").await, std::slice::from_ref(&kept));
    // What is not to be kept is answered for a while, but never listed.
    assert_eq!(list("").await, std::slice::from_ref(&kept));
    let before = Page { after: secret.clone(), ..Page::default() };
    assert_eq!(room.queue.history(&before).await.unwrap().0.len(), 1);
    assert_eq!(room.queue.request(&secret).await.unwrap().unwrap().input, "{}");
    assert!(room.queue.delete(&secret).await.unwrap());
    assert!(!room.queue.delete(&secret).await.unwrap());
    room.wait(10_001);
    assert_eq!(room.queue.sweep(10_000).await.unwrap().expired, 1);
    assert_eq!(list("").await, Vec::<String>::new());
    assert_eq!(room.queue.logs(&kept, 0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_revoked_key_stays_known() {
    let room = Room::new().await;
    let key = Key {
        id: "k1".into(),
        alias: "laptop".into(),
        hash: "00".into(),
        scope: Scope::Admin,
        concurrency_max: 4,
        created_ms: START,
        revoked_ms: None,
        limits: KeyLimits::default(),
        spent_micros: 0,
    };
    room.queue.insert_key(&key).await.unwrap();
    assert_eq!(room.queue.keys().await.unwrap(), std::slice::from_ref(&key));
    assert!(room.queue.revoke_key("k1").await.unwrap());
    assert!(!room.queue.revoke_key("k1").await.unwrap());
    assert_eq!(room.queue.key("k1").await.unwrap().unwrap().revoked_ms, Some(START));
    assert_eq!(room.queue.key("k2").await.unwrap(), None);
}

#[tokio::test]
async fn an_address_of_no_database_is_refused_by_name() {
    let settings =
        Settings { url: "mysql://x".into(), limits: Limits::default(), now_ms: Arc::new(|| 0) };
    let error = Queue::open(settings).await.err().unwrap().to_string();
    assert!(error.contains("mysql://x") && error.contains("sqlite://"), "{error}");
}

//! Requests for models: their log, their sums, what keys may spend, and answers that are kept.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use place::Place;
use zoetrope_jobs::{
    Claim, Held, KeptAnswer, Key, KeyLimits, Ledger, Limits, LogPage, LogPlace, ModelCall,
    ModelRequest, ModelStatus, Period, Queue, Scope, Whose,
};

const HOUR: i64 = 3_600_000;
const START: i64 = 500_000 * HOUR;

struct Room {
    queue: Queue,
    ledger: Ledger,
    clock: Arc<AtomicI64>,
    _place: Place,
}

impl Room {
    async fn new() -> Self {
        let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
        let queue = place.open(&clock, Limits::default()).await;
        Self { ledger: queue.ledger(), queue, clock, _place: place }
    }

    fn wait(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn key(&self, budget_micros: Option<i64>) {
        let limits = KeyLimits {
            budget_micros,
            budget_period: Period::Ever,
            requests_per_minute: Some(9),
            models: vec!["a".into(), "b*".into()],
            on_flagged: Some("refuse".into()),
        };
        let key = Key {
            id: "k1".into(),
            alias: "laptop".into(),
            hash: "00".into(),
            scope: Scope::Api,
            concurrency_max: 4,
            created_ms: START,
            revoked_ms: None,
            limits,
            spent_micros: 0,
        };
        self.queue.insert_key(&key).await.unwrap();
        assert_eq!(self.queue.key("k1").await.unwrap(), Some(key));
    }
}

fn call(deployment: &str, outcome: &str, duration_us: i64) -> ModelCall {
    ModelCall {
        provider: deployment.split('/').next().unwrap().into(),
        deployment: deployment.into(),
        upstream: "there".into(),
        outcome: outcome.into(),
        fault: outcome == "broken",
        duration_us,
        first_byte_us: Some(duration_us / 2),
        pictures: i64::from(outcome == "completed"),
        cost_micros: if outcome == "completed" { 5_000 } else { 0 },
    }
}

fn request(id: &str, created_ms: i64, calls: Vec<ModelCall>) -> ModelRequest {
    let completed = calls.last().is_some_and(|call| call.outcome == "completed");
    ModelRequest {
        id: id.into(),
        owner: "k1".into(),
        model: "m".into(),
        mode: "text-to-image".into(),
        status: if completed { ModelStatus::Completed } else { ModelStatus::UpstreamFailure },
        provider: completed.then(|| "fal".into()),
        deployment: completed.then(|| "fal/m".into()),
        upstream: completed.then(|| "there".into()),
        pictures: i64::from(completed),
        cost_micros: calls.iter().map(|call| call.cost_micros).sum(),
        created_ms,
        duration_us: 10,
        upstream_us: 5,
        error: Some("with a \0 in it".into()),
        user: Some("somebody".into()),
        calls,
        files: vec![format!("{id}/image.png")],
        ..ModelRequest::default()
    }
}

#[tokio::test]
async fn calls_are_added_up_by_hour_and_deployment() {
    let room = Room::new().await;
    for n in 0..200 {
        let created = START + if n < 100 { 0 } else { HOUR };
        let calls = vec![call("fal/m", "broken", 7), call("fal/m", "completed", 1000 * (n + 1))];
        room.ledger.record(request(&format!("req_{n:03}"), created, calls));
    }
    let other = ModelRequest {
        owner: "k2".into(),
        ..request("req_x", START, vec![call("local/m", "completed", 50)])
    };
    room.ledger.record(other);
    room.ledger.flush().await;
    let sums = room.queue.calls(START, START + 2 * HOUR, Whose::All).await.unwrap();
    let [fal, local] = sums.as_slice() else { panic!("{sums:?}") };
    assert_eq!(
        (fal.deployment.as_str(), fal.provider.as_str(), fal.model.as_str()),
        ("fal/m", "fal", "m")
    );
    assert_eq!((fal.calls, fal.completed, fal.faults, fal.pictures), (400, 200, 200, 200));
    assert_eq!((fal.cost_micros, fal.completed_us), (1_000_000, 1000 * 200 * 201 / 2));
    let near = |found: Option<f64>, expected: f64| (found.unwrap() / expected - 1.0).abs() < 0.011;
    assert!(near(fal.total.quantile_us(0.5), 100_000.0), "{:?}", fal.total.quantile_us(0.5));
    assert!(near(fal.total.quantile_us(0.95), 190_000.0));
    assert_eq!(fal.first_byte.count(), 400);
    assert_eq!(local.calls, 1);
    let later = room.queue.calls(START + HOUR, START + 2 * HOUR, Whose::All).await.unwrap();
    assert_eq!(later[0].completed, 100);
    let owners = |sums: Vec<zoetrope_jobs::Calls>| {
        sums.into_iter().map(|sum| (sum.owner, sum.completed)).collect::<Vec<_>>()
    };
    let each = room.queue.calls(START, i64::MAX, Whose::Each).await.unwrap();
    assert_eq!(owners(each), [("k1".into(), 200), ("k2".into(), 1)]);
    let only = room.queue.calls(START, i64::MAX, Whose::Only("k2")).await.unwrap();
    assert_eq!(owners(only), [("k2".into(), 1)]);
}

#[tokio::test]
async fn the_log_is_read_page_by_page_in_both_directions() {
    let room = Room::new().await;
    for n in 0..5 {
        let calls = vec![call("fal/m", if n == 3 { "broken" } else { "completed" }, 9)];
        room.ledger.record(request(&format!("req_{n}"), START + n, calls));
    }
    room.ledger.flush().await;
    let ids = async |page: LogPage| -> Vec<String> {
        let found = room.queue.model_requests(&page).await.unwrap();
        found.into_iter().map(|request| request.id).collect()
    };
    let page = |place| LogPage {
        owner: "k1".into(),
        status: None,
        from_ms: 0,
        until_ms: i64::MAX,
        place,
        most: 2,
    };
    assert_eq!(ids(page(LogPlace::Newest)).await, ["req_4", "req_3"]);
    assert_eq!(ids(page(LogPlace::Before("req_3".into()))).await, ["req_2", "req_1"]);
    assert_eq!(ids(page(LogPlace::After("req_1".into()))).await, ["req_3", "req_2"]);
    let everybody = LogPage { owner: String::new(), ..page(LogPlace::After("req_2".into())) };
    assert_eq!(ids(everybody).await, ["req_4", "req_3"]);
    let nobody = LogPage { owner: "k2".into(), ..page(LogPlace::Newest) };
    assert!(ids(nobody).await.is_empty());
    let failed = LogPage { status: Some(ModelStatus::UpstreamFailure), ..page(LogPlace::Newest) };
    assert_eq!(ids(failed).await, ["req_3"]);
    let early = LogPage { until_ms: START + 1, ..page(LogPlace::Newest) };
    assert_eq!(ids(early).await, ["req_0"]);
    let one = room.queue.model_request("req_3").await.unwrap().unwrap();
    assert_eq!((one.calls.len(), one.user.as_deref()), (1, Some("somebody")));
    assert_eq!(one.error.as_deref(), Some("with a \u{fffd} in it"));
    assert_eq!(room.queue.model_request("req_9").await.unwrap(), None);
    room.wait(2 * HOUR);
    room.queue.sweep_calls(HOUR).await.unwrap();
    assert!(ids(page(LogPlace::Newest)).await.is_empty(), "what is old is forgotten");
    let sums = room.queue.calls(START, i64::MAX, Whose::All).await.unwrap();
    assert_eq!(sums[0].calls, 5, "but still counted");
}

#[tokio::test]
async fn what_is_written_twice_is_there_once() {
    let room = Room::new().await;
    room.ledger.record(request("req_1", START, Vec::new()));
    room.ledger.flush().await;
    room.ledger.record(request("req_1", START, Vec::new()));
    room.ledger.record(request("req_2", START, Vec::new()));
    room.ledger.flush().await;
    assert!(room.queue.model_request("req_2").await.unwrap().is_some());
}

#[tokio::test]
async fn a_budget_is_kept_spent_and_freed() {
    let room = Room::new().await;
    assert_eq!(room.queue.hold("k1", "r1", 5, START + HOUR).await.unwrap(), Held::Unlimited);
    room.key(Some(10_000)).await;
    let hold =
        async |id: &str, micros| room.queue.hold("k1", id, micros, START + HOUR).await.unwrap();
    assert_eq!(hold("r1", 6_000).await, Held::Yes);
    assert_eq!(hold("r2", 6_000).await, Held::Short(4_000));
    assert_eq!(hold("r1", 9_000).await, Held::Yes, "its own part does not count twice");
    let balance = room.queue.balance("k1").await.unwrap();
    assert_eq!(
        (balance.budget, balance.held, balance.available()),
        (Some(10_000), 9_000, Some(1_000))
    );
    let settled =
        ModelRequest { held: true, ..request("r1", START, vec![call("fal/m", "completed", 9)]) };
    room.ledger.record(settled);
    room.ledger.flush().await;
    let balance = room.queue.balance("k1").await.unwrap();
    assert_eq!((balance.spent, balance.held, balance.available()), (5_000, 0, Some(5_000)));
    assert_eq!(hold("r3", 5_000).await, Held::Yes);
    assert_eq!(hold("r4", 1).await, Held::Short(0));
    room.wait(HOUR); // its server has gone
    assert_eq!(room.queue.hold("k1", "r4", 1, START + 2 * HOUR).await.unwrap(), Held::Yes);
    let more = KeyLimits { budget_micros: Some(20_000), ..KeyLimits::default() };
    assert!(room.queue.limit_key("k1", &more).await.unwrap());
    assert_eq!(room.queue.key("k1").await.unwrap().unwrap().limits, more);
    assert!(!room.queue.limit_key("k2", &more).await.unwrap());
}

#[tokio::test]
async fn a_monthly_budget_is_there_again_when_the_month_is_over() {
    let room = Room::new().await;
    room.key(Some(10_000)).await;
    let limits = KeyLimits {
        budget_micros: Some(7_000),
        budget_period: Period::Month,
        ..KeyLimits::default()
    };
    assert!(room.queue.limit_key("k1", &limits).await.unwrap());
    assert_eq!(room.queue.key("k1").await.unwrap().unwrap().limits, limits);
    let hold = async |id: &str| room.queue.hold("k1", id, 5_000, i64::MAX).await.unwrap();
    assert_eq!(hold("r1").await, Held::Yes);
    let settled =
        ModelRequest { held: true, ..request("r1", START, vec![call("fal/m", "completed", 9)]) };
    room.ledger.record(settled);
    room.ledger.flush().await;
    assert_eq!(hold("r2").await, Held::Short(2_000));
    let balance = room.queue.balance("k1").await.unwrap();
    assert_eq!((balance.spent, balance.available()), (5_000, Some(2_000)));
    // START is 15 January 2027, 08:00 of UTC.
    assert_eq!(balance.renewed_ms, Some(20_850 * 24 * HOUR));
    room.wait(balance.renewed_ms.unwrap() - START);
    let balance = room.queue.balance("k1").await.unwrap();
    assert_eq!((balance.spent, balance.available()), (0, Some(7_000)));
    assert_eq!(hold("r2").await, Held::Yes);
    assert_eq!(room.queue.key("k1").await.unwrap().unwrap().spent_micros, 5_000, "in all");
}

#[tokio::test]
async fn what_a_request_made_can_be_forgotten_and_the_log_says_so() {
    let room = Room::new().await;
    room.ledger.record(request("req_1", START, vec![call("fal/m", "completed", 9)]));
    room.ledger.flush().await;
    let (owner, other) = (("k1", "key"), ("k2", "key"));
    for (name, id) in [(owner, "req_1"), (other, "req_2")] {
        room.queue.claim_answer(name, "digest", START + HOUR).await.unwrap();
        let headers = format!(r#"[["x-request-id","{id}"]]"#);
        let answer = KeptAnswer { status: 200, headers, body: "{}".into() };
        room.queue.keep_answer(name, &answer, START + HOUR).await.unwrap();
    }
    let logged = room.queue.model_request("req_1").await.unwrap().unwrap();
    assert_eq!(
        (logged.files.as_slice(), logged.purged_ms),
        (&["req_1/image.png".into()][..], None)
    );
    room.queue.purge_model_request(&logged).await.unwrap();
    room.wait(5);
    room.queue.purge_model_request(&logged).await.unwrap();
    let logged = room.queue.model_request("req_1").await.unwrap().unwrap();
    assert_eq!(logged.purged_ms, Some(START), "the first time counts");
    let claim = async |name| room.queue.claim_answer(name, "digest", START + HOUR).await.unwrap();
    assert_eq!(claim(owner).await, Claim::First, "its answer is not given again");
    assert!(matches!(claim(other).await, Claim::Answered(_)), "others are");
}

#[tokio::test]
async fn of_many_at_once_no_more_are_let_through_than_the_budget_covers() {
    let room = Room::new().await;
    room.key(Some(10_000)).await;
    let holds = (0..30).map(|n| {
        let queue = room.queue.clone();
        tokio::spawn(async move { queue.hold("k1", &format!("r{n}"), 1_000, START + HOUR).await })
    });
    let mut kept = 0;
    for hold in holds.collect::<Vec<_>>() {
        kept += i32::from(hold.await.unwrap().unwrap() == Held::Yes);
    }
    assert_eq!(kept, 10);
}

#[tokio::test]
async fn an_answer_is_given_again_until_its_time_is_over() {
    let room = Room::new().await;
    let claim = async |owner: &str, request: &str| {
        room.queue.claim_answer((owner, "key"), request, START + 1000).await.unwrap()
    };
    assert_eq!(claim("k1", "digest").await, Claim::First);
    assert_eq!(claim("k1", "digest").await, Claim::Running);
    assert_eq!(claim("k1", "another").await, Claim::Other);
    assert_eq!(claim("k2", "another").await, Claim::First, "keys are an owner's own");
    let answer = KeptAnswer { status: 200, headers: "[]".into(), body: "{}".into() };
    room.queue.keep_answer(("k1", "key"), &answer, START + 1000).await.unwrap();
    assert_eq!(claim("k1", "digest").await, Claim::Answered(answer));
    room.queue.forget_answer(("k2", "key")).await.unwrap();
    assert_eq!(claim("k2", "digest").await, Claim::First);
    room.wait(1000);
    assert_eq!(claim("k1", "digest").await, Claim::First);
    room.queue.sweep_calls(HOUR).await.unwrap();
}

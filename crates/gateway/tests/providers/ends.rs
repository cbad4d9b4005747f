//! Work that nobody waits for any more is cancelled, and what is charged is what was made.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::{Value, json};
use zoetrope_api::Micros;
use zoetrope_gateway::catalogue::Protocol;
use zoetrope_gateway::failure::{Billed, FailureKind};
use zoetrope_gateway::plan::Plan;
use zoetrope_gateway::price::{Bill, Price, Unit};

use crate::loopback::{Request, Server, Step};
use crate::room::{
    ALIBABA, At, FAL, LIKE_OPENAI, REPLICATE, Room, ZOETROPE, deployment, plan, png, request,
};
use crate::upstream::{Script, eventually};

/// A provider that never ends what it began.
async fn endless(at: At) -> Server {
    Script { looks: usize::MAX, ..Script::default() }.start(at).await
}

fn was_cancelled(at: At, server: &Server) -> bool {
    let method = if at.protocol == Protocol::Fal { "PUT" } else { "POST" };
    let cancels = server.seen().into_iter().filter(|request| {
        request.target.ends_with("/cancel")
            && request.method == method
            && request.header("authorization").is_some()
    });
    cancels.count() == 1
}

#[tokio::test]
async fn what_takes_too_long_is_cancelled() {
    for at in [FAL, REPLICATE] {
        let (room, server) = (Room::new().await, endless(at).await);
        let provider = room.provider(at, &server.url(""));
        let timeout = Duration::from_millis(700);
        let done = room.make(&*provider, at, request(json!({})), timeout).await;
        let failure = done.into_iter().next().unwrap().unwrap_err();
        assert_eq!(
            (failure.kind, failure.billed),
            (FailureKind::TimedOut, Billed::Maybe),
            "{at:?}"
        );
        eventually(|| was_cancelled(at, &server)).await;
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_cancelled() {
    for at in [FAL, REPLICATE] {
        let (room, server) = (Room::new().await, endless(at).await);
        let provider = room.provider(at, &server.url(""));
        let work = room.make(&*provider, at, request(json!({})), Duration::from_secs(60));
        let waited = tokio::time::timeout(Duration::from_millis(700), work).await;
        assert!(waited.is_err());
        eventually(|| was_cancelled(at, &server)).await;
    }
}

#[tokio::test]
async fn what_nobody_waits_for_before_it_has_a_name_is_cancelled_once_it_has() {
    for at in [FAL, REPLICATE] {
        let (room, script) = (Room::new().await, Script { looks: usize::MAX, ..Script::default() });
        let looks = AtomicUsize::new(0);
        let server = Server::start(move |request: &Request| {
            let mut steps = script.answer(at, request, &looks);
            if request.method == "POST" && !request.target.ends_with("/cancel") {
                steps.insert(0, Step::Wait(Duration::from_millis(500)));
            }
            steps
        });
        let server = server.await;
        let provider = room.provider(at, &server.url(""));
        let work = room.make(&*provider, at, request(json!({})), Duration::from_secs(60));
        assert!(tokio::time::timeout(Duration::from_millis(200), work).await.is_err());
        assert!(!was_cancelled(at, &server));
        eventually(|| was_cancelled(at, &server)).await;
    }
}

#[tokio::test]
async fn what_ended_is_not_cancelled() {
    for at in [FAL, REPLICATE] {
        let (room, server) = (Room::new().await, Script::default().start(at).await);
        room.one(at, &server.url(""), json!({})).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!server.seen().iter().any(|request| request.target.ends_with("/cancel")));
    }
}

/// What a successful call of `body` is charged, pictures being 1024 × 1024.
async fn charged(at: At, body: Value) -> Bill {
    let (room, server) = (Room::new().await, Script::of(png(1024, 1024)).start(at).await);
    room.one(at, &server.url(""), body).await.unwrap().bill
}

#[tokio::test]
async fn what_a_provider_says_is_charged_and_else_the_price_list() {
    // It reports two and a half megapixels.
    assert_eq!(charged(FAL, json!({})).await, Bill::Amount(Micros(12_500)));
    // It says 0.0123 dollars.
    assert_eq!(charged(ZOETROPE, json!({})).await, Bill::Amount(Micros(12_300)));
    for at in [ALIBABA, REPLICATE, LIKE_OPENAI] {
        assert_eq!(charged(at, json!({})).await, Bill::Amount(Micros(5_243)), "{at:?}");
    }
}

#[tokio::test]
async fn seconds_are_charged_as_they_were_measured() {
    let (room, server) = (Room::new().await, Script::default().start(REPLICATE).await);
    let provider = room.provider(REPLICATE, &server.url(""));
    let work = room.work(request(json!({})), Duration::from_secs(5)).await;
    let plan = plan(&*provider, REPLICATE, &work.request, &work.sources).unwrap();
    let mut by_second = (*deployment(REPLICATE)).clone();
    by_second.price =
        Some(Price { unit: Unit::Second, amount: Micros(1_000), surcharges: Vec::new() });
    let plan = Plan { deployment: by_second.into(), ..plan };
    assert_eq!(plan.estimate(&work.request, None), None);
    let done = zoetrope_gateway::emulate::carry_out(&*provider, &plan, &work, &plan.parts).await;
    let outcome = done.into_iter().next().unwrap().1.unwrap();
    assert_eq!(outcome.bill, Bill::Amount(Micros(1_500)));
}

#[tokio::test]
async fn a_dry_run_is_what_is_charged_where_the_provider_does_not_round() {
    for at in [ALIBABA, REPLICATE, LIKE_OPENAI] {
        let (room, server) = (Room::new().await, Script::of(png(1024, 1024)).start(at).await);
        let provider = room.provider(at, &server.url(""));
        let wanted = request(json!({"n": 3}));
        let work = room.work(wanted.clone(), Duration::from_secs(5)).await;
        let estimate = plan(&*provider, at, &wanted, &work.sources).unwrap().total();
        let mut sum = Micros::ZERO;
        for done in room.make(&*provider, at, wanted, Duration::from_secs(5)).await {
            let Bill::Amount(amount) = done.unwrap().bill else { panic!("no amount") };
            sum += amount;
        }
        // Each call is rounded for itself.
        assert!((estimate.unwrap().0 - sum.0).abs() <= 3, "{at:?}: {estimate:?} {sum:?}");
    }
}

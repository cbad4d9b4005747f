//! Who is asked, in which order, and what a caller is told: providers follow scripts of faults.

#![allow(clippy::unwrap_used)]

mod scripted;
mod shared;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use scripted::{NEVER, Room, Step, THREE, caller, catalogue, fail, request};
use zoetrope_api::Micros;
use zoetrope_api::images::Code;
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::failure::{Billed, Failure, FailureKind};
use zoetrope_jobs::{KeyLimits, LogPage, LogPlace, ModelRequest, ModelStatus, Whose};

async fn log(room: &Room) -> Vec<ModelRequest> {
    room.gateway.settle().await;
    let page = LogPage {
        owner: String::new(),
        status: None,
        from_ms: 0,
        until_ms: i64::MAX,
        place: LogPlace::Newest,
        most: 100,
    };
    room.queue.model_requests(&page).await.unwrap()
}

#[tokio::test]
async fn where_one_fails_the_next_is_asked_and_only_that_is_paid() {
    let room = Room::new(THREE).await;
    room.provider("a").then([fail(FailureKind::NoImage)]);
    room.provider("b").then([fail(FailureKind::Throttled)]);
    let answer = room.make(request("m", 1)).await.unwrap();
    assert_eq!(answer.deployment.key, "c/m");
    assert_eq!(answer.cost, Micros(10_000));
    let kinds: Vec<_> = answer.attempts.iter().map(|attempt| attempt.failure).collect();
    assert_eq!(kinds, [Some(FailureKind::NoImage), Some(FailureKind::Throttled), None]);
    let [entry] = log(&room).await.try_into().unwrap();
    assert_eq!(entry.id, answer.id);
    assert_eq!((entry.status, entry.cost_micros), (ModelStatus::Completed, 10_000));
    let outcomes: Vec<_> = entry.calls.iter().map(|call| call.outcome.as_str()).collect();
    assert_eq!(outcomes, ["no_image", "throttled", "completed"]);
    let sums = room.queue.calls(0, i64::MAX, Whose::All).await.unwrap();
    let rates: Vec<_> =
        sums.iter().map(|sum| (sum.deployment.as_str(), sum.completed, sum.faults)).collect();
    assert_eq!(rates, [("a/m", 0, 1), ("b/m", 0, 0), ("c/m", 1, 0)]);
}

#[tokio::test]
async fn what_may_pass_is_tried_once_more_at_the_same_unless_it_was_paid() {
    let room = Room::new(THREE).await;
    room.provider("a").then([fail(FailureKind::Broken)]);
    assert_eq!(room.maker().await, "a");
    assert_eq!(room.provider("a").times_asked(), 2);
    let paid = Failure { billed: Billed::Maybe, ..Failure::new(FailureKind::Broken, "gone") };
    room.provider("a").then([Step::Fail(paid)]);
    assert_eq!(room.maker().await, "b");
    assert_eq!(room.provider("a").times_asked(), 3);
}

#[tokio::test]
async fn what_everybody_fails_at_is_told_as_the_last_one_told_it() {
    let room = Room::new(THREE).await;
    let check = async |kinds: [FailureKind; 3], code: Code, retry: bool| {
        for (name, kind) in ["a", "b", "c"].into_iter().zip(kinds) {
            room.provider(name).then([fail(kind)]);
        }
        let refusal = room.make(request("m", 1)).await.unwrap_err();
        assert_eq!(refusal.problem.code, code, "{kinds:?}: {}", refusal.problem);
        assert_eq!(refusal.problem.should_retry(), retry, "{kinds:?}");
    };
    use FailureKind::{NoImage, Policy, Rejected, Throttled};
    check([NoImage, NoImage, NoImage], Code::AllProvidersExhausted, true).await;
    check([Policy, Policy, NoImage], Code::ContentPolicyViolation, false).await;
    let room = Room::new(THREE).await;
    for name in ["a", "b", "c"] {
        room.provider(name).then([fail(Throttled)]);
    }
    let refusal = room.make(request("m", 1)).await.unwrap_err();
    assert_eq!((refusal.problem.code, refusal.problem.status()), (Code::RateLimited, 429));
    let room = Room::new(THREE).await;
    let rejected = Failure {
        status: Some(422),
        parameter: Some("prompt".into()),
        ..Failure::new(Rejected, "too odd")
    };
    room.provider("a").then([Step::Fail(rejected)]);
    let refusal = room.make(request("m", 1)).await.unwrap_err();
    assert_eq!((refusal.problem.code, refusal.problem.status()), (Code::UpstreamError, 422));
    assert_eq!(refusal.attempts.len(), 1, "what is wrong everywhere is not tried everywhere");
}

#[tokio::test]
async fn a_forced_provider_has_no_substitute() {
    let room = Room::new(THREE).await;
    room.provider("b").then([fail(FailureKind::TimedOut)]);
    let refusal = room.make(request("b/m", 1)).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::UpstreamError);
    assert_eq!(room.make(request("b/m", 1)).await.unwrap().deployment.key, "b/m");
    assert_eq!((room.provider("a").times_asked(), room.provider("c").times_asked()), (0, 0));
}

#[tokio::test]
async fn whoever_fails_three_times_is_asked_last_until_the_configuration_changes() {
    let room = Room::new(THREE).await;
    room.provider("a").then((0..3).map(|_| fail(FailureKind::NoImage)));
    for _ in 0..3 {
        assert_eq!(room.maker().await, "b");
    }
    let deployment = |key: &str| {
        let catalogue = room.gateway.catalogue();
        let found = catalogue.deployments().find(|(_, one)| one.key == key);
        found.unwrap().1.clone()
    };
    assert!(!room.gateway.is_healthy(&deployment("a/m")));
    assert_eq!(room.maker().await, "b");
    assert_eq!(room.provider("a").times_asked(), 3, "it is left alone");
    for name in ["b", "c"] {
        room.provider(name).then([fail(FailureKind::NoImage)]);
    }
    assert_eq!(room.maker().await, "a", "where everybody else fails, it is asked all the same");
    assert!(room.gateway.is_healthy(&deployment("a/m")), "and it works");
    room.provider("a").then([fail(FailureKind::Configuration)]);
    assert_eq!(room.maker().await, "b");
    assert!(!room.gateway.is_healthy(&deployment("a/m")), "a wrong key stays wrong");
    let changed = THREE
        .replace("a = { protocol = \"openai\" }", "a = { protocol = \"openai\", key = \"new\" }");
    room.gateway.replace(catalogue(&changed)).unwrap();
    assert_eq!(room.maker().await, "a");
}

#[tokio::test]
async fn whoever_asks_for_a_pause_gets_one() {
    let room = Room::new(THREE).await;
    let wait = Some(Duration::from_millis(400));
    let throttled = Failure { retry_after: wait, ..Failure::new(FailureKind::Throttled, "slowly") };
    room.provider("a").then([Step::Fail(throttled)]);
    assert_eq!(room.maker().await, "b");
    assert_eq!(room.maker().await, "b");
    assert_eq!(room.provider("a").times_asked(), 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(room.maker().await, "a");
}

#[tokio::test]
async fn a_refusal_by_policy_goes_on_only_where_that_is_wanted() {
    let room = Room::new(THREE).await;
    room.provider("a").then([fail(FailureKind::Policy)]);
    assert_eq!(room.maker().await, "b");
    let strict = format!("{THREE}\n[routing]\npolicy_elsewhere = false");
    room.gateway.replace(catalogue(&strict)).unwrap();
    room.provider("a").then([fail(FailureKind::Policy)]);
    let refusal = room.make(request("m", 1)).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::ContentPolicyViolation);
    assert_eq!(refusal.attempts.len(), 1);
}

#[tokio::test]
async fn pictures_that_one_could_not_make_are_made_by_the_next() {
    let room = Room::new(THREE).await;
    // Calls of two, two and one.
    room.provider("a").then([
        Step::Make(Duration::ZERO),
        fail(FailureKind::NoImage),
        Step::Make(Duration::ZERO),
    ]);
    let answer = room.make(request("m", 5)).await.unwrap();
    let made: Vec<_> =
        answer.pictures.iter().map(|picture| picture.base64.as_deref().unwrap()).collect();
    assert_eq!(made, ["a/m/0", "a/m/1", "b/m/2", "b/m/3", "a/m/4"]);
    let seeds: Vec<_> = answer.pictures.iter().map(|picture| picture.seed.unwrap()).collect();
    assert_eq!(seeds, [70, 71, 72, 73, 74]);
    assert_eq!(answer.cost, Micros(3 * 30_000 + 2 * 20_000));
    for name in ["a", "b", "c"] {
        room.provider(name).then([fail(FailureKind::Rejected), fail(FailureKind::Rejected)]);
    }
    let answer = room.make(request("m", 5)).await.unwrap();
    let made: Vec<_> =
        answer.pictures.iter().map(|picture| picture.base64.as_deref().unwrap()).collect();
    assert_eq!((made.as_slice(), answer.requested), (&["a/m/4"][..], 5), "what there is, is given");
}

#[tokio::test]
async fn a_hedge_answers_where_the_first_takes_long() {
    let hedged = format!("{THREE}\n[routing]\nhedge_after_seconds = 0.05");
    let room = Room::new(&hedged).await;
    room.provider("a").then([Step::Make(NEVER)]);
    let begun = Instant::now();
    let answer = room.make(request("m", 1)).await.unwrap();
    assert_eq!(answer.deployment.key, "b/m");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let [entry] = log(&room).await.try_into().unwrap();
    let outcomes: Vec<_> = entry.calls.iter().map(|call| call.outcome.as_str()).collect();
    assert_eq!(outcomes, ["completed", "cancelled"], "the slower one is not waited for");
    assert_eq!(room.maker().await, "a", "which was no fault");
    assert_eq!(room.provider("b").times_asked(), 1, "nobody is hedged who is quick");
}

#[tokio::test]
async fn nobody_is_waited_for_after_the_deadline() {
    let short = format!("{THREE}\n[routing]\ndeadline_seconds = 0.2");
    let room = Room::new(&short).await;
    room.provider("a").then([Step::Make(NEVER)]);
    let begun = Instant::now();
    let refusal = room.make(request("m", 1)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(refusal.problem.code, Code::AllProvidersExhausted);
    assert_eq!(refusal.attempts[0].failure, Some(FailureKind::TimedOut));
    assert!(!refusal.problem.should_retry(), "it may have been paid");
}

#[tokio::test]
async fn the_local_engine_comes_first_until_too_many_wait_for_it() {
    let text = r#"
        [providers]
        a = { protocol = "openai" }
        [models.m]
        strategy = "local_first"
        waiting_max = 2
        deployments = [{ provider = "a" }, { provider = "local", upstream = "z-image-turbo" }]
    "#;
    let room = Room::new(text).await;
    assert_eq!(room.maker().await, "local");
    room.provider("local").waiting.store(2, Ordering::Relaxed);
    assert_eq!(room.maker().await, "local");
    room.provider("local").waiting.store(3, Ordering::Relaxed);
    assert_eq!(room.maker().await, "a");
    room.provider("a").then([fail(FailureKind::NoImage)]);
    assert_eq!(room.maker().await, "local", "late is better than never");
}

fn limited(limits: KeyLimits) -> Caller {
    Caller { limits, ..caller() }
}

/// A key with a budget, in the database too.
async fn with_budget(room: &Room, micros: i64) -> Caller {
    let limits = KeyLimits { budget_micros: Some(micros), ..KeyLimits::default() };
    let key = zoetrope_jobs::Key {
        id: "k1".into(),
        alias: "laptop".into(),
        hash: "00".into(),
        scope: zoetrope_jobs::Scope::Api,
        concurrency_max: 8,
        created_ms: 0,
        revoked_ms: None,
        limits: limits.clone(),
        spent_micros: 0,
    };
    room.queue.insert_key(&key).await.unwrap();
    limited(limits)
}

#[tokio::test]
async fn a_budget_is_never_overspent_however_many_ask_at_once() {
    let room = Room::new(&THREE.replace("ordered", "cheapest")).await;
    let caller = with_budget(&room, 105_000).await; // for ten of the cheapest
    room.provider("c").then((0..1000).map(|_| Step::Make(Duration::from_millis(200))));
    let ask = || room.gateway.make(request("m", 1), caller.clone(), None);
    let answers = futures_util::future::join_all((0..1000).map(|_| ask())).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    let refused = answers.into_iter().find_map(Result::err).unwrap();
    assert_eq!((refused.problem.code, refused.problem.status()), (Code::InsufficientBalance, 402));
    assert!(refused.problem.message.starts_with("Insufficient balance: $0.01 required, $0.00"));
    room.gateway.settle().await;
    let balance = room.queue.balance("k1").await.unwrap();
    assert_eq!((balance.spent, balance.held, balance.available()), (100_000, 0, Some(5_000)));
}

#[tokio::test]
async fn a_failed_call_costs_no_budget() {
    let room = Room::new(&THREE.replace("ordered", "cheapest")).await;
    let caller = with_budget(&room, 12_000).await;
    room.provider("c").then([fail(FailureKind::NoImage)]);
    let refusal = room.gateway.make(request("m", 1), caller.clone(), None).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::AllProvidersExhausted, "the others are too dear");
    assert_eq!((room.provider("a").times_asked(), room.provider("b").times_asked()), (0, 0));
    room.gateway.settle().await;
    assert_eq!(room.queue.balance("k1").await.unwrap().available(), Some(12_000));
    let answer = room.gateway.make(request("m", 1), caller, None).await.unwrap();
    assert_eq!(answer.deployment.key, "c/m");
}

#[tokio::test]
async fn what_has_no_known_price_is_not_for_keys_with_a_budget() {
    let text = "[providers]\na = { protocol = \"openai\" }\n[models.m]\ndeployments = [\"a\"]";
    let room = Room::new(text).await;
    let caller = with_budget(&room, 1_000_000).await;
    let refusal = room.gateway.make(request("m", 1), caller, None).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::PermissionDenied);
    assert!(room.make(request("m", 1)).await.is_ok(), "without a budget it is");
}

#[tokio::test]
async fn a_key_has_its_rate_and_its_models() {
    let room = Room::new(THREE).await;
    let limits = KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() };
    let ask = || room.gateway.make(request("m", 1), limited(limits.clone()), None);
    assert!(ask().await.is_ok() && ask().await.is_ok());
    let refusal = ask().await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::RateLimited);
    assert!((1..=30_001).contains(&refusal.problem.retry_after_ms.unwrap()));
    let may = async |model: &str, patterns: &[&str]| {
        let models = patterns.iter().map(|pattern| pattern.to_string()).collect();
        let caller = limited(KeyLimits { models, ..KeyLimits::default() });
        match room.gateway.make(request(model, 1), caller, None).await {
            Ok(_) => true,
            Err(refusal) => {
                assert_eq!(refusal.problem.code, Code::PermissionDenied);
                false
            }
        }
    };
    assert!(may("m", &["m"]).await && may("m", &["x", "m*"]).await && may("b/m", &["b/*"]).await);
    assert!(!may("m", &["z-image"]).await && !may("a/m", &["b/*"]).await);
}

#[tokio::test]
async fn whoever_goes_away_is_in_the_log_and_no_provider_s_fault() {
    let room = Room::new(THREE).await;
    room.provider("a").then([Step::Make(NEVER)]);
    let waited = tokio::time::timeout(Duration::from_millis(50), room.make(request("m", 1))).await;
    assert!(waited.is_err());
    let [entry] = log(&room).await.try_into().unwrap();
    assert_eq!(entry.status, ModelStatus::Cancelled);
    assert_eq!(entry.calls[0].outcome, "cancelled");
    assert!(!entry.calls[0].fault);
}

#[tokio::test]
async fn requests_under_way_end_by_the_configuration_that_they_began_with() {
    let room = Room::new(THREE).await;
    room.provider("a").then([Step::Make(Duration::from_millis(300))]);
    let changed = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        room.gateway.replace(catalogue(&THREE.replace("ordered", "cheapest"))).unwrap();
        room.maker().await
    };
    let (before, after) = tokio::join!(room.maker(), changed);
    assert_eq!((before.as_str(), after.as_str()), ("a", "c"));
}

#[tokio::test]
async fn a_dry_run_tells_the_price_and_asks_nobody() {
    let room = Room::new(&THREE.replace("ordered", "cheapest")).await;
    let estimate = room.gateway.estimate(&request("m", 3), &caller()).await.unwrap();
    assert_eq!((estimate.deployment.key.as_str(), estimate.total), ("c/m", Micros(30_000)));
    let others: Vec<_> =
        estimate.alternatives.iter().map(|(one, total)| (one.key.as_str(), total.0)).collect();
    assert_eq!(others, [("b/m", 60_000), ("a/m", 90_000)]);
    assert_eq!(room.provider("c").times_asked(), 0);
    let settled = room.make(request("m", 3)).await.unwrap().cost;
    assert_eq!(settled, estimate.total);
}

//! Two servers on one database: what one has found out, the other knows, and a key's rate is one.

use zoetrope_api::images::Code;
use zoetrope_gateway::Gateway;
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::failure::{Failure, FailureKind};
use zoetrope_jobs::KeyLimits;

use crate::scripted::{Room, Step, THREE, caller, catalogue, fail, request};

async fn maker(gateway: &Gateway) -> String {
    let answer = gateway.make(request("m", 1), caller(), None).await.unwrap();
    answer.deployment.provider.clone()
}

fn is_healthy(gateway: &Gateway, key: &str) -> bool {
    let catalogue = gateway.catalogue();
    let found = catalogue.deployments().find(|(_, one)| one.key == key);
    gateway.is_healthy(found.unwrap().1)
}

/// They tell each other once.
async fn exchange(one: &Gateway, other: &Gateway) {
    for gateway in [one, other, one] {
        gateway.share().await.unwrap();
    }
    // Moments are told by milliseconds, and what is as old as what is known is no news.
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
}

#[tokio::test]
async fn what_one_has_found_to_be_down_the_other_leaves_alone_too() {
    let room = Room::new(THREE).await;
    let other = room.beside(THREE);
    room.provider("a").then((0..3).map(|_| fail(FailureKind::NoImage)));
    for _ in 0..3 {
        assert_eq!(maker(&room.gateway).await, "b");
    }
    assert!(is_healthy(&other, "a/m"));
    exchange(&room.gateway, &other).await;
    assert!(!is_healthy(&other, "a/m"));
    assert_eq!(maker(&other).await, "b");
    assert_eq!(room.provider("a").times_asked(), 3);
    // Somebody has changed its part of the file on one of them.
    let changed = THREE.replace("dollars = 0.03", "dollars = 0.035");
    other.replace(catalogue(&changed)).unwrap();
    exchange(&other, &room.gateway).await;
    assert!(is_healthy(&room.gateway, "a/m"), "the other has heard of it");
    assert_eq!(maker(&room.gateway).await, "a");
}

#[tokio::test]
async fn a_pause_that_one_was_asked_for_is_made_by_both() {
    let room = Room::new(THREE).await;
    let other = room.beside(THREE);
    let later = Failure {
        retry_after: Some(std::time::Duration::from_secs(60)),
        ..Failure::new(FailureKind::Throttled, "later")
    };
    room.provider("a").then([Step::Fail(later)]);
    assert_eq!(maker(&room.gateway).await, "b");
    exchange(&room.gateway, &other).await;
    assert!(is_healthy(&other, "a/m"), "load is no fault");
    assert_eq!(maker(&other).await, "b");
    assert_eq!(room.provider("a").times_asked(), 1);
}

#[tokio::test]
async fn a_server_that_starts_knows_what_the_others_know() {
    let room = Room::new(THREE).await;
    room.provider("a").then([fail(FailureKind::Configuration)]);
    assert_eq!(maker(&room.gateway).await, "b");
    room.gateway.share().await.unwrap();
    let late = room.beside(THREE);
    late.share().await.unwrap();
    assert!(!is_healthy(&late, "a/m"));
}

#[tokio::test]
async fn a_key_s_rate_is_one_however_many_servers_it_asks() {
    let room = Room::new(THREE).await;
    let other = room.beside(THREE);
    let limits = KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() };
    let caller = Caller { limits, ..caller() };
    assert!(room.gateway.make(request("m", 1), caller.clone(), None).await.is_ok());
    assert!(other.make(request("m", 1), caller.clone(), None).await.is_ok());
    for gateway in [&room.gateway, &other] {
        let refusal = gateway.make(request("m", 1), caller.clone(), None).await.unwrap_err();
        assert_eq!(refusal.problem.code, Code::RateLimited);
    }
}

//! What several servers of one database count and know together: rates, and which deployments are down.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use place::Place;
use zoetrope_jobs::{Health, Limits, Pace, Queue};

const START: i64 = 1_800_000_000_000;

/// Two servers on one database, and their clock.
async fn servers() -> ([Queue; 2], Arc<AtomicI64>, Place) {
    let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
    let one = place.open(&clock, Limits::default()).await;
    let other = place.open(&clock, Limits::default()).await;
    ([one, other], clock, place)
}

#[tokio::test]
async fn turns_are_counted_by_all_together() {
    let ([one, other], clock, _place) = servers().await;
    let pace = Pace { per_minute: 6, burst: 2 };
    let take = async |queue: &Queue, name: &str| queue.take_turn(name, pace).await.unwrap();
    assert_eq!(take(&one, "key:a").await, None);
    assert_eq!(take(&other, "key:a").await, None);
    assert_eq!(take(&one, "key:a").await, Some(Duration::from_secs(10)));
    assert_eq!(take(&other, "key:a").await, Some(Duration::from_secs(10)), "nothing was taken");
    assert_eq!(take(&other, "key:b").await, None, "names have their own");
    clock.fetch_add(10_000, Ordering::Relaxed);
    assert_eq!(take(&other, "key:a").await, None);
    assert_eq!(take(&one, "key:a").await, Some(Duration::from_secs(10)));
    clock.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(take(&one, "key:a").await, None);
    assert_eq!(take(&one, "key:a").await, None);
    assert!(take(&one, "key:a").await.is_some(), "a long rest is worth no more than the burst");
}

#[tokio::test]
async fn of_many_at_once_no_more_are_let_through_than_the_minute_has() {
    let ([one, other], _clock, _place) = servers().await;
    let pace = Pace { per_minute: 10, burst: 10 };
    let takes = (0..40).map(|n| {
        let queue = if n % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move { queue.take_turn("key:a", pace).await.unwrap().is_none() })
    });
    let mut taken = 0;
    for take in takes.collect::<Vec<_>>() {
        taken += i32::from(take.await.unwrap());
    }
    assert_eq!(taken, 10);
}

#[tokio::test]
async fn turns_that_nobody_needs_are_swept_away() {
    let ([one, _], clock, _place) = servers().await;
    let pace = Pace { per_minute: 1, burst: 1 };
    assert_eq!(one.take_turn("key:a", pace).await.unwrap(), None);
    one.sweep_calls(0).await.unwrap();
    assert!(one.take_turn("key:a", pace).await.unwrap().is_some(), "its time is not over");
    clock.fetch_add(2 * 3_600_000, Ordering::Relaxed);
    one.sweep_calls(0).await.unwrap();
    assert_eq!(one.take_turn("key:a", pace).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_told_last_is_what_the_others_hear() {
    let ([one, other], _clock, _place) = servers().await;
    let health = |changed_ms, open_until_ms| Health {
        deployment: "fal/m".into(),
        open_until_ms,
        pause_ms: 30_000,
        cool_until_ms: None,
        changed_ms,
    };
    one.tell_health(&health(START, Some(START + 30_000))).await.unwrap();
    assert_eq!(other.health(START).await.unwrap(), [health(START, Some(START + 30_000))]);
    other.tell_health(&health(START + 5, None)).await.unwrap();
    one.tell_health(&health(START + 3, Some(START + 60_000))).await.unwrap();
    assert_eq!(one.health(0).await.unwrap(), [health(START + 5, None)], "late news are none");
    assert!(one.health(START + 6).await.unwrap().is_empty());
}

//! Cancelling against everything that may happen at the same moment: a cancelled request ends, exactly once.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use place::{Place, done, new};
use sqlx::{AnyConnection, Connection};
use tokio::task::JoinSet;
use zoetrope_jobs::{Attempt, Cancelled, End, Limits, New, Outcome, Queue, State};

async fn room() -> (Place, Queue) {
    let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(1_000_000)));
    let queue = place.open(&clock, Limits::default()).await;
    (place, queue)
}

fn with_hook() -> New {
    New { webhook: Some("https://example.com/hook".into()), ..new() }
}

async fn outcome(queue: &Queue, id: &str) -> Option<Outcome> {
    queue.request(id).await.unwrap().unwrap().end.map(|end| end.outcome)
}

#[tokio::test]
async fn what_is_given_up_after_somebody_cancelled_it_ends_as_cancelled() {
    let (_place, queue) = room().await;
    let broken = End::of_request(Outcome::Failed, 500, "runner_server_error", "It broke");
    for attempt in [Attempt::HandedBack, Attempt::Again(broken)] {
        let id = queue.submit(with_hook()).await.unwrap();
        let lease = queue.claim().await.unwrap().unwrap();
        assert_eq!(queue.cancel(&id).await.unwrap(), Cancelled::Requested);
        lease.finish(attempt.clone()).await.unwrap();
        assert_eq!(outcome(&queue, &id).await, Some(Outcome::Cancelled), "{attempt:?}");
        assert_eq!(queue.take_due(60_000, &[]).await.unwrap().unwrap().request, id);
    }
}

#[tokio::test]
async fn what_was_left_waiting_though_cancelled_is_ended_by_the_next_sweep() {
    let (place, queue) = room().await;
    let id = queue.submit(with_hook()).await.unwrap();
    let mut connection = AnyConnection::connect(&place.url).await.unwrap();
    sqlx::query("UPDATE requests SET cancel = 1").execute(&mut connection).await.unwrap();
    assert!(queue.claim().await.unwrap().is_none());
    assert_eq!(queue.sweep(i64::MAX / 2).await.unwrap().cancelled, 1);
    assert_eq!(outcome(&queue, &id).await, Some(Outcome::Cancelled));
    assert_eq!(queue.take_due(60_000, &[]).await.unwrap().unwrap().request, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_handed_back_while_they_are_cancelled_all_end() {
    let (_place, queue) = room().await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(queue.submit(New { concurrency_max: 1000, ..new() }).await.unwrap());
    }
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let queue = queue.clone();
        tasks.spawn(async move {
            // Until nothing may be claimed any more, which is when all are cancelled.
            while let Some(lease) = queue.claim().await.unwrap() {
                let _ = lease.finish(Attempt::HandedBack).await; // to be cancelled, or back
            }
        });
    }
    for id in &ids {
        let wish = queue.cancel(id).await.unwrap();
        assert!(matches!(wish, Cancelled::Removed | Cancelled::Requested), "{wish:?}");
    }
    tasks.join_all().await;
    for id in &ids {
        assert_eq!(outcome(&queue, id).await, Some(Outcome::Cancelled));
    }
    assert_eq!(queue.cancel(&ids[0]).await.unwrap(), Cancelled::AlreadyDone);
}

#[tokio::test]
async fn an_end_that_comes_before_the_wish_counts() {
    let (_place, queue) = room().await;
    let id = queue.submit(new()).await.unwrap();
    let lease = queue.claim().await.unwrap().unwrap();
    assert_eq!(queue.cancel(&id).await.unwrap(), Cancelled::Requested);
    lease.finish(Attempt::End(done())).await.unwrap();
    assert_eq!(queue.cancel(&id).await.unwrap(), Cancelled::AlreadyDone);
    let ended = queue.request(&id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.end), (State::Done, Some(done())));
}

//! Several nodes on one PostgreSQL: they hear of each other, share the work, and keep limits together.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use place::{Place, done, new, work_through};
use tokio::task::JoinSet;
use zoetrope_jobs::{Attempt, Cancelled, Heartbeat, Limits, New, Queue};

/// Much longer than a message takes, much shorter than [`PATIENCE`].
const SOON: Duration = Duration::from_secs(5);
/// How long a watcher would wait if no message came.
const PATIENCE: Duration = Duration::from_secs(60);

async fn nodes(count: usize) -> Vec<Queue> {
    let (place, clock) = (Place::postgres().await, Arc::new(AtomicI64::new(1_000_000)));
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(place.open(&clock, Limits::default()).await);
    }
    // Nodes listen from a moment after they were opened; what came before, they look up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    nodes
}

#[tokio::test]
#[ignore = "needs PostgreSQL: python tests/services.py cargo test -p zoetrope-jobs -- --ignored"]
async fn a_change_is_heard_on_the_other_node() {
    let nodes = nodes(2).await;
    let id = nodes[0].submit(new()).await.unwrap();
    let mut watcher = nodes[1].watch(&id);
    let lease = nodes[0].claim().await.unwrap().unwrap();
    let begun = Instant::now();
    watcher.changed(PATIENCE).await;
    lease.log("INFO", "step 1/8").await.unwrap();
    watcher.changed(PATIENCE).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(nodes[1].logs(&id, 0, 10).await.unwrap()[0].message, "step 1/8");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: python tests/services.py cargo test -p zoetrope-jobs -- --ignored"]
async fn work_is_announced_to_the_other_node() {
    let nodes = nodes(2).await;
    let mut work = nodes[1].work();
    work.mark_unchanged();
    nodes[0].submit(new()).await.unwrap();
    tokio::time::timeout(SOON, work.changed()).await.unwrap().unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: python tests/services.py cargo test -p zoetrope-jobs -- --ignored"]
async fn cancelling_reaches_the_worker_of_another_node() {
    let nodes = nodes(2).await;
    let id = nodes[0].submit(new()).await.unwrap();
    let lease = nodes[1].claim().await.unwrap().unwrap();
    assert_eq!(nodes[0].cancel(&id).await.unwrap(), Cancelled::Requested);
    assert!(lease.cancel_asked().await.unwrap());
    assert_eq!(lease.heartbeat().await.unwrap(), Heartbeat::CancelAsked);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: python tests/services.py cargo test -p zoetrope-jobs -- --ignored"]
async fn workers_of_several_nodes_claim_each_request_once() {
    let nodes = nodes(3).await;
    let mut submitted = Vec::new();
    for _ in 0..200 {
        let new = New { concurrency_max: 1000, ..new() };
        submitted.push(nodes[0].submit(new).await.unwrap());
    }
    let mut workers = JoinSet::new();
    for worker in 0..12 {
        workers.spawn(work_through(nodes[worker % 3].clone()));
    }
    let mut worked: Vec<String> = workers.join_all().await.concat();
    worked.sort();
    assert_eq!(worked, submitted);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: python tests/services.py cargo test -p zoetrope-jobs -- --ignored"]
async fn an_owner_s_limit_holds_on_all_nodes_together() {
    let nodes = nodes(4).await;
    for _ in 0..40 {
        nodes[0].submit(New { concurrency_max: 2, ..new() }).await.unwrap();
    }
    for _ in 0..10 {
        let mut claims = JoinSet::new();
        for worker in 0..8 {
            let queue = nodes[worker % 4].clone();
            claims.spawn(async move { queue.claim().await.unwrap() });
        }
        let leases: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(leases.len(), 2, "of 8 that asked at once, with a limit of 2");
        for lease in leases {
            lease.finish(Attempt::End(done())).await.unwrap();
        }
    }
}

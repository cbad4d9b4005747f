//! Two machines whose clocks disagree, on one PostgreSQL.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::time::Instant;

use place::{Place, new};
use zoetrope_jobs::{Clock, Heartbeat, Limits, Queue, Settings, shared_clock};

#[tokio::test]
async fn a_file_s_clock_is_this_machine_s() {
    let clock = shared_clock("sqlite://queue.db", Arc::new(|| 42)).await.unwrap();
    assert_eq!(clock(), 42);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: python tests/services.py cargo test -p zoetrope-jobs -- --ignored"]
async fn a_worker_with_a_slow_clock_keeps_its_lease() {
    let place = Place::postgres().await;
    let begun = Instant::now();
    let reads = |at: i64| -> Clock { Arc::new(move || at + begun.elapsed().as_millis() as i64) };
    let (slow, fast) = (reads(1_000_000), reads(1_600_000)); // both far from the database's
    let mut nodes = Vec::new();
    for own in [slow, fast] {
        let now_ms = shared_clock(&place.url, own).await.unwrap();
        let settings = Settings { url: place.url.clone(), limits: Limits::default(), now_ms };
        nodes.push(Queue::open(settings).await.unwrap());
    }
    nodes[1].submit(new()).await.unwrap();
    let lease = nodes[0].claim().await.unwrap().unwrap();
    assert_eq!(nodes[1].sweep(i64::MAX / 2).await.unwrap().lost, 0);
    assert_eq!(lease.heartbeat().await.unwrap(), Heartbeat::Held);
}

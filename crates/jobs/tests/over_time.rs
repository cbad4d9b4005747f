//! How quick everything was, step by step.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use place::{Place, done, new};
use zoetrope_jobs::{
    Attempt, End, Limits, ModelCall, ModelRequest, ModelStatus, Outcome, Status, Whose,
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const START: i64 = 20_000 * DAY;

fn request(number: i64, provider: &str, created_ms: i64, duration_us: i64) -> ModelRequest {
    let call = ModelCall {
        provider: provider.into(),
        deployment: format!("{provider}/m"),
        upstream: "there".into(),
        outcome: "completed".into(),
        fault: false,
        duration_us,
        first_byte_us: Some(duration_us / 2),
        pictures: 1,
        cost_micros: 7,
    };
    ModelRequest {
        id: format!("req_{number}"),
        owner: "k1".into(),
        model: "m".into(),
        mode: "text-to-image".into(),
        status: ModelStatus::Completed,
        provider: Some(provider.into()),
        deployment: Some(call.deployment.clone()),
        upstream: Some("there".into()),
        pictures: 1,
        cost_micros: 7,
        created_ms,
        duration_us,
        upstream_us: duration_us,
        calls: vec![call],
        ..ModelRequest::default()
    }
}

#[tokio::test]
async fn steps_of_calls_add_up_to_the_whole_with_their_times() {
    let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
    let queue = place.open(&clock, Limits::default()).await;
    let ledger = queue.ledger();
    // A call of each provider in each of 48 hours; those of the second day take twice as long.
    for hour in 0..48 {
        let us = if hour < 24 { 1_000_000 } else { 2_000_000 };
        for (at, provider) in ["fal", "local"].into_iter().enumerate() {
            ledger.record(request(
                2 * hour + at as i64,
                provider,
                START + hour * HOUR + 59 * 60_000,
                us,
            ));
        }
    }
    ledger.flush().await;
    for (step, count) in [(HOUR, 48), (6 * HOUR, 8), (DAY, 2), (0, 48)] {
        let steps = queue.calls_over_time(START, START + 2 * DAY, step).await.unwrap();
        assert_eq!(steps.len(), 2 * count, "{step}");
        assert!(steps.iter().all(|at| at.at_ms % step.max(HOUR) == 0));
        let sum: i64 = steps.iter().map(|at| at.calls.calls).sum();
        let timed: i64 = steps.iter().map(|at| at.calls.total.count()).sum();
        let first: i64 = steps.iter().map(|at| at.calls.first_byte.count()).sum();
        assert_eq!((sum, timed, first), (96, 96, 96));
    }
    let days = queue.calls_over_time(START, START + 2 * DAY, DAY).await.unwrap();
    let medians: Vec<f64> =
        days.iter().map(|at| at.calls.total.quantile_us(0.5).unwrap() / 1e6).collect();
    for (found, expected) in medians.iter().zip([1.0, 1.0, 2.0, 2.0]) {
        assert!((found / expected - 1.0).abs() < 0.011, "{medians:?}");
    }
    assert_eq!(days[0].calls.cost_micros, 24 * 7);
    let whole = queue.calls(START, START + 2 * DAY, Whose::All).await.unwrap();
    let parts = queue.calls_over_time(START, START + 2 * DAY, DAY).await.unwrap();
    for sum in whole {
        let own = parts.iter().filter(|at| at.calls.deployment == sum.deployment);
        assert_eq!(own.map(|at| at.calls.completed_us).sum::<i64>(), sum.completed_us);
    }
    // What came before or comes after is not in it.
    assert_eq!(
        queue.calls_over_time(START + DAY, START + DAY + HOUR, HOUR).await.unwrap().len(),
        2
    );
}

#[tokio::test]
async fn requests_that_ended_are_told_with_what_they_waited_took_and_cost() {
    let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
    let queue = place.open(&clock, Limits::default()).await;
    let failed = |status_code| End {
        outcome: Outcome::Failed,
        status_code,
        inference_ms: None,
        billable_units: None,
        ..done()
    };
    let unkept = zoetrope_jobs::New { keep_io: false, owner: "k2".into(), ..new() };
    let mut ids = Vec::new();
    for (new, end) in [(new(), done()), (unkept, failed(422)), (new(), failed(500))] {
        ids.push(queue.submit(new).await.unwrap());
        clock.fetch_add(250, Ordering::Relaxed);
        let lease = queue.claim().await.unwrap().unwrap();
        clock.fetch_add(1000, Ordering::Relaxed);
        lease.finish(Attempt::End(end)).await.unwrap();
    }
    let all = queue.finished(START, START + DAY).await.unwrap();
    let said: Vec<_> =
        all.iter().map(|r| (r.id.clone(), r.owner.as_str(), r.status, r.waited_ms)).collect();
    assert_eq!(
        said,
        [
            (ids[2].clone(), "local", Status::Error, Some(250)),
            (ids[1].clone(), "k2", Status::UserError, Some(250)),
            (ids[0].clone(), "local", Status::Success, Some(250)),
        ]
    );
    // 0.786432 units at half a dollar.
    assert_eq!((all[2].inference_ms, all[2].cost_micros), (Some(1234), 393_216));
    assert_eq!(all[2].finished_ms, START + 1250);
    assert_eq!(queue.finished(START + 1251, START + DAY).await.unwrap().len(), 2);
    assert_eq!(queue.finished(START, START + 1250).await.unwrap(), []);
}

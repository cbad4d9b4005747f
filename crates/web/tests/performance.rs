//! The page about performance without a browser.

#![allow(clippy::unwrap_used)]

#[path = "../../server/tests/room/mod.rs"]
mod room;
mod visit;

use room::{Room, Setup};
use visit::Visit;
use zoetrope_jobs::{ModelCall, ModelRequest, ModelStatus, Scope, WorkerRow};

async fn record(room: &Room, owner: &str, provider: &str, duration_us: i64, cost_micros: i64) {
    let call = ModelCall {
        provider: provider.into(),
        deployment: format!("{provider}/z-image-turbo"),
        upstream: "there".into(),
        outcome: "completed".into(),
        fault: false,
        duration_us,
        first_byte_us: Some(duration_us / 2),
        pictures: 1,
        cost_micros,
    };
    let request = ModelRequest {
        id: format!("req_{owner}_{provider}_{duration_us}"),
        owner: owner.into(),
        model: "z-image-turbo".into(),
        mode: "text-to-image".into(),
        status: ModelStatus::Completed,
        provider: Some(provider.into()),
        deployment: Some(call.deployment.clone()),
        upstream: Some("there".into()),
        pictures: 1,
        cost_micros,
        created_ms: room.now.load(std::sync::atomic::Ordering::Relaxed),
        duration_us,
        upstream_us: duration_us,
        calls: vec![call],
        ..ModelRequest::default()
    };
    let ledger = room.queue.ledger();
    ledger.record(request);
    ledger.flush().await;
}

#[tokio::test]
async fn calls_engine_load_and_keys_are_shown_with_their_numbers() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let page = visit.get("/performance").await;
    assert!(
        page.contains("No worker has spoken") && page.contains("Nothing in this time"),
        "{page}"
    );
    for n in 1..=20 {
        record(&room, "local", "fal", 1_000_000 * n, 5_000).await;
    }
    record(&room, "local", "local", 400_000, 0).await;
    room.submit().await;
    room.work().await;
    room.submit().await;
    let worker = WorkerRow {
        id: "w".into(),
        host: "studio <1>".into(),
        since_ms: 1_800_000_000_000,
        seen_ms: 0,
        request: None,
        memory_bytes: 2_500_000_000,
        memory_bytes_all: 16_000_000_000,
    };
    room.queue.worker_seen(&worker).await.unwrap();
    room.queue.sample_load().await.unwrap();
    for path in [
        "/performance",
        "/performance?window=week&by=model",
        "/performance?window=month",
        "/performance?window=%00&by=x",
    ] {
        let page = visit.get(path).await;
        for text in [
            "studio &lt;1&gt;",
            "2.5 GB",
            "of 16.0 GB",
            "$0.10",
            "100.0 %",
            "fal-ai/z-image/turbo",
            "1.50 s",
            "<svg",
            "<td class=\"number\">",
        ] {
            assert!(page.contains(text), "{path}: {text}: {page}");
        }
        assert!(!page.contains("style="), "the policy forbids styles in attributes");
    }
    let page = visit.get("/performance").await;
    // Half of twenty calls of 1 to 20 s took 10 s, to the width of a bucket; nineteen of them 19 s.
    let row = page.split("<th scope=\"row\">fal</th>").nth(1).unwrap();
    let cells: Vec<f64> = row
        .split("<td class=\"number\">")
        .skip(1)
        .take(5)
        .map(|cell| cell.split(" s<").next().unwrap().parse().unwrap())
        .collect();
    for (found, expected) in cells.iter().zip([10.0, 19.0, 10.5, 5.0, 9.5]) {
        assert!((found / expected - 1.0).abs() < 0.011, "{cells:?}");
    }
    assert!(row.split("</tr>").next().unwrap().contains("<td class=\"number\">20</td>"), "{row}");
}

#[tokio::test]
async fn a_key_sees_what_it_used_itself() {
    let room = Room::with(Setup { keys_required: true, ..Setup::default() }).await;
    let (one, other) =
        (Visit::signed_in(&room, Scope::Api).await, Visit::signed_in(&room, Scope::Api).await);
    let admin = Visit::signed_in(&room, Scope::Admin).await;
    record(&room, &one.owner, "fal", 1_000_000, 1_230_000).await;
    let page = one.get("/performance").await;
    assert!(page.contains("$1.23") && page.contains(&one.owner), "{page}");
    assert!(
        !page.contains("No worker has spoken"),
        "how busy the server is, is not told to everybody"
    );
    let page = other.get("/performance").await;
    assert!(!page.contains("$1.23") && !page.contains(&one.owner), "{page}");
    let page = admin.get("/performance").await;
    for text in ["$1.23", &one.owner, &other.owner, "No worker has spoken"] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

//! The history: what is shown of requests that are not to be kept, page by page, whatever is asked for.

#![allow(clippy::unwrap_used)]

mod room;

use room::{Room, TURBO};
use serde_json::{Value, json};

const LIST: &str = "/platform/v1/models/requests/by-endpoint";

async fn submit(room: &Room, headers: &[(&str, &str)], prompt: &str) -> String {
    let body = json!({"prompt": prompt}).to_string();
    let answer = room.send("POST", &format!("/queue/{TURBO}"), headers, body).await;
    answer.json()["request_id"].as_str().unwrap().into()
}

/// A request as it lies in the queue.
fn new(input: String) -> zoetrope_jobs::New {
    zoetrope_jobs::New {
        endpoint: TURBO.into(),
        owner: "local".into(),
        priority: zoetrope_jobs::Priority::Normal,
        keep_io: true,
        input,
        task: "{}".into(),
        concurrency_max: 9,
        retry: true,
        start_within_ms: None,
        webhook: None,
        base: String::new(),
        unit_price: None,
        trace: None,
    }
}

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["request_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn of_what_is_not_kept_nothing_is_shown_once_it_has_ended() {
    let room = Room::new().await;
    let id = submit(&room, &[("x-fal-store-io", "0")], "a secret").await;
    let ways =
        [format!("{LIST}?expand=payloads"), format!("{LIST}?request_id={id}&expand=payloads")];
    for way in &ways {
        assert_eq!(ids(&room.get(way).await.json()), [id.as_str()], "it waits");
    }
    room.work().await;
    for way in &ways {
        assert_eq!(room.get(way).await.json()["items"], json!([]));
    }
    assert_eq!(room.get(&format!("/platform/v1/models/requests/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_page_ends_before_it_fills_the_memory() {
    let room = Room::new().await;
    let long = "long ".repeat(1_200_000); // 6 MB
    let mut sent = Vec::new();
    for _ in 0..5 {
        let input = json!({"prompt": long}).to_string();
        sent.push(room.queue.submit(new(input)).await.unwrap());
    }
    sent.reverse();
    let first = room.get(&format!("{LIST}?expand=payloads")).await.json();
    assert_eq!(ids(&first), sent[..3]);
    assert_eq!(first["has_more"], true);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = room.get(&format!("{LIST}?expand=payloads&cursor={cursor}")).await.json();
    assert_eq!(
        (ids(&second), second["has_more"].clone()),
        (Vec::from_iter(sent[3..].iter().map(String::as_str)), json!(false))
    );
    assert_eq!(ids(&room.get(LIST).await.json()).len(), 5, "without payloads they fit");
}

#[tokio::test]
async fn the_history_is_filtered_and_sorted_as_asked_or_says_what_it_cannot() {
    let room = Room::new().await;
    let done = submit(&room, &[], "a house").await;
    room.work().await;
    room.later(60_000);
    let cancelled = submit(&room, &[], "a tree").await;
    room.send("PUT", &format!("/queue/fal-ai/z-image/requests/{cancelled}/cancel"), &[], "").await;
    let waiting = submit(&room, &[], "a hill").await;
    let names = [(&done, "done"), (&cancelled, "cancelled"), (&waiting, "waiting")];
    let list = async |query: &str| {
        let page = room.get(&format!("{LIST}?{query}")).await.json();
        let name = |id: &str| names.iter().find(|(known, _)| *known == id).unwrap().1;
        ids(&page).into_iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ["waiting", "cancelled", "done"]);
    assert_eq!(list("status=success").await, ["done"]);
    assert_eq!(list("status=user_error").await, ["cancelled"]);
    assert_eq!(list("status=error").await, [""; 0]);
    assert_eq!(list("sort_by=duration&limit=1").await, ["done"]);
    assert_eq!(list("sort_by=ended_at&limit=1").await, ["cancelled"]);
    // The room's clock begins at 2027-01-15T08:00:00Z.
    assert_eq!(list("end=2027-01-15T08:00:30Z").await, ["done"]);
    assert_eq!(list("start=2027-01-15T09:00:30%2B01:00").await, ["waiting", "cancelled"]);
    assert_eq!(list("start=2027-01-16").await, [""; 0]);
    for (query, told) in [
        ("status=fine", "success, user_error or error"),
        ("sort_by=colour", "ended_at or duration"),
        ("start=yesterday", "2026-01-31"),
        ("cursor=x.y", "cursor"),
    ] {
        let answer = room.get(&format!("{LIST}?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(told), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn what_was_asked_at_one_price_is_not_charged_at_another() {
    let room = Room::new().await;
    let id = submit(&room, &[], "a house").await;
    room.work().await;
    // As if it had come when pictures cost more than today.
    let dear = zoetrope_jobs::New { unit_price: Some(0.9), ..new(json!({}).to_string()) };
    let dear = room.queue.submit(dear).await.unwrap();
    room.work().await;
    for (id, price) in [(id, 0.005), (dear, 0.9)] {
        let item = room.get(&format!("/platform/v1/models/requests/{id}")).await.json();
        assert_eq!(item["unit_price"], json!(price));
        let units = item["billable_units"].as_f64().unwrap();
        assert_eq!(item["cost"].as_f64().unwrap(), units * price);
    }
}

#[tokio::test]
async fn texts_that_no_database_takes_are_answered_as_unknown() {
    let room = Room::new().await;
    for (uri, status) in [
        ("/platform/v1/models/requests/%00".to_string(), 404),
        (format!("{LIST}?cursor=%00"), 400),
        (format!("{LIST}?endpoint_id=%00"), 200),
        (format!("{LIST}?request_id=%00"), 200),
        ("/queue/fal-ai/z-image/requests/%00/status".to_string(), 404),
    ] {
        assert_eq!(room.get(&uri).await.status, status, "{uri}");
    }
    let uri = format!("/queue/{TURBO}?fal_webhook=http%3A%2F%2F127.0.0.1%2F%00x");
    let answer = room.post(&uri, json!({"prompt": "a"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["request_id"].as_str().unwrap().to_string();
    let kept = room.queue.standing(&id).await.unwrap().unwrap().webhook;
    assert_eq!(kept.as_deref(), Some("http://127.0.0.1/%00x"));
}

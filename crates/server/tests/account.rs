//! What a key has left and what was asked by it, how providers do, and requests that are sent twice.

#![allow(clippy::unwrap_used)]

mod painter;
mod room;

use painter::Painter;
use room::{Answer, Room, Setup};
use serde_json::{Value, json};
use zoetrope_gateway::catalogue::Catalogue;
use zoetrope_jobs::{KeyLimits, Period, Scope};

/// A server that asks for keys and takes a cent for a picture.
async fn shop() -> Room {
    let text = r#"
        [models.z-image-turbo]
        deployments = [{ provider = "local", price = { unit = "image", dollars = 0.01 } }]
    "#;
    let catalogue = Catalogue::read(&text.parse().unwrap(), &|_| None).unwrap();
    Room::with(Setup { keys_required: true, catalogue, ..Setup::default() }).await
}

async fn key(room: &Room, scope: Scope, limits: KeyLimits) -> (String, String) {
    let (id, key) = room.key(scope, 4).await;
    room.queue.limit_key(&id, &limits).await.unwrap();
    (id, key)
}

async fn get(room: &Room, uri: &str, key: &str) -> Value {
    room.gateway.settle().await;
    let answer = room.send("GET", uri, &[("authorization", key)], "").await;
    assert_eq!(answer.status, 200, "{uri}: {answer:?}");
    answer.json()
}

async fn draw(room: &Room, headers: &[(&str, &str)], prompt: &str) -> Answer {
    let body = json!({"model": "z-image-turbo", "prompt": prompt, "size": "64x64"}).to_string();
    room.send("POST", "/v1/images/generations", headers, body).await
}

#[tokio::test]
async fn a_key_with_a_budget_sees_it_shrink_and_is_told_when_it_is_gone() {
    let room = shop().await;
    let _painter = Painter::of(&room);
    let limits = KeyLimits { budget_micros: Some(15_000), ..KeyLimits::default() };
    let (_, key) = key(&room, Scope::Api, limits).await;
    let before = get(&room, "/v1/balance", &key).await;
    assert_eq!(before["available"], json!({"amount": 0.015, "currency": "usd"}));
    assert_eq!(
        (&before["object"], &before["billing_type"]),
        (&json!("balance"), &json!("prepaid"))
    );
    let drawn = draw(&room, &[("authorization", &key)], "a house").await;
    assert_eq!((drawn.status.as_u16(), drawn.header("x-gateway-cost")), (200, "0.010000"));
    let after = get(&room, "/openai/v1/balance", &key).await;
    assert_eq!((&after["available"]["amount"], &after["spent"]), (&json!(0.005), &json!(0.01)));
    let refused = draw(&room, &[("authorization", &key)], "a house").await;
    assert_eq!(refused.status, 402);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "INSUFFICIENT_BALANCE");
    assert_eq!(error["message"], "Insufficient balance: $0.01 required, $0.005 available");
    assert_eq!(refused.header("x-should-retry"), "false");
    let (_, free) = self::key(&room, Scope::Api, KeyLimits::default()).await;
    let balance = get(&room, "/v1/balance", &free).await;
    assert_eq!(balance["available"]["amount"], Value::Null);
    assert_eq!(balance["billing_type"], "postpaid");
}

#[tokio::test]
async fn the_log_shows_a_key_its_own_requests_and_an_administrator_all() {
    let room = shop().await;
    let _painter = Painter::of(&room);
    let (id, first) = key(&room, Scope::Api, KeyLimits::default()).await;
    let (_, other) = key(&room, Scope::Api, KeyLimits::default()).await;
    let (_, admin) = key(&room, Scope::Admin, KeyLimits::default()).await;
    let drawn = draw(&room, &[("authorization", &first)], "a secret").await.json();
    let unknown = json!({"model": "nothing", "prompt": "a secret"}).to_string();
    room.send("POST", "/v1/images/generations", &[("authorization", &first)], unknown).await;
    let list = get(&room, "/v1/requests", &first).await;
    assert!(!list.to_string().contains("a secret"), "prompts are in no log");
    let data = list["data"].as_array().unwrap();
    assert_eq!(
        (data[0]["status"].as_str(), data[0]["error_code"].as_str()),
        (Some("rejected"), Some("MODEL_NOT_FOUND"))
    );
    let entry = &data[1];
    assert_eq!((&entry["id"], &entry["status"]), (&drawn["id"], &json!("completed")));
    assert_eq!((&entry["model"], &entry["cost"]), (&json!("z-image-turbo"), &json!(0.01)));
    assert_eq!((&entry["key_id"], &entry["provider"]), (&json!(id), &json!("local")));
    assert_eq!(entry["attempts"][0]["status"], "completed");
    assert_eq!(entry["created_at"], "2027-01-15T08:00:00Z");
    assert_eq!(
        get(&room, "/v1/requests?limit=1&status=completed", &admin).await["data"][0],
        *entry
    );
    assert_eq!(get(&room, "/v1/requests", &other).await["data"], json!([]));
    let one = format!("/v1/requests/{}", entry["id"].as_str().unwrap());
    assert_eq!(get(&room, &one, &first).await, *entry);
    for (uri, who, status) in [
        (one.as_str(), &other, 404),
        (&format!("/v1/requests?key_id={id}"), &other, 403),
        ("/v1/requests?limit=0", &first, 400),
        ("/v1/requests?status=odd", &first, 400),
        ("/v1/requests?created_after=soon", &first, 400),
        ("/v1/requests?starting_after=a&ending_before=b", &first, 400),
        ("/v1/usage?window=long", &first, 400),
    ] {
        let answer = room.send("GET", uri, &[("authorization", who)], "").await;
        assert_eq!(answer.status, status, "{uri}: {answer:?}");
    }
    let page = get(&room, "/v1/requests?limit=1", &first).await;
    let next = get(&room, page["next_page_url"].as_str().unwrap(), &first).await;
    assert_eq!(next["data"][0], *entry);
    let back = get(&room, next["previous_page_url"].as_str().unwrap(), &first).await;
    assert_eq!(back["data"], page["data"]);
}

#[tokio::test]
async fn providers_and_keys_are_added_up() {
    let room = shop().await;
    let _painter = Painter::of(&room);
    let (id, first) = key(&room, Scope::Api, KeyLimits::default()).await;
    let (_, admin) = key(&room, Scope::Admin, KeyLimits::default()).await;
    for _ in 0..2 {
        assert_eq!(draw(&room, &[("authorization", &first)], "a house").await.status, 200);
    }
    assert_eq!(draw(&room, &[("authorization", &admin)], "a house").await.status, 200);
    let all = get(&room, "/v1/providers/performance", &first).await;
    let local = &all["data"][0];
    assert_eq!((&local["provider"], &local["model"]), (&json!("local"), &json!("z-image-turbo")));
    assert_eq!((&local["total_requests"], &local["success_rate"]), (&json!(3), &json!(100.0)));
    assert_eq!((&local["images"], &local["total_cost_micros"]), (&json!(3), &json!(30_000)));
    for figure in ["p50", "p95", "average"] {
        assert!(local["generation_time_ms"][figure].as_f64().unwrap() > 0.0, "{local}");
    }
    assert!(local["time_to_first_byte_ms"]["p95"].as_f64().unwrap() > 0.0, "{local}");
    let none = get(&room, "/v1/providers/performance?provider=fal&window=12h", &first).await;
    assert_eq!(none["data"], json!([]));
    let own = get(&room, "/v1/usage", &first).await;
    assert_eq!(own["data"].as_array().unwrap().len(), 1);
    let own = &own["data"][0];
    assert_eq!(
        (&own["key_id"], &own["completed"], &own["cost"]),
        (&json!(id), &json!(2), &json!(0.02))
    );
    assert_eq!(own["deployments"][0]["deployment"], "local/z-image-turbo");
    assert_eq!(get(&room, "/v1/usage", &admin).await["data"].as_array().unwrap().len(), 2);
    room.later(3_600_000);
    assert_eq!(
        get(&room, "/v1/usage?window=1h", &admin).await["data"].as_array().unwrap().len(),
        2
    );
    room.later(3_600_000);
    assert_eq!(get(&room, "/v1/usage?window=1h", &admin).await["data"], json!([]));
}

#[tokio::test]
async fn what_is_sent_twice_with_one_idempotency_key_is_drawn_once() {
    let room = shop().await;
    let painter = Painter::of(&room);
    let (_, key) = key(&room, Scope::Api, KeyLimits::default()).await;
    let headers = [("authorization", key.as_str()), ("idempotency-key", "once")];
    let (first, second) =
        tokio::join!(draw(&room, &headers, "a house"), draw(&room, &headers, "a house"));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(first.json(), second.json());
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"));
    let replayed: Vec<_> =
        [&first, &second].map(|answer| answer.header("idempotent-replayed").to_string()).into();
    assert!(replayed.contains(&"true".into()) && replayed.contains(&String::new()), "{replayed:?}");
    assert_eq!(painter.drawn().len(), 1);
    let other = draw(&room, &headers, "a barn").await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(other.header("x-should-retry"), "false");
    let (_, somebody) = self::key(&room, Scope::Api, KeyLimits::default()).await;
    let headers = [("authorization", somebody.as_str()), ("idempotency-key", "once")];
    assert_eq!(draw(&room, &headers, "a barn").await.status, 200, "keys are an owner's own");
    assert_eq!(painter.drawn().len(), 2);
}

#[tokio::test]
async fn what_went_wrong_for_nothing_may_be_sent_again_with_its_key() {
    let room = shop().await;
    let (id, key) =
        key(&room, Scope::Api, KeyLimits { budget_micros: Some(0), ..KeyLimits::default() }).await;
    let headers = [("authorization", key.as_str()), ("idempotency-key", "again")];
    assert_eq!(draw(&room, &headers, "a house").await.status, 402);
    let _painter = Painter::of(&room);
    room.queue.limit_key(&id, &KeyLimits::default()).await.unwrap();
    // A key is believed for two seconds, and the claim is freed beside the answer.
    tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
    let answer = draw(&room, &headers, "a house").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("idempotent-replayed"), "");
    let long = "k".repeat(256);
    let headers = [("authorization", key.as_str()), ("idempotency-key", long.as_str())];
    assert_eq!(draw(&room, &headers, "a house").await.status, 400);
}

#[tokio::test]
async fn keys_are_listed_without_their_secrets() {
    let room = shop().await;
    let limits = KeyLimits {
        budget_micros: Some(15_000),
        budget_period: Period::Month,
        ..KeyLimits::default()
    };
    let (id, own) = key(&room, Scope::Api, limits).await;
    let (_, admin) = key(&room, Scope::Admin, KeyLimits::default()).await;
    let list = get(&room, "/v1/keys", &own).await;
    let [one] = list["data"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(
        (&one["id"], &one["object"], &one["status"]),
        (&json!(id), &json!("key"), &json!("active"))
    );
    assert_eq!((&one["budget"], &one["budget_period"]), (&json!(0.015), &json!("month")));
    let secret = own.rsplit(':').next().unwrap();
    let all = get(&room, "/openai/v1/keys", &admin).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    let hash = room.queue.key(&id).await.unwrap().unwrap().hash;
    assert!(!all.to_string().contains(secret) && !all.to_string().contains(&hash));
    let balance = get(&room, "/v1/balance", &own).await;
    assert_eq!(balance["renewed_at"], "2027-02-01T00:00:00Z");
}

#[tokio::test]
async fn pictures_of_a_request_are_deleted_when_somebody_asks() {
    let room = shop().await;
    let _painter = Painter::of(&room);
    let (_, key) = key(&room, Scope::Api, KeyLimits::default()).await;
    let (_, other) = self::key(&room, Scope::Api, KeyLimits::default()).await;
    let headers = [("authorization", key.as_str()), ("idempotency-key", "once")];
    let body = json!({"model": "z-image-turbo", "prompt": "a house", "size": "64x64", "n": 2});
    let drawn = room.send("POST", "/v1/images/generations", &headers, body.to_string()).await;
    assert_eq!(drawn.status, 200, "{drawn:?}");
    let drawn = drawn.json();
    let urls: Vec<&str> = drawn["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["url"].as_str().unwrap().strip_prefix("http://127.0.0.1:7860").unwrap())
        .collect();
    assert_eq!(room.get(urls[0]).await.status, 200);
    room.gateway.settle().await;
    let path = format!("/v1/requests/{}/payloads", drawn["id"].as_str().unwrap());
    let purge = async |who: &str| room.send("DELETE", &path, &[("authorization", who)], "").await;
    assert_eq!(purge(&other).await.status, 404, "nobody deletes what is another's");
    let first = purge(&key).await;
    assert_eq!(first.status, 200, "{first:?}");
    let told = json!({"id": drawn["id"], "object": "request.payloads", "purged": true,
        "already_purged": false, "media_deleted": 2});
    assert_eq!(first.json(), told);
    for url in urls {
        assert_eq!(room.get(url).await.status, 404, "{url}");
    }
    let again = purge(&key).await.json();
    assert_eq!((&again["already_purged"], &again["media_deleted"]), (&json!(true), &json!(0)));
    let replayed = room.send("POST", "/v1/images/generations", &headers, body.to_string()).await;
    assert_eq!(replayed.header("idempotent-replayed"), "", "the kept answer is gone too");
    let entry = get(&room, path.strip_suffix("/payloads").unwrap(), &key).await;
    assert_eq!(entry["status"], "completed", "the log stays");
    assert!(entry["purged_at"].is_string());
}

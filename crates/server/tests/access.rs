//! Who may do what, under which names, by which way.

#![allow(clippy::unwrap_used)]

mod room;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use futures_util::stream;
use room::{Room, Setup, TURBO};
use serde_json::{Value, json};
use zoetrope_jobs::Scope;

fn keyed() -> Setup {
    Setup { keys_required: true, ..Setup::default() }
}

#[tokio::test]
async fn without_a_key_nothing_is_done_where_keys_are_needed() {
    let room = Room::with(keyed()).await;
    let calls = [
        ("POST", format!("/queue/{TURBO}")),
        ("POST", format!("/run/{TURBO}")),
        ("POST", format!("/run/{TURBO}/stream")),
        ("GET", "/queue/fal-ai/z-image/requests/1/status".into()),
        ("POST", "/rest/storage/upload/initiate".into()),
        ("POST", "/rest/storage/auth/token".into()),
        ("POST", "/rest/tokens/".into()),
        ("POST", "/cdn/files/upload".into()),
        ("GET", "/platform/v1/models/requests/by-endpoint".into()),
        ("GET", "/metrics".into()),
    ];
    for (method, uri) in calls {
        for header in [None, Some(("authorization", "Key a:b"))] {
            let headers = Vec::from_iter(header);
            let answer = room.send(method, &uri, &headers, r#"{"prompt":"a"}"#).await;
            assert_eq!(answer.status, 401, "{method} {uri} {header:?}");
            assert!(answer.json()["detail"].is_string());
        }
    }
}

#[tokio::test]
async fn a_key_sees_its_own_requests_and_an_administrator_s_sees_all() {
    let room = Room::with(keyed()).await;
    let (id, key) = room.key(Scope::Api, 4).await;
    let (_, other) = room.key(Scope::Api, 4).await;
    let (_, admin) = room.key(Scope::Admin, 4).await;
    let body = json!({"prompt": "a secret"}).to_string();
    let submitted =
        room.send("POST", &format!("/queue/{TURBO}"), &[("authorization", &key)], body).await;
    let request = submitted.json()["request_id"].as_str().unwrap().to_string();
    let uri = format!("/queue/fal-ai/z-image/requests/{request}/status");
    for (who, status) in [(&key, 202), (&admin, 202), (&other, 404)] {
        assert_eq!(room.send("GET", &uri, &[("authorization", who)], "").await.status, status);
    }
    let list = "/platform/v1/models/requests/by-endpoint?expand=payloads";
    for (who, count) in [(&key, 1), (&admin, 1), (&other, 0)] {
        let answer = room.send("GET", list, &[("authorization", who)], "").await;
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), count);
    }
    assert_eq!(room.send("GET", "/metrics", &[("authorization", &key)], "").await.status, 403);
    assert_eq!(room.send("GET", "/metrics", &[("authorization", &admin)], "").await.status, 200);
    // Bearer is the other word for it.
    let bearer = key.replace("Key ", "Bearer ");
    assert_eq!(room.send("GET", &uri, &[("authorization", &bearer)], "").await.status, 202);
    assert_eq!(room.queue.request(&request).await.unwrap().unwrap().owner, id);
}

#[tokio::test]
async fn a_revoked_key_is_refused_with_all_that_it_made() {
    let room = Room::with(keyed()).await;
    let (id, key) = room.key(Scope::Api, 4).await;
    let body = json!({"allowed_apps": ["z-image"], "token_expiration": 120}).to_string();
    let token = room.send("POST", "/rest/tokens/", &[("authorization", &key)], body).await;
    let token = token.json().as_str().unwrap().to_string();
    let with_token = format!("/run/{TURBO}/stream?fal_jwt_token={token}");
    let wrong = room.send("POST", &with_token, &[], "{}").await;
    assert_eq!(wrong.status, 422, "the token admits; the input is wrong");
    // It was made for models, not for uploads.
    let upload = [("authorization", format!("Bearer {token}"))];
    let upload = upload.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>();
    assert_eq!(room.send("POST", "/cdn/files/upload", &upload, "x").await.status, 403);
    assert!(room.queue.revoke_key(&id).await.unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(room.send("POST", &with_token, &[], "{}").await.status, 401);
    let headers = [("authorization", key.as_str())];
    assert_eq!(room.send("POST", &format!("/queue/{TURBO}"), &headers, "{}").await.status, 401);
}

#[tokio::test]
async fn fal_s_names_and_prefixes_lead_to_the_same_places() {
    let room = Room::new().await;
    let body = || json!({"prompt": "a house"}).to_string();
    let ways: [(&str, String, &str); 4] = [
        ("queue.fal.run", format!("/{TURBO}"), "https://queue.fal.run/"),
        ("queue.falrun.com", format!("/{TURBO}"), "https://queue.fal.run/"),
        ("localhost:7860", format!("/queue/{TURBO}"), "http://localhost:7860/queue/"),
        ("127.0.0.1:1", format!("/queue/{TURBO}"), "http://127.0.0.1:1/queue/"),
    ];
    for (host, path, begins) in ways {
        let answer = room.send("POST", &path, &[("host", host)], body()).await;
        assert_eq!(answer.status, 200, "{host}");
        let url = answer.json()["status_url"].as_str().unwrap().to_string();
        assert!(url.starts_with(begins), "{host}: {url}");
    }
    let target = format!("https://queue.fal.run/{TURBO}?fal_max_queue_length=100");
    let answer =
        room.send("POST", "/api/fal/proxy", &[("x-fal-target-url", target.as_str())], body()).await;
    assert_eq!(answer.status, 200);
    for (target, status) in [("https://example.com/a", 403), ("nonsense", 400)] {
        let headers = [("x-fal-target-url", target)];
        let answer = room.send("POST", "/api/fal/proxy", &headers, body()).await;
        assert_eq!(answer.status, status, "{target}");
    }
    let jwks = room.send("GET", "/.well-known/jwks.json", &[("host", "rest.fal.ai")], "").await;
    assert_eq!(jwks.json()["keys"][0]["crv"], "Ed25519");
}

#[tokio::test]
async fn without_keys_foreign_names_are_refused() {
    let room = Room::new().await;
    let cases = [
        ("evil.example", 403),
        ("localhost", 200),
        ("a.localhost:1", 200),
        ("[::1]:7860", 200),
        ("192.168.1.1", 403),
    ];
    for (host, status) in cases {
        let answer = room.send("GET", "/", &[("host", host)], "").await;
        assert_eq!(answer.status, status, "{host}");
    }
    let named = Setup { public_url: Some("https://pictures.example".into()), ..Setup::default() };
    let room = Room::with(named).await;
    assert_eq!(room.send("GET", "/", &[("host", "pictures.example")], "").await.status, 200);
    let keyed = Room::with(keyed()).await;
    assert_eq!(keyed.send("GET", "/healthz", &[("host", "evil.example")], "").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_may_not_read_answers_without_keys() {
    let room = Room::new().await;
    for (origin, allowed) in [("http://localhost:3000", true), ("https://evil.example", false)] {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization"),
        ];
        let answer = room.send("OPTIONS", &format!("/queue/{TURBO}"), &headers, "").await;
        let found = answer.header("access-control-allow-origin");
        assert_eq!(!found.is_empty(), allowed, "{origin}: {answer:?}");
    }
}

#[tokio::test]
async fn tokens_say_what_is_wrong_with_them() {
    let room = Room::new().await;
    let wrong = [
        json!({}),
        json!({"allowed_apps": "a"}),
        json!({"allowed_apps": [], "token_expiration": 0}),
    ];
    for body in wrong {
        assert_eq!(room.post("/rest/tokens/", body.clone()).await.status, 422, "{body}");
    }
    let large = " ".repeat(5 << 20);
    assert_eq!(room.send("POST", "/rest/tokens/", &[], large).await.status, 413);
    let answer = room
        .post("/rest/tokens/realtime", json!({"allowed_apps": ["fal-ai/z-image"], "duration": 10}))
        .await;
    let token = answer.json()["token"].as_str().unwrap().to_string();
    let uri = format!("/run/{TURBO}/stream?fal_jwt_token={token}");
    assert_eq!(room.send("POST", &uri, &[], "{}").await.status, 422);
    room.later(60_000);
    // Without keys any caller will do, also one whose token is over.
    assert_eq!(room.send("POST", &uri, &[], "{}").await.status, 422);
}

#[tokio::test]
async fn the_server_tells_about_itself() {
    let room = Room::new().await;
    assert_eq!(room.get("/healthz").await.text(), "ok\n");
    assert_eq!(room.get("/readyz").await.json()["status"], "ready");
    let index = room.get("/").await.json();
    let endpoints = index["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 16);
    for endpoint in endpoints {
        let id = endpoint["id"].as_str().unwrap();
        let openapi =
            room.get(&format!("/api/openapi/queue/openapi.json?endpoint_id={id}")).await.json();
        assert_eq!(openapi["openapi"], "3.0.4");
        assert!(openapi["paths"][format!("/{id}")]["post"].is_object(), "{id}");
        assert!(room.get(&format!("/models/{id}/llms.txt")).await.text().contains(id));
    }
    let unknown = room.get("/api/openapi/queue/openapi.json?endpoint_id=fal-ai/flux").await;
    assert_eq!((unknown.status.as_u16(), unknown.json()), (404, Value::Null));
    assert_eq!(room.get("/nothing/here").await.status, 404);
}

#[tokio::test]
async fn the_history_has_inputs_outputs_and_prices_and_forgets() {
    let room = Room::new().await;
    let id = room.submit().await;
    room.work().await;
    let base = room.post("/queue/fal-ai/z-image/base", json!({"prompt": "b"})).await;
    assert_eq!(base.status, 200);
    let list =
        room.get("/platform/v1/models/requests/by-endpoint?expand=payloads&limit=1").await.json();
    assert_eq!(
        (list["has_more"].clone(), list["items"][0]["unit_price"].clone()),
        (json!(true), json!(0.5))
    );
    let cursor = list["next_cursor"].as_str().unwrap();
    let page = room
        .get(&format!("/platform/v1/models/requests/by-endpoint?expand=payloads&cursor={cursor}"))
        .await
        .json();
    let item = &page["items"][0];
    assert_eq!(item["request_id"], id.as_str());
    assert_eq!(item["json_input"]["prompt"], "a house");
    assert_eq!(item["json_output"]["seed"], 1);
    assert_eq!(item["status"], "success");
    let cost = item["cost"].as_f64().unwrap();
    assert!((cost - 0.786432 * 0.005).abs() < 1e-12, "{cost}");
    let uri = format!("/platform/v1/models/requests/{id}/payloads");
    assert_eq!(room.send("DELETE", &uri, &[], "").await.status, 200);
    assert_eq!(room.send("DELETE", &uri, &[], "").await.status, 404);
    assert_eq!(room.get(&format!("/queue/fal-ai/z-image/requests/{id}")).await.status, 404);
    // What still waits is not forgotten.
    let waiting = base.json()["request_id"].as_str().unwrap().to_string();
    let uri = format!("/platform/v1/models/requests/{waiting}/payloads");
    assert_eq!(room.send("DELETE", &uri, &[], "").await.status, 409);
}

#[tokio::test]
async fn what_shall_not_be_kept_is_in_no_history() {
    let room = Room::new().await;
    for (headers, body) in [
        (vec![("x-fal-store-io", "0")], json!({"prompt": "a secret"})),
        (vec![], json!({"prompt": "a secret", "sync_mode": true})),
    ] {
        let answer =
            room.send("POST", &format!("/queue/{TURBO}"), &headers, body.to_string()).await;
        let id = answer.json()["request_id"].as_str().unwrap().to_string();
        room.work().await;
        let list = room.get("/platform/v1/models/requests/by-endpoint").await.json();
        assert_eq!(list["items"], json!([]));
        assert_eq!(room.get(&format!("/queue/fal-ai/z-image/requests/{id}")).await.status, 200);
        let row = room.queue.request(&id).await.unwrap().unwrap();
        assert_eq!(row.input, "{}", "the input is gone with the end");
        assert!(!row.task.contains("secret"), "and so is the task: {}", row.task);
        room.later(3_600_001);
        room.queue.sweep(i64::MAX / 2).await.unwrap();
        assert!(room.queue.request(&id).await.unwrap().is_none(), "the answer goes after an hour");
    }
}

#[tokio::test]
async fn pages_of_other_sites_can_do_nothing_without_keys() {
    let room = Room::new().await;
    let body = r#"{"prompt":"a"}"#;
    let calls = [
        ("POST", format!("/queue/{TURBO}")),
        ("POST", format!("/{TURBO}")),
        ("GET", format!("/{TURBO}?prompt=a")),
        ("GET", format!("/{TURBO}/realtime")),
        ("POST", "/files/upload".into()),
        ("POST", "/storage/upload/initiate".into()),
        ("DELETE", "/platform/v1/models/requests/1/payloads".into()),
    ];
    let foreign = [
        ("origin", "https://evil.example"),
        ("origin", "http://127.evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ];
    for (method, uri) in &calls {
        for header in foreign {
            let answer = room.send(method, uri, &[header], body).await;
            assert_eq!(answer.status, 403, "{method} {uri} {header:?}");
        }
    }
    assert_eq!(room.queue.queued().await.unwrap(), 0);
    let fine = [
        ("origin", "http://localhost:3000"),
        ("origin", "http://127.0.0.1:7860"),
        ("sec-fetch-site", "same-site"),
    ];
    for header in fine {
        let answer = room.send("POST", &format!("/queue/{TURBO}"), &[header], body).await;
        assert_eq!(answer.status, 200, "{header:?}");
    }
    // A page of this machine's that the browser counts as another site, as localhost and 127.0.0.1 are.
    let both = [("origin", "http://127.0.0.1:3000"), ("sec-fetch-site", "cross-site")];
    assert_eq!(room.send("POST", &format!("/queue/{TURBO}"), &both, body).await.status, 200);
    // A picture may be shown anywhere: its name is its key.
    let missing = format!("/files/{}/a.png", "0".repeat(32));
    assert_eq!(
        room.send("GET", &missing, &[("sec-fetch-site", "cross-site")], "").await.status,
        404
    );
    for host in ["127.evil.example", "127.0.0.1.evil.example:7860"] {
        assert_eq!(room.send("GET", "/", &[("host", host)], "").await.status, 403, "{host}");
    }
}

#[tokio::test]
async fn a_token_opens_one_thing() {
    let room = Room::with(keyed()).await;
    let (_, key) = room.key(Scope::Api, 4).await;
    let with_key = [("authorization", key.as_str())];
    let uploads = room.send("POST", "/rest/storage/auth/token", &with_key, "{}").await;
    let apps = json!({"allowed_apps": ["z-image"]}).to_string();
    let apps = room.send("POST", "/rest/tokens/", &with_key, apps).await;
    let uploads = format!("Bearer {}", uploads.json()["token"].as_str().unwrap());
    let apps = format!("Bearer {}", apps.json().as_str().unwrap());
    let input = r#"{"prompt": "a", "allowed_apps": ["z-image"]}"#;
    let calls: [(&str, String, bool, bool); 7] = [
        ("POST", format!("/queue/{TURBO}"), false, true),
        ("POST", "/cdn/files/upload".into(), true, false),
        ("POST", "/rest/storage/upload/initiate".into(), true, false),
        ("POST", "/rest/tokens/".into(), false, false),
        ("POST", "/rest/storage/auth/token".into(), false, false),
        ("GET", "/platform/v1/models/requests/by-endpoint".into(), false, false),
        ("GET", "/metrics".into(), false, false),
    ];
    for (method, uri, by_uploads, by_apps) in calls {
        for (token, admitted) in [(&uploads, by_uploads), (&apps, by_apps)] {
            let answer = room.send(method, &uri, &[("authorization", token)], input).await;
            assert_eq!(answer.status == 200, admitted, "{method} {uri}: {answer:?}");
            assert!(admitted || answer.status == 403, "{method} {uri}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_stranger_s_body_is_not_read() {
    let room = Room::with(keyed()).await;
    for uri in [format!("/queue/{TURBO}"), format!("/run/{TURBO}"), "/queue/fal-ai/none".into()] {
        let read = Arc::new(AtomicBool::new(false));
        let seen = read.clone();
        let body = stream::once(async move {
            seen.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>("{}")
        });
        let answer = room.send("POST", &uri, &[], Body::from_stream(body)).await;
        assert!([401, 404].contains(&answer.status.as_u16()), "{uri}: {answer:?}");
        assert!(!read.load(Ordering::Relaxed), "{uri}");
    }
}

#[tokio::test]
async fn behind_a_proxy_that_ends_tls_addresses_are_the_public_ones() {
    let public_url = Some("https://pictures.example".into());
    let room = Room::with(Setup { public_url, ..Setup::default() }).await;
    let headers = [("host", "pictures.example")];
    let answer = room.send("POST", &format!("/queue/{TURBO}"), &headers, r#"{"prompt":"a"}"#).await;
    let body = answer.json();
    for field in ["status_url", "response_url", "cancel_url"] {
        let url = body[field].as_str().unwrap();
        assert!(url.starts_with("https://pictures.example/queue/"), "{url}");
    }
}

#[tokio::test]
async fn wrong_methods_and_slashes_do_what_they_should() {
    let room = Room::new().await;
    for uri in [format!("/queue/{TURBO}"), format!("/run/{TURBO}")] {
        let answer = room.send("DELETE", &uri, &[], r#"{"prompt":"a"}"#).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"), "{uri}");
    }
    assert_eq!(room.queue.queued().await.unwrap(), 0);
    for uri in ["/rest/storage/upload/initiate/", "/rest/storage/auth/token/"] {
        assert_eq!(room.post(uri, json!({})).await.status, 200, "{uri}");
    }
}

#[tokio::test]
async fn a_session_opens_pages_and_nothing_else() {
    let room = Room::with(keyed()).await;
    let (id, key) = room.key(Scope::Admin, 4).await;
    let credential = key.trim_start_matches("Key ");
    assert_eq!(room.app.sign_in(&format!("{id}:wrong")).await.unwrap(), None);
    let token = room.app.sign_in(credential).await.unwrap().unwrap();
    let visitor = room.app.visitor(Some(&token)).await.unwrap().unwrap();
    assert_eq!((visitor.owner.as_str(), visitor.scope), (id.as_str(), Scope::Admin));
    assert_eq!(room.app.visitor(Some(credential)).await.unwrap(), None);
    assert_eq!(room.app.visitor(None).await.unwrap(), None);
    let bearer = format!("Bearer {token}");
    for (method, uri) in
        [("POST", "/v1/images/generations"), ("GET", "/metrics"), ("POST", "/files/upload")]
    {
        let answer = room.send(method, uri, &[("authorization", &bearer)], "{}").await;
        assert_eq!(answer.status, 403, "{uri}");
    }
    room.queue.revoke_key(&id).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await; // so long is a key believed
    assert_eq!(room.app.visitor(Some(&token)).await.unwrap(), None);
}

#[tokio::test]
async fn browsers_are_led_to_pages_and_programs_are_not() {
    let room = Room::new().await;
    let browser = room.send("GET", "/", &[("accept", "text/html,*/*;q=0.8")], "").await;
    assert_eq!((browser.status.as_u16(), browser.header("location")), (303, "/playground"));
    assert_eq!(room.send("GET", "/", &[("accept", "*/*")], "").await.json()["name"], "zoetrope");
}

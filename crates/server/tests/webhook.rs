//! Webhooks against a receiver on loopback: signed as fal's page describes, tried again, and never sent inside.

#![allow(clippy::unwrap_used)]

mod room;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use room::{Room, Setup, TURBO};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

type Heard = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// A receiver that refuses the first `refusals` calls.
async fn receiver(refusals: usize) -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/hook", post(take)).with_state((heard.clone(), refusals));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, heard)
}

async fn take(
    State((heard, refusals)): State<(Heard, usize)>,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let mut heard = heard.lock().unwrap();
    heard.push((headers, body));
    if heard.len() <= refusals { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

async fn wait_for(heard: &Heard, count: usize) {
    for _ in 0..200 {
        if heard.lock().unwrap().len() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{count} calls did not come: {:?}", heard.lock().unwrap());
}

async fn submit(room: &Room, hook: &str) -> room::Answer {
    let hook: String = url::form_urlencoded::byte_serialize(hook.as_bytes()).collect();
    room.post(&format!("/queue/{TURBO}?fal_webhook={hook}"), json!({"prompt": "a house"})).await
}

#[tokio::test]
async fn a_webhook_is_signed_as_fal_s_page_says_and_tried_until_it_is_taken() {
    let room = Room::new().await;
    let (address, heard) = receiver(1).await;
    let answer = submit(&room, &format!("http://{address}/hook")).await;
    let id = answer.json()["request_id"].as_str().unwrap().to_string();
    let (stop, stopped) = watch::channel(false);
    let sender = tokio::spawn(zoetrope_server::deliver(room.app.clone(), stopped));
    room.work().await;
    wait_for(&heard, 1).await;
    // The second attempt comes ten seconds later by the server's clock.
    tokio::time::sleep(Duration::from_millis(300)).await;
    room.later(10_001);
    wait_for(&heard, 2).await;

    let (headers, body) = heard.lock().unwrap()[1].clone();
    let header = |name: &str| headers[name].to_str().unwrap().to_string();
    let payload: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&payload["request_id"], &payload["status"]), (&json!(id), &json!("OK")));
    assert_eq!(payload["payload"]["seed"], 1);
    assert_eq!(header("x-fal-webhook-request-id"), id);
    let digest: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
    let user = header("x-fal-webhook-user-id");
    let message = format!("{id}\n{user}\n{}\n{digest}", header("x-fal-webhook-timestamp"));
    let jwks = room.get("/rest/.well-known/jwks.json").await.json();
    let key = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    let key = VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let signature = header("x-fal-webhook-signature");
    let byte = |at: usize| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap();
    let signature = Signature::from_bytes(&std::array::from_fn(byte));
    key.verify_strict(message.as_bytes(), &signature).unwrap();
    assert!(key.verify_strict(format!("{message}0").as_bytes(), &signature).is_err());

    stop.send(true).unwrap();
    sender.await.unwrap();
    let delivery = room.queue.delivery(&id).await.unwrap().unwrap();
    assert_eq!((delivery.attempts, delivery.due_ms), (2, None));
    assert!(delivery.delivered_ms.is_some());
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_nobody_else_up() {
    let room = Room::new().await;
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = format!("http://{}/hook", silent.local_addr().unwrap());
    for _ in 0..20 {
        submit(&room, &hanging).await;
        room.work().await;
    }
    let (address, heard) = receiver(0).await;
    submit(&room, &format!("http://{address}/hook")).await;
    room.work().await;
    let (_keep, stop) = watch::channel(false);
    tokio::spawn(zoetrope_server::deliver(room.app.clone(), stop));
    // Well before the first of the twenty is given up.
    wait_for(&heard, 1).await;
}

#[tokio::test]
async fn a_webhook_into_the_private_network_is_refused_while_its_sender_listens() {
    let room = Room::with(Setup { private: false, ..Setup::default() }).await;
    for hook in [
        "http://127.0.0.1:9/hook",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest",
        "ftp://example.com/",
        "nonsense",
        "http://[::1]/",
    ] {
        let answer = submit(&room, hook).await;
        assert_eq!(answer.status, 400, "{hook}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("fal_webhook"), "{hook}");
    }
}

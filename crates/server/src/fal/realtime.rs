//! `/realtime`: a websocket with an input a frame in, and a result with the pictures' bytes a frame out, as msgpack.

use std::collections::VecDeque;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use zoetrope_api::fal::Endpoint;
use zoetrope_jobs::State as Stand;

use crate::answer::Failure;
use crate::auth::Caller;
use crate::fal::run::{CancelOnDrop, PATIENCE};
use crate::fal::submit::{Sent, submit};
use crate::state::App;

/// A connection, before it is open.
pub(crate) struct Session {
    pub(crate) app: App,
    pub(crate) endpoint: &'static Endpoint,
    /// Refused callers are told in a frame: the JavaScript client then fetches a new token.
    pub(crate) caller: Result<Caller, Failure>,
    pub(crate) base: String,
    pub(crate) buffering: Option<usize>,
}

/// Bytes of one frame from a client.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// Inputs that wait for the one that is drawn; the oldest goes when another comes.
const BUFFER_MAX: usize = 60;

pub(crate) fn open(upgrade: WebSocketUpgrade, session: Session) -> Response {
    let upgrade = upgrade.max_message_size(FRAME_BYTES_MAX).max_frame_size(FRAME_BYTES_MAX);
    upgrade.on_upgrade(move |socket| converse(socket, session))
}

async fn converse(mut socket: WebSocket, session: Session) {
    let Session { app, endpoint, caller, base, buffering } = session;
    let caller = match caller {
        Ok(caller) => caller,
        Err(_) => {
            let _ = socket.send(text(&json!({"status": "error", "error": "Unauthorized"}))).await;
            return;
        }
    };
    let most = buffering.unwrap_or(BUFFER_MAX).clamp(1, BUFFER_MAX);
    let mut waiting: VecDeque<Value> = VecDeque::new();
    loop {
        let Some(input) = waiting.pop_front() else {
            match socket.recv().await {
                Some(Ok(message)) => match heard(message) {
                    Heard::Input(input) => waiting.push_back(input),
                    Heard::Nothing => {}
                    Heard::Wrong(problem) => {
                        let _ = socket.send(error("INVALID_INPUT", &problem)).await;
                    }
                    Heard::End => return,
                },
                _ => return,
            }
            continue;
        };
        // One at a time; what comes meanwhile waits, and the newest stays.
        let mut drawn = Box::pin(draw(&app, endpoint, &caller, &base, input));
        let answer = loop {
            tokio::select! {
                answer = &mut drawn => break answer,
                message = socket.recv() => match message.and_then(Result::ok).map(heard) {
                    Some(Heard::Input(input)) => {
                        waiting.push_back(input);
                        if waiting.len() > most {
                            waiting.pop_front();
                        }
                    }
                    Some(Heard::Nothing) => {}
                    Some(Heard::Wrong(problem)) => {
                        if socket.send(error("INVALID_INPUT", &problem)).await.is_err() {
                            return;
                        }
                    }
                    Some(Heard::End) | None => return, // what is drawn is cancelled with `drawn`
                },
            }
        };
        drop(drawn);
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

enum Heard {
    Input(Value),
    Nothing,
    Wrong(String),
    End,
}

fn heard(message: Message) -> Heard {
    let value = match message {
        Message::Binary(bytes) => rmp_serde::from_slice::<Value>(&bytes)
            .map_err(|e| format!("the frame is no msgpack map: {e}")),
        Message::Text(text) => {
            serde_json::from_str(&text).map_err(|e| format!("the frame is no JSON: {e}"))
        }
        Message::Close(_) => return Heard::End,
        Message::Ping(_) | Message::Pong(_) => return Heard::Nothing,
    };
    match value {
        Ok(value @ Value::Object(_)) => Heard::Input(value),
        Ok(_) => Heard::Wrong("the frame must hold a map".into()),
        Err(problem) => Heard::Wrong(problem),
    }
}

/// One input to the frame that answers it. Small square pictures are what realtime is for, so that is the default here.
async fn draw(
    app: &App,
    endpoint: &'static Endpoint,
    caller: &Caller,
    base: &str,
    mut input: Value,
) -> Message {
    let name = input.get("request_id").cloned();
    if let Some(map) = input.as_object_mut() {
        map.entry("image_size")
            .or_insert_with(|| if endpoint.image { "auto".into() } else { "square".into() });
        map.entry("output_format").or_insert_with(|| "jpeg".into());
    }
    let headers = HeaderMap::new();
    let sent = Sent {
        endpoint,
        caller,
        headers: &headers,
        base,
        input,
        webhook: None,
        previews: false,
        inline: true,
    };
    let id = match submit(app, sent).await {
        Ok(id) => id,
        Err(failure) => return refused(failure.body()),
    };
    let guard = CancelOnDrop::new(app.settings.queue.clone(), id.clone());
    let mut watcher = app.settings.queue.watch(&id);
    let request = loop {
        match app.settings.queue.request(&id).await {
            Ok(Some(request)) if request.state == Stand::Done => break request,
            Ok(Some(_)) => watcher.changed(PATIENCE).await,
            _ => return error("INTERNAL", "the request is gone"),
        }
    };
    guard.disarm();
    let Some(end) = request.end else { return error("INTERNAL", "the request has no end") };
    let body: Value = serde_json::from_str(&end.response).unwrap_or(Value::Null);
    match end.status_code {
        200 => packed(&body, name),
        _ => refused(&body),
    }
}

fn refused(body: &Value) -> Message {
    let reason =
        body["message"].as_str().or(body["detail"][0]["msg"].as_str()).or(body["detail"].as_str());
    error("REQUEST_FAILED", reason.unwrap_or("the request failed"))
}

fn error(error: &str, reason: &str) -> Message {
    text(&json!({"type": "x-fal-error", "error": error, "reason": reason}))
}

fn text(value: &Value) -> Message {
    Message::Text(value.to_string().into())
}

/// A result whose pictures are bytes.
#[derive(Serialize)]
struct Packed<'a> {
    images: Vec<PackedImage<'a>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize)]
struct PackedImage<'a> {
    content: Bytes,
    content_type: &'a Value,
    width: &'a Value,
    height: &'a Value,
}

struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

fn packed(body: &Value, name: Option<Value>) -> Message {
    let images = body["images"].as_array().into_iter().flatten();
    let images = images.filter_map(|image| {
        let (_, data) = image["url"].as_str()?.split_once(";base64,")?;
        let content = Bytes(STANDARD.decode(data).ok()?);
        Some(PackedImage {
            content,
            content_type: &image["content_type"],
            width: &image["width"],
            height: &image["height"],
        })
    });
    let fields = body.as_object().into_iter().flatten();
    let mut rest: Map<String, Value> =
        fields.filter(|(name, _)| *name != "images").map(|(n, v)| (n.clone(), v.clone())).collect();
    if let Some(name) = name {
        rest.insert("request_id".into(), name);
    }
    match rmp_serde::to_vec_named(&Packed { images: images.collect(), rest }) {
        Ok(bytes) => Message::Binary(bytes.into()),
        Err(problem) => error("INTERNAL", &problem.to_string()),
    }
}

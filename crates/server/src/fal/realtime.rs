//! `/realtime`: a websocket with an input a frame in, and a result with the pictures' bytes a frame out, as msgpack.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use zoetrope_api::fal::{Endpoint, application};

use crate::answer::Failure;
use crate::auth::{Caller, Purpose, caller};
use crate::fal::run::CancelOnDrop;
use crate::fal::submit::{Sent, submit};
use crate::fal::wait;
use crate::state::App;

/// What a connection is used for.
pub(crate) struct Session {
    pub(crate) app: App,
    pub(crate) endpoint: &'static Endpoint,
    /// Who draws is asked again for each picture, so that a revoked key's connection ends.
    pub(crate) headers: HeaderMap,
    pub(crate) token: Option<String>,
    pub(crate) base: String,
}

/// Bytes of one frame from a client: words, and a data URI where there is an image.
const FRAME_BYTES_MAX: usize = 1 << 20;
const IMAGE_FRAME_BYTES_MAX: usize = 16 << 20;
/// Inputs that wait for the one that is drawn; the oldest goes when another comes.
const BUFFER_MAX: usize = 60;
/// Between two signs of life that are asked for; a client that gives none twice is gone.
const PING: Duration = Duration::from_secs(30);
/// How long a client may take to read an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Refused callers are told in a frame: the JavaScript client then fetches a new token.
pub(crate) fn open(
    upgrade: WebSocketUpgrade,
    session: Session,
    caller: Result<Caller, Failure>,
    buffering: Option<usize>,
) -> Response {
    let most =
        if session.endpoint.may_take_image() { IMAGE_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX };
    // As many bytes may wait as one frame with an image has.
    let waiting_max = buffering.unwrap_or(BUFFER_MAX).clamp(1, BUFFER_MAX);
    let waiting_max =
        if session.endpoint.may_take_image() { waiting_max.min(4) } else { waiting_max };
    let upgrade = upgrade.max_message_size(most).max_frame_size(most);
    upgrade.on_upgrade(async move |socket| {
        let mut line = Line { socket, waiting: VecDeque::new(), waiting_max, silent: 0 };
        match caller {
            Ok(_) => line.converse(&session).await,
            Err(_) => _ = line.send(unauthorized()).await,
        }
        line.close().await;
    })
}

/// A connection, and what came over it.
struct Line {
    socket: WebSocket,
    waiting: VecDeque<Value>,
    waiting_max: usize,
    /// Signs of life that were asked for and did not come.
    silent: u32,
}

/// The client has gone.
struct Gone;

impl Line {
    /// One picture at a time; what comes meanwhile waits, and the newest stays.
    async fn converse(&mut self, session: &Session) {
        loop {
            let Some(input) = self.waiting.pop_front() else {
                match self.hear().await {
                    Ok(()) => continue,
                    Err(Gone) => return,
                }
            };
            let mut drawn = pin!(draw(session, input));
            let answer = loop {
                tokio::select! {
                    answer = &mut drawn => break answer,
                    heard = self.hear() => if heard.is_err() {
                        return; // what is drawn is cancelled with `drawn`
                    },
                }
            };
            if self.send(answer).await.is_err() {
                return;
            }
        }
    }

    /// The next thing that happens on the connection.
    async fn hear(&mut self) -> Result<(), Gone> {
        let message = match timeout(PING, self.socket.recv()).await {
            Ok(message) => message.and_then(Result::ok).ok_or(Gone)?,
            Err(_) if self.silent >= 2 => return Err(Gone),
            Err(_) => {
                self.silent += 1;
                return self.send(Message::Ping(Bytes::new())).await;
            }
        };
        self.silent = 0;
        match heard(message) {
            Heard::Input(input) => {
                self.waiting.push_back(input);
                if self.waiting.len() > self.waiting_max {
                    self.waiting.pop_front();
                }
                Ok(())
            }
            Heard::Nothing => Ok(()),
            Heard::Wrong(problem) => self.send(error("INVALID_INPUT", &problem)).await,
            Heard::End => Err(Gone),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Says goodbye, and hears the client's: without it JavaScript takes the end for an error.
    async fn close(mut self) {
        let _ = timeout(CLOSE_TIMEOUT, async {
            let _ = self.socket.send(Message::Close(None)).await; // it may be closed already
            while let Some(Ok(_)) = self.socket.recv().await {}
        })
        .await;
    }
}

fn unauthorized() -> Message {
    text(&json!({"status": "error", "error": "Unauthorized"}))
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
async fn draw(session: &Session, mut input: Value) -> Message {
    let Session { app, endpoint, headers, token, base } = session;
    let purpose = Purpose::Application(application(endpoint.id));
    let Ok(caller) = caller(app, headers, token.as_deref(), purpose).await else {
        return unauthorized();
    };
    let name = input.get("request_id").cloned();
    if let Some(map) = input.as_object_mut() {
        map.entry("image_size").or_insert_with(|| {
            if endpoint.takes_image() { "auto".into() } else { "square".into() }
        });
        map.entry("output_format").or_insert_with(|| "jpeg".into());
    }
    let sent = Sent {
        endpoint,
        caller: &caller,
        headers: &HeaderMap::new(),
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
    let guard = CancelOnDrop::new(app.clone(), id.clone());
    let request = match wait::end(app, &id).await {
        Ok(request) => request,
        Err(failure) => return refused(failure.body()),
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
    content: Binary,
    content_type: &'a Value,
    width: &'a Value,
    height: &'a Value,
}

struct Binary(Vec<u8>);

impl Serialize for Binary {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

fn packed(body: &Value, name: Option<Value>) -> Message {
    let images = body["images"].as_array().into_iter().flatten();
    let images = images.filter_map(|image| {
        let (_, data) = image["url"].as_str()?.split_once(";base64,")?;
        let content = Binary(STANDARD.decode(data).ok()?);
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

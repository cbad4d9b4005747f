//! `stream: true`: unfinished pictures as events, then the finished ones.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use futures_util::stream;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use zoetrope_api::images::ImageRequest;
use zoetrope_gateway::answer::{Answer, Picture, Refusal};
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::fresh_id;
use zoetrope_gateway::provider::Partial;

use crate::extract::Held;
use crate::openai::answer::{self, Told};
use crate::state::App;

/// Until then a failure still has a status of its own, which OpenAI's clients understand better than an event.
const PATIENCE: Duration = Duration::from_secs(10);
/// Comments in between keep proxies awake.
const PING: Duration = Duration::from_secs(15);
/// Unfinished pictures that wait to be sent; when there are more, those who watch are too slow for them.
const PARTIALS_WAITING: usize = 8;

type Done = Result<Answer, Refusal>;

/// What a stream holds between two events. Dropping it cancels what is being made.
struct Watched {
    app: App,
    making: BoxFuture<'static, Done>,
    partials: mpsc::Receiver<Partial>,
    /// Whether more of them may come.
    open: bool,
    told: Told,
    partials_max: u32,
    /// Events so far, by picture.
    shown: HashMap<u32, u32>,
    _held: Held,
}

/// What comes next.
enum Next {
    Partial(Partial),
    Done(Box<Done>),
}

/// Events to the end of `request`. It is cancelled when nobody listens any more.
pub(super) async fn answer(
    app: &App,
    request: ImageRequest,
    caller: Caller,
    held: Held,
) -> Response {
    let begun = Instant::now();
    let told = Told::of(&request, app.now_ms());
    let partials_max = request.reply.partials.unwrap_or(0);
    let (sender, partials) = mpsc::channel(PARTIALS_WAITING);
    let gateway = app.settings.gateway.clone();
    let id = fresh_id();
    let named = id.clone();
    let making =
        Box::pin(async move { gateway.make_as(named, request, caller, Some(sender)).await });
    let mut watched = Watched {
        app: app.clone(),
        making,
        partials,
        open: true,
        told,
        partials_max,
        shown: HashMap::new(),
        _held: held,
    };
    let first = tokio::time::timeout(PATIENCE, watched.next()).await.ok();
    let headers = match &first {
        Some(Next::Done(done)) => match done.as_ref() {
            Err(refusal) => return answer::refused(refusal),
            Ok(done) => answer::headers_of(done, begun.elapsed()),
        },
        // Who makes it is not known yet.
        _ => answer::ids(&id),
    };
    let events = stream::unfold(Some((watched, first)), |held| async move {
        let (mut watched, first) = held?;
        let next = match first {
            Some(next) => next,
            None => watched.next().await,
        };
        Some(match next {
            Next::Partial(partial) => {
                let events = watched.partial(&partial).into_iter().collect();
                (events, Some((watched, None)))
            }
            Next::Done(done) => (watched.last(*done), None),
        })
    });
    let events = futures_util::StreamExt::flat_map(events, |events: Vec<Event>| {
        stream::iter(events.into_iter().map(Ok::<_, Infallible>))
    });
    let keep_alive = KeepAlive::new().interval(PING).text("ping");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.headers_mut().extend(headers);
    response
}

impl Watched {
    async fn next(&mut self) -> Next {
        loop {
            tokio::select! {
                biased;
                partial = self.partials.recv(), if self.open => match partial {
                    Some(partial) => return Next::Partial(partial),
                    None => self.open = false,
                },
                done = &mut self.making => return Next::Done(Box::new(done)),
            }
        }
    }

    /// The event of an unfinished picture, unless there were enough of it.
    fn partial(&mut self, partial: &Partial) -> Option<Event> {
        let index = self.shown.entry(partial.picture).or_default();
        if *index >= self.partials_max {
            return None;
        }
        let mut fields = self.told.common(partial.size, partial.format);
        fields.insert("b64_json".into(), STANDARD.encode(&partial.bytes).into());
        fields.insert("partial_image_index".into(), (*index).into());
        *index += 1;
        Some(event(&self.told, "partial_image", fields))
    }

    /// One event for each picture, or the failure; then the word that OpenAI's streams end with.
    fn last(&self, done: Done) -> Vec<Event> {
        let mut events = match done {
            Ok(done) => {
                let metadata = answer::metadata(&done, &self.app);
                let pictures = done.pictures.into_iter();
                pictures.map(|picture| self.completed(picture, metadata.clone())).collect()
            }
            Err(refusal) => vec![failed(&refusal)],
        };
        events.push(Event::default().data("[DONE]"));
        events
    }

    fn completed(&self, picture: Picture, metadata: Value) -> Event {
        let mut fields = self.told.common(picture.size, picture.format);
        fields.insert("usage".into(), self.told.usage(std::iter::once(picture.size)));
        fields.insert("metadata".into(), metadata);
        if let Some(base64) = picture.base64 {
            fields.insert("b64_json".into(), base64.into());
        }
        if let Some(prompt) = picture.revised_prompt {
            fields.insert("revised_prompt".into(), prompt.into());
        }
        event(&self.told, "completed", fields)
    }
}

fn event(told: &Told, what: &str, mut fields: Map<String, Value>) -> Event {
    let name = format!("{}.{what}", told.event());
    fields.insert("type".into(), name.as_str().into());
    fields.insert("created_at".into(), told.created().into());
    Event::default().event(name).data(Value::Object(fields).to_string())
}

/// OpenAI's clients raise what has an `error` at the top.
fn failed(refusal: &Refusal) -> Event {
    let mut body = refusal.problem.body();
    body["type"] = json!("error");
    Event::default().event("error").data(body.to_string())
}

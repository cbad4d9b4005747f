//! The contenders' pictures, made by the queue or the gateway as anybody's are, a few at a time, until all are there.
//!
//! Where each picture is stands in its row: whoever holds it prolongs that as a lease, and after `kill -9` it is looked at again by the
//! next who comes, here or on another node. What was in the queue is waited for there, and not drawn twice.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use zoetrope_api::fal::Endpoint;
use zoetrope_api::images::{Code, ImageRequest};
use zoetrope_api::task::{Generate, Task};
use zoetrope_files::{Limits, Name, Picture};
use zoetrope_gateway::caller::Caller;
use zoetrope_jobs::{
    ArenaMade, ArenaPicture, Challenge, End, FileRow, KeyLimits, New, Outcome, Priority, State,
};

use crate::contender::{Wish, wish};
use crate::{Arena, Error};

/// Pictures of the arena that are under way at once.
const AT_ONCE: usize = 4;
/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a picture is left alone that nobody speaks of any more, and how often whoever has it speaks.
const LEASE_MS: i64 = 60_000;
const BEAT: Duration = Duration::from_secs(20);
/// How often the queue is looked at, should no news come.
const PATIENCE: Duration = Duration::from_secs(2);
/// Attempts at one picture, and how long after the first the second follows; it doubles.
const TRIES_MAX: i64 = 3;
const RETRY_MS: i64 = 5000;

/// Why there is no picture.
struct Failure {
    message: String,
    /// Whether another attempt may not meet it.
    passing: bool,
}

impl Failure {
    fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), passing: false }
    }

    fn passing(message: impl std::fmt::Display) -> Self {
        Self { message: zoetrope_files::redacted(&message.to_string()), passing: true }
    }
}

impl From<zoetrope_jobs::Error> for Failure {
    fn from(error: zoetrope_jobs::Error) -> Self {
        Self::passing(error)
    }
}

/// A picture as it came.
struct Drawn {
    base64: String,
    took_ms: i64,
    cost_micros: i64,
    made_by: String,
}

/// Draws what is due until `stop` holds true; what is under way then is taken up by whoever comes next.
pub async fn draw(arena: Arena, mut stop: watch::Receiver<bool>) {
    let mut under_way = JoinSet::new();
    while !*stop.borrow() {
        while under_way.try_join_next().is_some() {}
        if under_way.len() < AT_ONCE {
            match arena.queue.claim_picture(LEASE_MS).await {
                Ok(Some(picture)) => {
                    under_way.spawn(arena.clone().one(picture, stop.clone()));
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the arena's pictures could not be looked for")
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
    under_way.join_all().await;
}

impl Arena {
    /// Has one picture made, unless it is `stop`ped before.
    async fn one(self, mut picture: ArenaPicture, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await; // whoever could say so has gone
            }
        };
        let made = tokio::select! {
            made = self.made(&mut picture) => Some(made),
            () = stopped => None,
        };
        let written = match made {
            None => self.queue.picture_waits(&picture, 0).await,
            Some(Ok(())) => Ok(()),
            Some(Err(failure)) => self.failed(picture, failure).await,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "where a picture of the arena is could not be written; its lease will run out");
        }
    }

    async fn failed(
        &self,
        mut picture: ArenaPicture,
        failure: Failure,
    ) -> zoetrope_jobs::Result<()> {
        picture.tries += 1;
        if !failure.passing || picture.tries >= TRIES_MAX {
            return self.queue.picture_failed(&picture, &failure.message).await;
        }
        picture.request = None;
        picture.error = Some(failure.message);
        self.queue.picture_waits(&picture, RETRY_MS << (picture.tries - 1)).await
    }

    async fn made(&self, picture: &mut ArenaPicture) -> Result<(), Failure> {
        let gone = || Failure::lasting("Its challenge was deleted.");
        let challenge = self.queue.challenge(&picture.challenge).await?.ok_or_else(gone)?;
        let prompts = self.queue.challenge_prompts(&challenge.id).await?;
        let prompt =
            prompts.into_iter().find(|prompt| prompt.number == picture.prompt).ok_or_else(gone)?;
        let entries = self.queue.entries(zoetrope_jobs::Of::Challenge(&challenge.id)).await?;
        let entry = entries
            .into_iter()
            .find(|entry| entry.contender == picture.contender)
            .ok_or_else(gone)?;
        let settings = match serde_json::from_str(&entry.settings) {
            Ok(Value::Object(settings)) => settings,
            _ => return Err(Failure::lasting("Its settings cannot be read.")),
        };
        let size = (challenge.width, challenge.height);
        let wish = wish(&entry.model, &settings, &prompt, size).map_err(|error| match error {
            Error::Rows(error) => Failure::passing(error),
            other => Failure::lasting(other.to_string()),
        })?;
        let drawn = match wish {
            Wish::Queue { endpoint, input, task } => {
                self.by_queue(picture, &challenge, (endpoint, &input, *task)).await?
            }
            Wish::Gateway(request) => self.by_gateway(picture, &challenge, *request).await?,
        };
        self.keep(picture, &challenge, drawn).await
    }

    /// Puts it into the queue, if it is not there, and waits for its end.
    async fn by_queue(
        &self,
        picture: &mut ArenaPicture,
        challenge: &Challenge,
        (endpoint, input, task): (&'static Endpoint, &Value, Generate),
    ) -> Result<Drawn, Failure> {
        let (concurrency_max, _) = self.limits(&challenge.owner).await?;
        let id = match &picture.request {
            Some(id) => id.clone(),
            None => {
                let task = serde_json::to_string(&Task::Generate(Box::new(task)));
                let new = New {
                    endpoint: endpoint.id.into(),
                    owner: challenge.owner.clone(),
                    // Somebody who waits for a picture goes first.
                    priority: Priority::Low,
                    keep_io: false,
                    input: input.to_string(),
                    task: task.expect("a task is plain data"),
                    concurrency_max,
                    retry: true,
                    start_within_ms: None,
                    webhook: None,
                    base: challenge.base.clone(),
                    unit_price: None,
                    trace: None,
                };
                let id = self.queue.submit(new).await?;
                picture.request = Some(id.clone());
                self.queue.picture_waits(picture, LEASE_MS).await?;
                id
            }
        };
        let (mut news, mut spoken) = (self.queue.watch(&id), Instant::now());
        let end = loop {
            let standing = self.queue.standing(&id).await?;
            let standing =
                standing.ok_or_else(|| Failure::passing("Its request was forgotten."))?;
            if standing.state == State::Done {
                let request = self.queue.request(&id).await?;
                break request
                    .and_then(|request| request.end)
                    .ok_or_else(|| Failure::passing("Its request was forgotten."))?;
            }
            if spoken.elapsed() > BEAT {
                self.queue.picture_waits(picture, LEASE_MS).await?;
                spoken = Instant::now();
            }
            news.changed(PATIENCE).await;
        };
        drawn_by_queue(&end)
    }

    /// Asks the gateway, which asks whoever serves the model.
    async fn by_gateway(
        &self,
        picture: &ArenaPicture,
        challenge: &Challenge,
        request: ImageRequest,
    ) -> Result<Drawn, Failure> {
        let (concurrency_max, limits) = self.limits(&challenge.owner).await?;
        let (owner, base) = (challenge.owner.clone(), challenge.base.clone());
        let caller = Caller { owner, concurrency_max, base, trace: None, limits };
        let mut making = std::pin::pin!(self.gateway.make(request, caller, None));
        let answer = loop {
            tokio::select! {
                answer = &mut making => break answer,
                () = tokio::time::sleep(BEAT) => self.queue.picture_waits(picture, LEASE_MS).await?,
            }
        };
        let answer = answer.map_err(|refusal| {
            let lasting = [
                Code::InvalidRequest,
                Code::ContentPolicyViolation,
                Code::PermissionDenied,
                Code::InsufficientBalance,
                Code::ModelNotFound,
                Code::ModelDisabled,
            ];
            match lasting.contains(&refusal.problem.code) {
                true => Failure::lasting(refusal.problem.message),
                false => Failure::passing(refusal.problem.message),
            }
        })?;
        let took = answer.attempts.last().map(|attempt| attempt.duration).unwrap_or_default();
        let base64 = answer.pictures.into_iter().next().and_then(|picture| picture.base64);
        Ok(Drawn {
            base64: base64.ok_or_else(|| Failure::passing("The answer has no picture."))?,
            took_ms: took.as_millis() as i64,
            cost_micros: answer.cost.0,
            made_by: answer.deployment.key.clone(),
        })
    }

    /// What `owner` may use: of a key that was revoked, nothing.
    async fn limits(&self, owner: &str) -> Result<(i64, KeyLimits), Failure> {
        match self.queue.key(owner).await? {
            Some(key) if key.revoked_ms.is_some() => {
                Err(Failure::lasting("The key that made this challenge was revoked."))
            }
            Some(key) => Ok((key.concurrency_max, key.limits)),
            None => Ok((AT_ONCE as i64, KeyLimits::default())),
        }
    }

    /// Puts the picture into the store under a name that says nothing, in the form that all have: format, size and data beside the
    /// pixels would tell who made it.
    async fn keep(
        &self,
        picture: &ArenaPicture,
        challenge: &Challenge,
        drawn: Drawn,
    ) -> Result<(), Failure> {
        let size = (challenge.width, challenge.height);
        let base64 = drawn.base64;
        let bytes = tokio::task::spawn_blocking(move || plain(&base64, size)).await;
        let bytes = bytes.map_err(|_| Failure::passing("decoding the picture panicked"))??;
        let name = Name::new("picture.png");
        let row = FileRow {
            name: name.as_str().into(),
            owner: challenge.owner.clone(),
            request: None,
            size: bytes.len() as i64,
            created_ms: self.now_ms(),
            expires_ms: None,
        };
        self.queue.insert_file(&row).await?;
        self.store.put(&name, bytes.into()).await.map_err(Failure::passing)?;
        let made = ArenaMade {
            file: name.as_str().into(),
            took_ms: drawn.took_ms,
            cost_micros: drawn.cost_micros,
            made_by: drawn.made_by,
        };
        if !self.queue.picture_made(picture, &made).await? {
            // Somebody else was quicker, or the challenge is gone.
            self.store.delete(&name).await.map_err(Failure::passing)?;
            self.queue.forget_file(name.as_str()).await?;
        }
        Ok(())
    }
}

/// The picture in a request's end, or why there is none.
fn drawn_by_queue(end: &End) -> Result<Drawn, Failure> {
    let body: Value = serde_json::from_str(&end.response).unwrap_or_default();
    if end.outcome != Outcome::Completed || end.status_code != 200 {
        let problem = body["detail"].get(0).unwrap_or(&body["detail"]);
        let text = problem["msg"].as_str().or(problem.as_str()).or(end.error.as_deref());
        let text = text.unwrap_or("The engine failed.");
        return Err(match end.status_code {
            400..=498 => Failure::lasting(text),
            _ => Failure::passing(text),
        });
    }
    let flagged = body["has_nsfw_concepts"].get(0).and_then(Value::as_bool) == Some(true);
    if flagged {
        return Err(Failure::lasting("The safety checker found the picture unsafe."));
    }
    let base64 = body["images"][0]["url"].as_str().and_then(|url| url.split_once(";base64,"));
    let (_, base64) = base64.ok_or_else(|| Failure::passing("The answer has no picture."))?;
    Ok(Drawn {
        base64: base64.into(),
        took_ms: end.inference_ms.unwrap_or(0),
        cost_micros: 0,
        made_by: "local".into(),
    })
}

/// A PNG of `size` with nothing but pixels.
fn plain(base64: &str, (width, height): (u32, u32)) -> Result<Vec<u8>, Failure> {
    let bytes = STANDARD.decode(base64).map_err(Failure::passing)?;
    let decoded = zoetrope_files::decode(&bytes, &Limits::default()).map_err(Failure::passing)?;
    let picture: Picture = match (decoded.picture.width, decoded.picture.height) {
        same if same == (width, height) => decoded.picture,
        _ => decoded.picture.resized(width, height),
    };
    zoetrope_files::encode(&picture, zoetrope_files::Format::Png, None).map_err(Failure::passing)
}

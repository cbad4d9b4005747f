//! The local engine, behind our own queue: a request becomes a task there, whichever worker takes it.

mod answer;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use zoetrope_api::Format;
use zoetrope_api::fal::PIXELS_MAX;
use zoetrope_api::images::Handling::{Native, Renamed};
use zoetrope_api::images::{Handling, INPUTS_MAX, Mode, Pixels, SizeRule};
use zoetrope_api::task::{Delivery, Generate, Model, Place, Reference, Size, Task};
use zoetrope_api::{Acceleration, OnFlagged, Steps};
use zoetrope_jobs::{End, Error, New, Preview, Priority, Queue, State};

use super::with;
use crate::catalogue::Deployment;
use crate::failure::{Failure, FailureKind};
use crate::gateway::House;
use crate::provider::{Abilities, Call, Outcome, Partial, Provider};
use crate::source::Source;
use answer::outcome;

/// The engine of this server and of the workers that share its queue.
pub(crate) struct Local {
    queue: Queue,
    /// Milliseconds that stored pictures live.
    keep_ms: i64,
}

/// How often who waits looks for themselves, should no news come.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a database may be away: longer than a change of its leader takes.
const AWAY: Duration = Duration::from_secs(30);
/// Network evaluations where nobody said: what each model was made for.
const TURBO_STEPS: u32 = 8;
const BASE_STEPS: u32 = 28;
const EDIT_STEPS: u32 = 50;
/// Guidance of the undistilled models where nobody said.
const BASE_GUIDANCE: f64 = 4.0;
/// Share of the schedule that an edit runs where nobody said, as fal has it.
const STRENGTH: f64 = 0.6;
/// As far as the queue takes one; the model reads less.
const PROMPT_CHARACTERS_MAX: usize = 32_000;
/// The fields of a task's input that hold pictures.
const IMAGE_FIELD: &str = "image_url";
const MASK_FIELD: &str = "mask_url";
/// The same of pictures that the prompt speaks of, each with its number behind.
const REFERENCE_FIELD: &str = "reference_";

/// What the distilled model takes in text to image. It has no use for what is to be avoided.
const TURBO_DRAWS: &[(&str, Handling)] = &[
    ("prompt", Native),
    ("seed", Native),
    ("n", Handling::Emulated),
    ("size", Native),
    ("aspect_ratio", Native),
    ("resolution", Native),
    ("width", Native),
    ("height", Native),
    ("response_format", Native),
    ("output_format", Native),
    ("output_compression", Native),
    ("output_quality", Renamed),
    ("sync_mode", Native),
    ("stream", Native),
    ("partial_images", Native),
    ("cfg_scale", Native),
    ("acceleration", Native),
    ("go_fast", Handling::Converted),
    ("num_inference_steps", Native),
    ("enable_safety_checker", Native),
    ("enable_prompt_expansion", Native),
    ("sampler", Native),
    ("sigmas", Native),
    ("variation_seed", Native),
    ("variation_strength", Native),
    ("prompt_weighting", Native),
];

/// The undistilled one in text to image.
const BASE_DRAWS: [(&str, Handling); 27] = with(TURBO_DRAWS, [("negative_prompt", Native)]);
/// Edits of the distilled model.
const TURBO_EDITS: [(&str, Handling); 29] =
    with(TURBO_DRAWS, [("image", Native), ("mask", Native), ("strength", Native)]);
/// Edits of the undistilled one.
const BASE_EDITS: [(&str, Handling); 30] = with(&TURBO_EDITS, [("negative_prompt", Native)]);
/// Edits of the one that sees pictures: they are what the prompt speaks of, and none is painted over.
const SEEING_EDITS: [(&str, Handling); 28] = with(&BASE_DRAWS, [("image", Native)]);

impl Local {
    pub(crate) fn new(house: &House) -> Self {
        Self { queue: house.queue.clone(), keep_ms: house.keep_ms }
    }

    async fn made(&self, call: &Call) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let id = submitted(&self.queue, self.row(call, begun)?).await?;
        let guard = CancelOnDrop { queue: self.queue.clone(), id: Some(id) };
        let end = self.end(call, guard.id()).await?;
        guard.disarm();
        outcome(&end, call, begun.elapsed())
    }

    /// What lies in the queue.
    fn row(&self, call: &Call, now: Instant) -> Result<New, Failure> {
        let left = call.deadline.saturating_duration_since(now);
        let broken =
            |error: serde_json::Error| Failure::new(FailureKind::Broken, error.to_string());
        let task = Task::Generate(Box::new(self.task(call)));
        Ok(New {
            endpoint: call.deployment.key.clone(),
            owner: call.caller.owner.clone(),
            priority: Priority::Normal,
            // What is asked of the gateway is in its own log, without prompts and pictures.
            keep_io: false,
            input: Value::Object(input(call)).to_string(),
            task: serde_json::to_string(&task).map_err(broken)?,
            concurrency_max: call.caller.concurrency_max,
            retry: true,
            start_within_ms: Some(left.as_millis() as i64),
            webhook: None,
            base: call.caller.base.clone(),
            unit_price: None,
            trace: call.caller.trace.clone(),
        })
    }

    fn task(&self, call: &Call) -> Generate {
        let request = &call.request;
        let model = model(&call.deployment);
        let (steps, guidance) = match model {
            Model::Turbo => (TURBO_STEPS, 0.0),
            Model::Base => (BASE_STEPS, BASE_GUIDANCE),
            Model::Edit => (EDIT_STEPS, BASE_GUIDANCE),
        };
        let fast = request.go_fast.unwrap_or(false).then_some(Acceleration::High);
        let edit = request.edit.as_ref();
        let seen = if model == Model::Edit { call.sources.images.len() } else { 0 };
        let image = edit.filter(|_| model != Model::Edit).map(|edit| Reference {
            place: Place::Input(IMAGE_FIELD.into()),
            strength: edit.strength.unwrap_or(STRENGTH),
        });
        let form = request.reply.form;
        Generate {
            model,
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone().unwrap_or_default(),
            size: Size::Pixels { width: call.size.width, height: call.size.height },
            steps: request.steps.unwrap_or(steps).min(Steps::MAX),
            seed: call.part.seed,
            count: call.part.count,
            guidance_scale: request.guidance_scale.unwrap_or(guidance),
            image,
            mask: call.sources.mask.as_ref().map(|_| Place::Input(MASK_FIELD.into())),
            control: None,
            references: (0..seen).map(|i| Place::Input(format!("{REFERENCE_FIELD}{i}"))).collect(),
            loras: Vec::new(),
            acceleration: request.acceleration.or(fast).unwrap_or_default(),
            format: call.ask.format,
            quality: call.ask.quality,
            // What is only wanted in the answer is not kept.
            delivery: if form.wants_url() { Delivery::Stored } else { Delivery::Inline },
            safety_checker: request.safety_checker.unwrap_or(false),
            // The answer has no place for a flag: a black picture would go out without a word.
            on_flagged: OnFlagged::Refuse,
            expand_prompt: request.prompt_expansion.unwrap_or(false),
            previews: partials_max(call) > 0,
            keep_seconds: u64::try_from(self.keep_ms / 1000).ok(),
            controls: call.controls(),
        }
    }

    /// How the task `id` ended. What it looks like on the way is shown to those who watch.
    async fn end(&self, call: &Call, id: &str) -> Result<End, Failure> {
        let mut watcher = self.queue.watch(id);
        let (mut step, mut away) = (0, None::<Instant>);
        loop {
            let looked = async {
                let standing = self.queue.standing(id).await?;
                let previews = match partials_max(call) {
                    0 => Vec::new(),
                    _ => self.queue.previews(id, step).await?,
                };
                Ok::<_, Error>((standing, previews))
            };
            match looked.await {
                Ok((Some(standing), previews)) => {
                    away = None;
                    for preview in previews {
                        step = preview.step;
                        show(call, &preview);
                    }
                    if standing.state == State::Done {
                        let request = self.queue.request(id).await.map_err(unreached)?;
                        return request.and_then(|request| request.end).ok_or_else(forgotten);
                    }
                }
                Ok((None, _)) => return Err(forgotten()),
                Err(error) => {
                    if away.get_or_insert_with(Instant::now).elapsed() > AWAY {
                        return Err(unreached(error));
                    }
                    tokio::time::sleep(PATIENCE).await;
                }
            }
            if Instant::now() >= call.deadline {
                let text = "the picture was not ready in time";
                return Err(Failure::new(FailureKind::TimedOut, text));
            }
            let left = call.deadline.saturating_duration_since(Instant::now());
            watcher.changed(PATIENCE.min(left)).await;
        }
    }
}

impl Provider for Local {
    fn abilities(&self, deployment: &Deployment, mode: Mode) -> Abilities {
        let handling = match (model(deployment), mode) {
            (Model::Turbo, Mode::TextToImage) => TURBO_DRAWS,
            (Model::Base | Model::Edit, Mode::TextToImage) => &BASE_DRAWS,
            (Model::Turbo, Mode::ImageEdit) => &TURBO_EDITS,
            (Model::Base, Mode::ImageEdit) => &BASE_EDITS,
            (Model::Edit, Mode::ImageEdit) => &SEEING_EDITS,
        };
        Abilities {
            sizes: SizeRule::up_to(PIXELS_MAX),
            // Each picture of its own seed, which makes it again alone.
            count_max: 1,
            formats: &Format::ALL,
            inputs_max: if model(deployment) == Model::Edit { INPUTS_MAX } else { 1 },
            prompt_chars_max: PROMPT_CHARACTERS_MAX,
            partials: true,
            handling,
            passes_unknown: false,
            bounds: &[],
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(self.made(call))
    }

    fn waiting(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async {
            let waiting = self.queue.queued().await.ok()?;
            u64::try_from(waiting).ok()
        })
    }
}

/// Which of the family's models a deployment is; the catalogue has no others at this provider.
fn model(deployment: &Deployment) -> Model {
    match deployment.upstream.as_str() {
        "z-image" => Model::Base,
        "z-image-edit" => Model::Edit,
        _ => Model::Turbo,
    }
}

fn partials_max(call: &Call) -> u32 {
    match call.partials {
        Some(_) => call.request.reply.partials.unwrap_or(0),
        None => 0,
    }
}

/// The input of the task: only what the task refers to.
fn input(call: &Call) -> Map<String, Value> {
    let uri = |source: &Source| {
        let Source { content_type, bytes, .. } = source;
        Value::from(format!("data:{content_type};base64,{}", STANDARD.encode(bytes)))
    };
    if model(&call.deployment) == Model::Edit {
        let images = call.sources.images.iter().enumerate();
        return images.map(|(i, image)| (format!("{REFERENCE_FIELD}{i}"), uri(image))).collect();
    }
    let image = call.sources.images.first().map(|image| (IMAGE_FIELD.to_string(), uri(image)));
    let mask = call.sources.mask.as_ref().map(|mask| (MASK_FIELD.to_string(), uri(mask)));
    image.into_iter().chain(mask).collect()
}

/// Shows a preview, if it is one of those that divide the way to the picture evenly. One that nobody takes at once is lost.
fn show(call: &Call, preview: &Preview) {
    let (Some(partials), most) = (&call.partials, i64::from(partials_max(call))) else { return };
    let due = |nth: i64| (nth * preview.of / (most + 1)).max(nth);
    if !(1..=most).any(|nth| due(nth) == preview.step) {
        return;
    }
    let bytes =
        preview.picture.split_once(";base64,").and_then(|(_, text)| STANDARD.decode(text).ok());
    let Some(bytes) = bytes.map(Bytes::from) else { return };
    let Ok(seen) = zoetrope_files::glance(&bytes) else { return };
    let _ = partials.try_send(Partial {
        picture: call.part.first,
        format: seen.format,
        size: Pixels::new(seen.width, seen.height),
        bytes,
    });
}

/// Puts `new` into the queue. Whoever stops waiting in between has it cancelled.
async fn submitted(queue: &Queue, new: New) -> Result<String, Failure> {
    let (told, id) = oneshot::channel();
    let queue = queue.clone();
    tokio::spawn(async move {
        let submitted = queue.submit(new).await;
        if let Err(Ok(id)) = told.send(submitted) {
            drop(CancelOnDrop { queue, id: Some(id) });
        }
    });
    id.await.map_err(|_| unreached(Error::Closed))?.map_err(|error| match error {
        Error::Full { .. } | Error::Closed => Failure::new(FailureKind::Busy, error.to_string()),
        Error::OwnerFull { .. } => Failure::new(FailureKind::Throttled, error.to_string()),
        other => unreached(other),
    })
}

/// Cancels a task that nobody waits for any more.
struct CancelOnDrop {
    queue: Queue,
    id: Option<String>,
}

impl CancelOnDrop {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// The task has ended.
    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let queue = self.queue.clone();
        runtime.spawn(async move {
            if let Err(error) = queue.cancel(&id).await {
                tracing::warn!(request = %id, %error, "an abandoned task could not be cancelled");
            }
        });
    }
}

/// The log says what failed; the caller, that something of ours did.
fn unreached(error: Error) -> Failure {
    let shown = zoetrope_files::redacted(&error.to_string());
    tracing::error!(error = shown, "the queue could not be asked");
    Failure::new(FailureKind::Broken, "the server's queue does not answer")
}

fn forgotten() -> Failure {
    Failure::new(FailureKind::Broken, "the task was deleted before its end")
}

/// For the test of all tables.
#[cfg(test)]
pub(super) fn tables() -> Vec<&'static [(&'static str, Handling)]> {
    vec![TURBO_DRAWS, &BASE_DRAWS, &TURBO_EDITS, &BASE_EDITS, &SEEING_EDITS]
}

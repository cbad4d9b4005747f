//! The worker's loop: claims, runs, and gives up each request in exactly one way.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::Instrument as _;
use zoetrope_api::task::{Model, Task};
use zoetrope_engine::Interrupt;
use zoetrope_files::{Store, fetch::Fetcher};
use zoetrope_jobs::{Attempt, End, Error, Heartbeat, Lease, NewPicture, Queue};

use crate::depth::Depth;
use crate::engine::Engine;
use crate::error::{JobError, UNSAFE};
use crate::presence::Presence;
use crate::safety::Checker;
use crate::{Expansion, generate, train};

/// What a worker is given.
pub struct Settings {
    /// Where requests come from.
    pub queue: Queue,
    /// Where results go.
    pub store: Store,
    /// The door to addresses that users chose.
    pub fetcher: Fetcher,
    /// What makes the pictures and adapters.
    pub engine: Engine,
    /// A folder for adapters that were fetched.
    pub cache: PathBuf,
    /// A folder for trainings that are under way.
    pub trainings: PathBuf,
    /// The folder whose files may be named as adapters.
    pub lora_folder: Option<PathBuf>,
    /// The hub's address without a slash at its end.
    pub hub: String,
    /// What is known of the pictures' harmlessness.
    pub safety: Safety,
    /// What finds how near things are, for control networks; none where no such network was pulled.
    pub depth: Option<Depth>,
    /// How prompts are expanded for Turbo.
    pub expansion: Expansion,
    /// The same for the base model.
    pub base_expansion: Expansion,
    /// Random numbers for seeds that nobody chose.
    pub chance: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Milliseconds since 1970.
    pub now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// How long a lease lasts; a third of it passes between heartbeats.
    pub lease: Duration,
    /// How long what runs may go on once the worker was told to stop.
    pub drain: Duration,
}

/// What is known of the pictures' harmlessness: nothing ever says that one is harmless without a reason.
#[derive(Clone)]
pub enum Safety {
    /// The models can draw nothing else.
    Harmless,
    /// This one looks.
    Checked(Checker),
    /// Nobody looks; requests that ask for it are refused.
    Unchecked,
    /// Nobody looks, and whoever runs this server wants it so.
    Off,
}

pub(crate) type Room = Settings;

impl Settings {
    pub(crate) fn chance(&self) -> u64 {
        (self.chance)() & 0xffff_ffff // all that torch's generator looks at, and few enough for JavaScript
    }

    /// How prompts are expanded for `model`.
    pub(crate) fn expansion_for(&self, model: Model) -> &Expansion {
        match model {
            Model::Turbo => &self.expansion,
            Model::Base | Model::Edit => &self.base_expansion,
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.now_ms)()
    }
}

/// What became of a request that went well.
pub(crate) struct Done {
    pub(crate) end: End,
    /// What is shown of it to those who look through pictures.
    pub(crate) pictures: Vec<NewPicture>,
    pub(crate) tally: Tally,
}

/// What was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tally {
    /// So many, of so many megapixels together.
    Pictures { count: usize, megapixels: f64 },
    /// So many, of an adapter.
    Updates(u64),
}

/// Takes requests from the queue, one after the other.
pub struct Worker {
    room: Room,
}

/// How often the database is asked for work when nobody announces any.
const POLL: Duration = Duration::from_millis(500);
/// How often a running request is asked whether it was cancelled: less than any step takes.
const CANCEL_POLL: Duration = Duration::from_millis(100);
/// How long what is handed back may take to stop: a training writes where it is.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two looks for folders of trainings that have ended.
const SWEEP: Duration = Duration::from_secs(60);

impl Worker {
    /// A worker in `room`.
    pub fn new(room: Settings) -> Self {
        Self { room }
    }

    /// Works until `stop` holds true and what runs has ended or was handed back.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut work = self.room.queue.work();
        let presence = Presence::begin(&self.room);
        let mut swept: Option<Instant> = None;
        while !*stop.borrow() {
            if swept.is_none_or(|at| at.elapsed() > SWEEP) {
                swept = Some(Instant::now());
                if let Err(error) = train::sweep(&self.room).await {
                    tracing::warn!(%error, "trainings that have ended could not be looked for");
                }
            }
            match self.room.queue.claim().await {
                Ok(Some(lease)) => {
                    presence.works_on(Some(&lease.request.id));
                    self.attempt(lease, stop.clone()).await;
                    presence.works_on(None);
                }
                Ok(None) => {
                    tokio::select! {
                        _ = work.changed() => {}
                        () = sleep(POLL) => {}
                        _ = stop.changed() => {}
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "no work could be claimed; trying again");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        presence.end().await;
    }

    async fn attempt(&self, lease: Lease, stop: watch::Receiver<bool>) {
        let request = &lease.request;
        let span = tracing::info_span!(
            "attempt",
            otel.name = %format!("attempt {}", request.endpoint),
            otel.kind = "consumer",
            request = request.id,
            endpoint = request.endpoint,
            number = request.attempts,
            end = tracing::field::Empty,
        );
        zoetrope_trace::adopt(&span, request.trace.as_deref());
        self.ended(lease, stop).instrument(span).await;
    }

    async fn ended(&self, lease: Lease, stop: watch::Receiver<bool>) {
        let id = lease.request.id.clone();
        tracing::info!(request = %id, endpoint = %lease.request.endpoint, attempt = lease.request.attempts, "started");
        let waited = self.room.now_ms() - lease.request.created_ms;
        metrics::histogram!("zoetrope_wait_seconds").record(waited as f64 / 1000.0);
        let (mut tally, mut pictures) = (None, Vec::new());
        let span = tracing::Span::current();
        let attempt = match self.watched(&lease, stop).await {
            Some(Ok(done)) => {
                (tally, pictures) = (Some(done.tally), done.pictures);
                span.record("end", "completed");
                Attempt::End(done.end)
            }
            Some(Err(error)) => {
                let shown = zoetrope_files::redacted(&error.to_string());
                tracing::warn!(request = %id, error = shown, "did not succeed");
                span.record("end", kind(&error));
                error.attempt()
            }
            None => {
                tracing::warn!(request = %id, "its lease was lost; another worker has it");
                return;
            }
        };
        // The result is made: a database that is away for a moment must not lose it.
        for pause in [100, 400, 1600, 6400] {
            match lease.finish_with(attempt.clone(), &pictures).await {
                Ok(()) => {
                    tally.iter().for_each(|tally| tally.count());
                    return tracing::info!(request = %id, "ended");
                }
                Err(Error::LeaseLost(_)) => {
                    return tracing::warn!(request = %id, "its lease was lost at the end");
                }
                Err(error) => {
                    tracing::error!(request = %id, %error, "its end could not be written; trying again");
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// Runs `lease` while its heart beats; `None` once it is lost.
    async fn watched(
        &self,
        lease: &Lease,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Result<Done, JobError>> {
        let interrupt = Interrupt::default();
        let mut work = Box::pin(run(lease, &self.room, &interrupt));
        let mut beat = interval(self.room.lease / 3);
        let mut look = interval(CANCEL_POLL);
        // After a stall one look is enough.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline: Option<Instant> = None;
        let ended = loop {
            let patience = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = &mut work => break Some(result),
                _ = beat.tick() => match lease.heartbeat().await {
                    Ok(Heartbeat::Held) => {}
                    Ok(Heartbeat::CancelAsked) => break Some(Err(JobError::Cancelled)),
                    Err(Error::LeaseLost(_)) => break None,
                    Err(error) => tracing::warn!(%error, "a heartbeat failed"),
                },
                _ = look.tick() => if let Ok(true) = lease.cancel_asked().await {
                    break Some(Err(JobError::Cancelled));
                },
                changed = stop.changed(), if deadline.is_none() => {
                    if changed.is_err() || *stop.borrow() {
                        deadline = Some(Instant::now() + self.room.drain);
                    }
                },
                () = patience => break Some(Err(JobError::Going)),
            }
        };
        // The engine stops at its next block; nobody waits for it, unless the process would end before.
        interrupt.stop();
        if let Some(Err(JobError::Going)) = ended {
            let _ = timeout(SETTLE, work).await; // handed back, whatever it came to
        }
        ended
    }
}

/// Does what the request of `lease` asks for.
async fn run(lease: &Lease, room: &Room, interrupt: &Interrupt) -> Result<Done, JobError> {
    let task = serde_json::from_str(&lease.request.task).map_err(|e| {
        JobError::Engine(format!("the queue holds a task that cannot be read: {e}"))
    })?;
    match task {
        Task::Generate(task) => generate::run(&task, lease, room, interrupt).await,
        Task::Train(task) => train::run(&task, lease, room, interrupt).await,
    }
}

impl Tally {
    /// Counts it, once its request is completed.
    fn count(self) {
        match self {
            Self::Pictures { count, megapixels } => {
                metrics::counter!("zoetrope_images_total").increment(count as u64);
                let kilopixels = (megapixels * 1000.0) as u64;
                metrics::counter!("zoetrope_kilopixels_total").increment(kilopixels);
            }
            Self::Updates(count) => {
                metrics::counter!("zoetrope_training_steps_total").increment(count);
            }
        }
    }
}

fn kind(error: &JobError) -> &'static str {
    match error {
        JobError::Input(problem) => problem.kind,
        JobError::Unsafe { .. } => UNSAFE,
        JobError::Cancelled => "cancelled",
        JobError::Going => "handed_back",
        JobError::Engine(_) | JobError::Memory(_) => "internal_server_error",
        JobError::Passing(_) => "runner_connection_error",
    }
}

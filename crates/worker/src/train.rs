//! A request to a stored adapter: fetch a zip, look at it, train, store.
//!
//! A training lives in a folder of its own, named after its request, so that what was lost with a worker goes on where its last
//! checkpoint is. [`sweep`] removes the folders of requests that have ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{Instrument as _, info_span};
use zoetrope_api::ImageSize;
use zoetrope_api::fal::{CONFIG_FILE, LORA_FILE, Problem};
use zoetrope_api::task::{Model, Train, TrainingType};
use zoetrope_checkpoint::Naming;
use zoetrope_engine::Interrupt;
use zoetrope_engine::pipeline::Pipeline;
use zoetrope_jobs::{End, Lease, Outcome, State};
use zoetrope_trainer::data::{self, Dataset};
use zoetrope_trainer::settings::{Settings, Timesteps, usual_checkpointing};
use zoetrope_trainer::{Job, Samples};

use crate::attempt::{Done, Room, Tally};
use crate::error::JobError;
use crate::safety::Looking;
use crate::stage::{record, timed};
use crate::training_news::{self, News};
use crate::{inputs, outputs};

/// A training for the engine.
pub(crate) struct Training {
    pub(crate) model: Model,
    pub(crate) job: Job,
    pub(crate) interrupt: Interrupt,
    pub(crate) news: mpsc::UnboundedSender<News>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Trained {
    /// A safetensors file by diffusers' names.
    pub(crate) adapter: Vec<u8>,
    /// What it was trained with.
    pub(crate) config: Value,
    pub(crate) took: Duration,
}

/// Pictures on the way: one before, and at each of so many parts of the run.
const SAMPLED_PARTS: usize = 4;
/// Checkpoints of a run; a lost worker loses less than such a part of it.
const SAVED_PARTS: usize = 20;
/// Updates between checkpoints at most, and at least.
const SAVE_EVERY: (usize, usize) = (10, 100);
/// The field that everything about the pictures is told of.
const FIELD: &str = "image_data_url";

/// Runs what `lease` holds.
pub(crate) async fn run(
    task: &Train,
    lease: &Lease,
    room: &Room,
    interrupt: &Interrupt,
) -> Result<Done, JobError> {
    let folder = room.trainings.join(&lease.request.id);
    tokio::fs::create_dir_all(&folder).await.map_err(in_folder)?;
    let zip = folder.join("data.zip");
    if !tokio::fs::try_exists(&zip).await.map_err(in_folder)? {
        lease.log("INFO", "Fetching the pictures").await?;
        let fetch = inputs::archive(&task.data, FIELD, &lease.request, room, &zip);
        timed("fetch", fetch.instrument(info_span!("fetch"))).await?;
    }
    let resolution = room.engine.resolution_for(task.model);
    let about = data_settings(task, resolution);
    let (pictures, caption) = look(zip.clone(), about.clone()).await?;
    lease.log("INFO", &format!("{pictures} pictures, at about {resolution}x{resolution}")).await?;
    let job = job(task, about, (zip, folder), caption)?;
    let looking = Looking::at_samples(lease, room).await?;
    let (news, heard) = mpsc::unbounded_channel();
    let training = Training { model: task.model, job, interrupt: interrupt.clone(), news };
    let span = info_span!("train", steps = task.steps, pictures);
    let working = async {
        let report = training_news::report(task, (lease, room), &looking, heard);
        tokio::join!(room.engine.train(training), report)
    };
    let (trained, ()) = working.instrument(span).await;
    let trained = trained?;
    record("train", trained.took);
    let inference_ms = trained.took.as_millis() as i64;
    let store = store(task, trained, lease, room);
    let response = timed("store", store.instrument(info_span!("store"))).await?;
    let end = End {
        outcome: Outcome::Completed,
        status_code: 200,
        response: response.to_string(),
        error: None,
        error_type: None,
        inference_ms: Some(inference_ms),
        billable_units: Some(f64::from(task.steps) / 1000.0),
        flagged: None,
    };
    Ok(Done { end, pictures: Vec::new(), tally: Tally::Updates(u64::from(task.steps)) })
}

fn in_folder(error: std::io::Error) -> JobError {
    JobError::Passing(format!("the folder of trainings: {error}"))
}

/// A file that cannot be used is an error: who sent it would otherwise learn late, and pay for less than was wanted.
fn data_settings(task: &Train, resolution: u32) -> data::Settings {
    data::Settings {
        resolution,
        default_caption: task.default_caption.clone(),
        trigger: None,
        strict: true,
        prior: None,
    }
}

/// Reads every picture once, before the engine is asked: how many there are, and the first one's caption.
async fn look(zip: PathBuf, settings: data::Settings) -> Result<(usize, String), JobError> {
    let look = move || {
        let dataset = Dataset::open(&zip, &settings).map_err(|error| unusable(error, &zip))?;
        let caption = dataset.examples.first().map_or(String::new(), |first| first.caption.clone());
        Ok((dataset.examples.len(), caption))
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|_| JobError::Engine("reading a zip of pictures panicked".into()))?
}

/// What is wrong with a zip or something in it, without this machine's path.
fn unusable(error: zoetrope_trainer::Error, zip: &Path) -> JobError {
    let zoetrope_trainer::Error::Data { place, problem } = error else { return error.into() };
    let path = [json!(FIELD)];
    if place != zip.display().to_string() {
        return JobError::field(&path, "value_error", format!("{place}: {problem}"));
    }
    let problem = Problem::new(&path, "invalid_archive", format!("The file {problem}"));
    JobError::Input(Box::new(problem.with("supported_extensions", vec![".zip"])))
}

/// The trainer's job: what fal's fields say, and its own defaults for all else.
fn job(
    task: &Train,
    data_settings: data::Settings,
    (zip, folder): (PathBuf, PathBuf),
    caption: String,
) -> Result<Job, JobError> {
    let (steps, resolution) = (task.steps as usize, data_settings.resolution);
    let usual = Settings::default();
    let settings = Settings {
        steps,
        learning_rate: task.learning_rate,
        timesteps: match task.training_type {
            Some(TrainingType::Content) => Timesteps::Content,
            Some(TrainingType::Style) => Timesteps::Style,
            Some(TrainingType::Balanced) => Timesteps::Balanced,
            None => usual.timesteps,
        },
        resolution,
        ..usual
    };
    // As the endpoints that will use the adapter draw unless they are told otherwise.
    let (sample_steps, guidance_scale) = match task.model {
        Model::Turbo => (8, 0.0),
        Model::Base | Model::Edit => (28, 4.0),
    };
    let size = ImageSize::new(resolution, resolution).map_err(zoetrope_engine::Error::from)?;
    Ok(Job {
        data: zip,
        data_settings,
        samples: Samples {
            prompts: vec![caption],
            every: steps.div_ceil(SAMPLED_PARTS),
            size,
            steps: sample_steps,
            guidance_scale,
            seed: settings.seed,
        },
        settings: settings.check().map_err(zoetrope_trainer::Error::from)?,
        folder,
        beside: Vec::new(),
        continue_from: None,
        save_every: (steps / SAVED_PARTS).clamp(SAVE_EVERY.0, SAVE_EVERY.1),
        keep: 2,
    })
}

/// Trains on the engine's thread.
pub(crate) fn on_engine(pipeline: &mut Pipeline, training: &Training) -> Result<Trained, JobError> {
    let mut job = training.job.clone();
    job.settings.checkpointing = usual_checkpointing(pipeline.width());
    let (begun, on) = (Instant::now(), training_news::listener(&training.news));
    let trained = zoetrope_trainer::train(pipeline, &job, &training.interrupt, &on)?;
    let adapter = trained.file(Naming::Diffusers)?;
    Ok(Trained { adapter, config: trained.config, took: begun.elapsed() })
}

/// Stores both files; what fal answers.
async fn store(
    task: &Train,
    trained: Trained,
    lease: &Lease,
    room: &Room,
) -> Result<Value, JobError> {
    let config = serde_json::to_vec_pretty(&trained.config);
    let config = config.map_err(|e| JobError::Engine(e.to_string()))?;
    let file = async |name: &str, bytes: Vec<u8>| {
        let size = bytes.len();
        let url = outputs::keep(name, bytes, task.keep_seconds, lease, room).await?;
        let content_type = zoetrope_files::content_type(name);
        Ok::<_, JobError>(
            json!({"url": url, "content_type": content_type, "file_name": name, "file_size": size}),
        )
    };
    Ok(json!({
        "diffusers_lora_file": file(LORA_FILE, trained.adapter).await?,
        "config_file": file(CONFIG_FILE, config).await?,
    }))
}

/// How long the folder of a request that this database does not know is left alone: it may be of a worker of another one.
const STRANGE: Duration = Duration::from_secs(86_400);

/// Removes the folders of trainings that have ended.
pub(crate) async fn sweep(room: &Room) -> Result<(), JobError> {
    let mut entries = tokio::fs::read_dir(&room.trainings).await.map_err(in_folder)?;
    while let Some(entry) = entries.next_entry().await.map_err(in_folder)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if uuid::Uuid::try_parse(&name).is_err() {
            continue;
        }
        let over = match room.queue.standing(&name).await? {
            Some(request) => request.state == State::Done,
            None => is_older(&entry.path(), STRANGE),
        };
        if over && let Err(error) = tokio::fs::remove_dir_all(entry.path()).await {
            // The engine may be writing its last checkpoint; the next look finds it.
            tracing::debug!(request = name, %error, "a training's folder could not be removed");
        }
    }
    Ok(())
}

fn is_older(folder: &Path, than: Duration) -> bool {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    let last = changed(&folder.join("checkpoints")).max(changed(folder));
    last.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > than))
}

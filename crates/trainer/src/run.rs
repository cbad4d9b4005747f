//! A training from pictures to an adapter: what is made ready, the loop, and what is written on the way.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use zoetrope_api::{Acceleration, Controls, Count, Guidance, Seed, Steps};
use zoetrope_checkpoint::{Adapter, Blob};
use zoetrope_engine::pipeline::{Pipeline, Request, Source};
use zoetrope_engine::prompt::TOKENS_MAX;
use zoetrope_engine::training::TrainingPlan;
use zoetrope_engine::{Interrupt, lora};

use crate::chance::seed;
use crate::ema::Average;
use crate::inputs::{Inputs, digest, to_engine};
use crate::job::{Beside, Event, Job, Listener, Samples, Trained, Update};
use crate::learner::Learner;
use crate::optimizer;
use crate::pairs::Pairs;
use crate::report::Report;
use crate::settings::Settings;
use crate::state::{Checkpoints, Identity, Saved};
use crate::timesteps::Times;
use crate::{Error, Result, written};

/// Values of a picture's stream from which on the kernels of one picture keep all threads busy.
const WIDE: usize = 1 << 20;

/// What helps when memory does not suffice.
const REMEDIES: &str = "--dtype q8_0 halves the weights of a bfloat16 model, a --resolution of 512 needs a quarter of what 1024 needs, \
                        --optimizer adamw8bit and a lower --rank make the adapter smaller, and with --checkpointing on a layer's values are kept \
                        only while it is worked on";

/// Trains what `job` says on the model of `pipeline`, which keeps its networks (`Keep::All`). A run that the job's folder holds is taken up
/// where it was. `on` hears of it.
pub fn train(
    pipeline: &mut Pipeline,
    job: &Job,
    interrupt: &Interrupt,
    on: &Listener,
) -> Result<Trained> {
    let settings = job.settings.clone().check()?;
    let prints = pipeline.fingerprints()?;
    let inputs = Inputs::prepare(pipeline, job, &prints, interrupt, on)?;
    let at_once = check_memory(pipeline, &settings, &inputs, on)?;
    let mut adapters = Adapters::read(pipeline, job, &settings, on)?;
    let identity = Identity {
        settings: settings.clone(),
        data: inputs.fingerprint.clone(),
        model: format!("{} {}", prints.form, prints.transformer),
        adapters: std::mem::take(&mut adapters.digests),
    };
    let pairs = adapters.pairs;
    let sizes: Vec<usize> = pairs.tensors().map(Tensor::elem_count).collect();
    let average = match settings.ema > 0.0 {
        true => Some(Average::new(settings.ema, &pairs.values()?)),
        false => None,
    };
    let learner = Learner {
        settings: &settings,
        inputs: &inputs,
        beside: &adapters.beside,
        optimizer: optimizer::State::new(settings.optimizer, &sizes, settings.weight_decay),
        average,
        pairs,
        times: Times::new(settings.timesteps, pipeline.scheduler().shift),
        device: pipeline.device(),
        at_once,
    };
    let checkpoints = Checkpoints::open(job.folder.join("checkpoints"), job.keep)?;
    let mut run = Run { pipeline, job, learner, identity, checkpoints, interrupt, on };
    run.go()?;
    let adapter = run.learner.adapter()?;
    Ok(written::trained(adapter, job, run.pipeline.name(), inputs.pictures))
}

/// Tells what will be needed and refuses what cannot be; how many pictures' gradients are computed at the same time.
fn check_memory(
    pipeline: &mut Pipeline,
    settings: &Settings,
    inputs: &Inputs,
    on: &Listener,
) -> Result<usize> {
    // Small pictures do not keep all threads busy one by one.
    let narrow = inputs.tokens_max * pipeline.width() < WIDE;
    let at_once = if narrow { settings.batch.min(rayon::current_num_threads()) } else { 1 };
    let rank = settings.lora.rank;
    let shapes = pipeline.linear_shapes()?;
    let wanted = shapes.iter().filter(|(module, _)| settings.lora.targets.include(module));
    let averaged = if settings.ema > 0.0 { 4 } else { 0 };
    let plan = TrainingPlan {
        tokens: inputs.tokens_max,
        at_once,
        checkpointing: settings.checkpointing,
        values: wanted.map(|(_, [out, width])| (out + width) * rank).sum(),
        // The value, its gradient, the sum of gradients, and what is remembered.
        bytes_a_value: 12 + settings.optimizer.bytes_a_value() + averaged,
    };
    let memory = pipeline.training_memory(&plan)?;
    on(Event::Memory(&memory));
    memory.check(&pipeline.device(), REMEDIES)?;
    Ok(at_once)
}

/// The adapter in training, and those that others trained.
struct Adapters {
    pairs: Pairs,
    beside: Vec<lora::Applied>,
    digests: Vec<String>,
}

impl Adapters {
    fn read(
        pipeline: &mut Pipeline,
        job: &Job,
        settings: &Settings,
        on: &Listener,
    ) -> Result<Self> {
        let device = pipeline.device();
        let modules = lora::modules(pipeline.transformer(&to_engine(on))?);
        let read = |file: &Path| {
            let bytes =
                std::fs::read(file).map_err(|source| Error::File { path: file.into(), source })?;
            let adapter = Adapter::read(&Blob::File(file.into()), &modules)?;
            Ok::<_, Error>((adapter, digest(&bytes)))
        };
        let mut digests = Vec::new();
        let mut beside = Vec::new();
        for Beside { file, scale } in &job.beside {
            let (adapter, digest) = read(file)?;
            digests.push(format!("beside {digest} {scale}"));
            beside.push(lora::Applied { adapter: Arc::new(adapter), scale: *scale });
        }
        let start = seed(settings.seed, "adapter", &[]);
        let mut pairs = Pairs::new(&modules, &settings.lora, start, &device)?;
        if let Some(file) = &job.continue_from {
            let (adapter, digest) = read(file)?;
            digests.push(format!("from {digest}"));
            pairs.continue_from(&adapter)?;
        }
        Ok(Self { pairs, beside, digests })
    }
}

/// A training in progress.
struct Run<'a> {
    pipeline: &'a mut Pipeline,
    job: &'a Job,
    learner: Learner<'a>,
    identity: Identity,
    checkpoints: Checkpoints,
    interrupt: &'a Interrupt,
    on: &'a Listener,
}

impl Run<'_> {
    /// All updates that are left.
    fn go(&mut self) -> Result<()> {
        let of = self.learner.settings.steps;
        let first = self.take_up()?;
        let mut report = Report::open(&self.job.folder, first, self.title(), self.told_settings())?;
        if first == 0 {
            self.draw(0, &mut report)?;
        }
        let begun = Instant::now();
        for step in first..of {
            let update = self.update(step, (first, begun))?;
            report.update(&update)?;
            (self.on)(Event::Step(&update));
            let done = step + 1;
            if done == of || done % self.job.save_every == 0 {
                self.save(done)?;
            }
            if done == of || self.job.samples.every > 0 && done % self.job.samples.every == 0 {
                self.draw(done, &mut report)?;
            }
        }
        report.write()
    }

    /// Makes update `step`; a run that is stopped loses none that was made.
    fn update(&mut self, step: usize, (first, begun): (usize, Instant)) -> Result<Update> {
        let started = Instant::now();
        let transformer = self.pipeline.transformer(&to_engine(self.on))?;
        let made = match self.learner.update(transformer, step, self.interrupt) {
            Err(Error::Engine(zoetrope_engine::Error::Interrupted)) if step > first => {
                self.save(step)?;
                return Err(zoetrope_engine::Error::Interrupted.into());
            }
            made => made?,
        };
        let (done, of) = (step + 1, self.learner.settings.steps);
        let each = begun.elapsed().as_secs_f64() / (done - first) as f64;
        Ok(Update {
            step: done,
            of,
            loss: made.loss,
            rate: made.rate,
            norm: made.norm,
            seconds: started.elapsed().as_secs_f64(),
            seconds_left: each * (of - done) as f64,
        })
    }

    fn title(&self) -> String {
        let trigger = self.job.data_settings.trigger.as_deref().filter(|t| !t.is_empty());
        let data = self.job.data.file_stem().unwrap_or_default().to_string_lossy();
        trigger.map_or(data.to_string(), ToString::to_string)
    }

    /// Every setting as a line.
    fn told_settings(&self) -> Vec<(String, String)> {
        let settings = serde_json::to_value(self.learner.settings).unwrap_or_default();
        let lines = settings.as_object().into_iter().flatten();
        lines.map(|(name, value)| (name.clone(), value.to_string())).collect()
    }

    /// Puts the newest checkpoint in place; the updates that it has behind it.
    fn take_up(&mut self) -> Result<usize> {
        let note = |text: &str| (self.on)(Event::Note(text));
        let Some(saved) = self.checkpoints.newest(&self.identity, note)? else { return Ok(0) };
        self.learner.restore(&saved)?;
        (self.on)(Event::Resumed { step: saved.step });
        Ok(saved.step.min(self.learner.settings.steps))
    }

    fn save(&self, step: usize) -> Result<()> {
        let (tensors, numbers) = self.learner.saved()?;
        self.checkpoints.save(&self.identity, &Saved { step, tensors, numbers })?;
        (self.on)(Event::Saved { step });
        Ok(())
    }

    /// A picture of each prompt with the adapter as it is, and without what stands beside it.
    fn draw(&mut self, step: usize, report: &mut Report) -> Result<()> {
        let samples = &self.job.samples;
        if samples.prompts.is_empty() {
            return Ok(());
        }
        let adapter = Arc::new(self.learner.adapter()?);
        for (i, prompt) in samples.prompts.iter().enumerate() {
            let request = request(samples, prompt)?;
            let negative = request.guidance.is_on().then_some("");
            let features = [prompt.as_str()].into_iter().chain(negative);
            let features =
                features.map(|c| self.learner.inputs.features(c)).collect::<Result<Vec<_>>>()?;
            let applied = [lora::Applied { adapter: adapter.clone(), scale: 1.0 }];
            let heard = to_engine(self.on);
            let drawn = self.pipeline.generate_from(
                &request,
                &features,
                &applied,
                self.interrupt,
                &heard,
            )?;
            let picture = drawn.pictures.first().expect("one picture was asked for");
            report.sample(step, i, prompt, picture)?;
            (self.on)(Event::Sample { step, prompt, picture });
        }
        report.write()
    }
}

fn request(samples: &Samples, prompt: &str) -> Result<Request> {
    Ok(Request {
        prompt: prompt.into(),
        negative_prompt: None,
        size: samples.size,
        steps: Steps::new(samples.steps)?,
        seed: Seed(samples.seed),
        count: Count::new(1)?,
        guidance: Guidance::new(samples.guidance_scale, 0.0, 1.0)?,
        source: Source::Text,
        tokens_max: TOKENS_MAX,
        acceleration: Acceleration::Regular,
        previews: false,
        control: None,
        references: Vec::new(),
        controls: Controls::default(),
        expansion: None,
    })
}

//! What shall be trained, and what is heard of it meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use zoetrope_api::ImageSize;
use zoetrope_checkpoint::Adapter;
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::training::TrainingMemory;

use crate::data;
use crate::settings::Settings;

/// One training.
#[derive(Clone, Debug)]
pub struct Job {
    /// A folder or a zip of pictures with captions.
    pub data: PathBuf,
    /// How they are read.
    pub data_settings: data::Settings,
    /// Everything else that decides what comes of it.
    pub settings: Settings,
    /// Where the run keeps what it needs to go on: checkpoints, cache, samples, report. A run that is there already is taken up.
    pub folder: PathBuf,
    /// What stands on the transformer while it is trained and is no part of the result: an adapter that undoes a distillation, say.
    pub beside: Vec<Beside>,
    /// An adapter to go on from, in place of one that changes nothing.
    pub continue_from: Option<PathBuf>,
    /// Pictures on the way.
    pub samples: Samples,
    /// Updates between checkpoints; the last one always is.
    pub save_every: usize,
    /// Checkpoints that are kept.
    pub keep: usize,
}

/// An adapter's file and how strongly it works.
#[derive(Clone, Debug)]
pub struct Beside {
    /// A LoRA or LoKr file.
    pub file: PathBuf,
    /// 1 is as trained.
    pub scale: f64,
}

/// Pictures that the adapter draws while it is trained.
#[derive(Clone, Debug)]
pub struct Samples {
    /// One picture each; none are drawn without.
    pub prompts: Vec<String>,
    /// Updates between them; 0 is only at the end.
    pub every: usize,
    /// Of each picture.
    pub size: ImageSize,
    /// Network evaluations.
    pub steps: u32,
    /// 0 is off.
    pub guidance_scale: f64,
    /// The same for all, so that they can be compared.
    pub seed: u64,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Something that its owner may want to know.
    Note(&'a str),
    /// `read` of `of` bytes of a network's files were read.
    Loading {
        /// Which network.
        component: &'static str,
        /// Bytes so far.
        read: u64,
        /// Bytes in all.
        of: u64,
    },
    /// `done` of `of` captions or pictures were encoded.
    Preparing {
        /// `captions` or `pictures`.
        what: &'static str,
        /// So far.
        done: usize,
        /// In all.
        of: usize,
    },
    /// What will be needed, before it is taken.
    Memory(&'a TrainingMemory),
    /// The run goes on after this many updates.
    Resumed {
        /// Updates that were made before.
        step: usize,
    },
    /// An update was made.
    Step(&'a Update),
    /// A picture was drawn.
    Sample {
        /// After how many updates.
        step: usize,
        /// From what.
        prompt: &'a str,
        /// Itself.
        picture: &'a Rgb,
    },
    /// The run could be taken up from here.
    Saved {
        /// After how many updates.
        step: usize,
    },
}

/// One update of the adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Counted from 1.
    pub step: usize,
    /// Updates in all.
    pub of: usize,
    /// The mean loss of its pictures.
    pub loss: f64,
    /// The learning rate.
    pub rate: f64,
    /// The gradients' norm, before it is clipped.
    pub norm: f64,
    /// How long it took.
    pub seconds: f64,
    /// How long the rest will take, by what was measured so far.
    pub seconds_left: f64,
}

/// Hears of a run; called from several threads while weights are read.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// What came of it.
pub struct Trained {
    /// The adapter: with its last values, or their average where one was wanted.
    pub adapter: Adapter,
    /// What its file says about itself.
    pub(crate) about: BTreeMap<String, String>,
    /// What it was trained with, for people and for tools.
    pub config: Value,
}

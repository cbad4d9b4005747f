//! Which weights stay in memory: models that were used last, as long as they fit the budget.

use std::sync::Arc;

use zoetrope_api::task::Model;
use zoetrope_checkpoint::{Blob, Layout};
use zoetrope_engine::pipeline::{Keep, Options, Pipeline};

/// Where the family's models are.
#[derive(Clone, Debug)]
pub struct Models {
    /// For endpoints of Turbo.
    pub turbo: Served,
    /// For endpoints of the base model.
    pub base: Served,
    /// The one that is asked for edits of several pictures, where there is one that sees them.
    pub edit: Option<Served>,
}

/// A model that is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where its parts are.
    pub layout: Layout,
    /// Pixels a side of a square of the area that adapters are trained at.
    pub resolution: u32,
}

impl Models {
    /// A request for what is not there goes to the base model, which says what it cannot do.
    pub(crate) fn of(&self, model: Model) -> &Served {
        match model {
            Model::Turbo => &self.turbo,
            Model::Base => &self.base,
            Model::Edit => self.edit.as_ref().unwrap_or(&self.base),
        }
    }
}

/// Models in memory.
pub struct Residency {
    models: Models,
    options: Options,
    budget_bytes: u64,
    /// The one used last comes last.
    open: Vec<(Arc<str>, u64, Pipeline)>,
}

impl Residency {
    /// Nothing loaded yet. Above `budget_bytes` the model that was not used for longest goes; one that is larger than that on
    /// its own keeps one network at a time.
    pub fn new(models: Models, options: Options, budget_bytes: u64) -> Self {
        Self { models, options, budget_bytes, open: Vec::new() }
    }

    /// The pipeline of `model`, opened if need be; `Err` says what is wrong with its files.
    pub(crate) fn pipeline(&mut self, model: Model) -> zoetrope_engine::Result<&mut Pipeline> {
        let layout = &self.models.of(model).layout;
        let name: Arc<str> = layout.name.as_str().into();
        let found = self.open.iter().position(|(open, ..)| *open == name);
        let entry = match found {
            Some(at) => self.open.remove(at),
            None => {
                let bytes = bytes_of(layout);
                // On a GPU, what does not fit beside the rest stays in main memory and is not read again.
                let alone = bytes > self.budget_bytes && self.options.device.is_cpu();
                let keep = if alone { Keep::OneAtATime } else { Keep::All };
                let options = Options { keep, ..self.options.clone() };
                let pipeline = Pipeline::open(layout.clone(), options)?;
                self.make_room(bytes);
                (name, bytes, pipeline)
            }
        };
        self.open.push(entry);
        Ok(&mut self.open.last_mut().expect("it was pushed just now").2)
    }

    /// A pipeline of `model` on its own, which keeps all its networks: training needs the memory of everything else, and leaves
    /// nothing that a picture could be drawn with.
    pub(crate) fn for_training(&mut self, model: Model) -> zoetrope_engine::Result<Pipeline> {
        for (name, ..) in self.open.drain(..) {
            tracing::info!(model = %name, "freed to make room for a training");
        }
        let options = Options { keep: Keep::All, ..self.options.clone() };
        Pipeline::open(self.models.of(model).layout.clone(), options)
    }

    /// Pixels a side of a square of the area that adapters of `model` are trained at.
    pub(crate) fn resolution_for(&self, model: Model) -> u32 {
        self.models.of(model).resolution
    }

    fn make_room(&mut self, bytes: u64) {
        let held = |open: &[(Arc<str>, u64, Pipeline)]| open.iter().map(|(_, b, _)| b).sum::<u64>();
        while !self.open.is_empty() && held(&self.open) + bytes > self.budget_bytes {
            let (name, ..) = self.open.remove(0);
            tracing::info!(model = %name, "freed to make room for another model");
        }
    }
}

/// What the model's files take; converted on load they take less, never much more.
fn bytes_of(layout: &Layout) -> u64 {
    let size = |blob: &Blob| match blob {
        Blob::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
        Blob::Static { bytes, .. } => bytes.len() as u64,
    };
    layout.weights().map(size).sum()
}

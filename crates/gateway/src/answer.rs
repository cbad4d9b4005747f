//! What a caller gets, before a dialect writes it.

use std::sync::Arc;
use std::time::Duration;

use zoetrope_api::images::{Change, Pixels, Problem};
use zoetrope_api::{Format, Micros};

use crate::catalogue::{Deployment, Model};
use crate::failure::FailureKind;
use crate::price::Component;

/// Pictures, and how they came to be.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `req_…`.
    pub id: String,
    /// What ran, whatever it was called in the request.
    pub model: Arc<Model>,
    /// Who made the first picture.
    pub deployment: Arc<Deployment>,
    /// In order; fewer than were asked for only where some could not be made by anybody.
    pub pictures: Vec<Picture>,
    /// How many were asked for.
    pub requested: u32,
    /// All calls that were made, in order of their ends.
    pub attempts: Vec<Attempt>,
    /// Parameters that were dropped or changed.
    pub changes: Vec<Change>,
    /// What is charged: the successful calls.
    pub cost: Micros,
    /// The part of the time that was spent waiting for providers.
    pub upstream: Duration,
}

/// A picture in the form that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its address, where one was asked for.
    pub url: Option<String>,
    /// The name of the file there, in our store.
    pub file: Option<String>,
    /// The file as standard base64, where it was asked for.
    pub base64: Option<String>,
    /// How it is encoded.
    pub format: Format,
    /// What came out.
    pub size: Pixels,
    /// What it was drawn from, where that is known.
    pub seed: Option<u64>,
    /// The prompt that was drawn, where the provider wrote it anew.
    pub revised_prompt: Option<String>,
}

/// One call to a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Whom.
    pub deployment: Arc<Deployment>,
    /// How it failed; `None` where it did not.
    pub failure: Option<FailureKind>,
    /// From sending to the last byte of the picture, or to the failure.
    pub duration: Duration,
    /// From sending to the first byte of the answer that carried the result, or of the failure.
    pub first_byte: Option<Duration>,
    /// What it cost us; nothing where it failed, as far as we know.
    pub cost: Micros,
}

/// Why there are no pictures.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Refusal {
    /// `req_…`, once there was one.
    pub id: Option<String>,
    /// What the caller is told.
    pub problem: Problem,
    /// All calls that were made.
    pub attempts: Vec<Attempt>,
}

/// What a request would cost: a dry run.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// What would run.
    pub model: Arc<Model>,
    /// Who would be asked first now; another may be asked then.
    pub deployment: Arc<Deployment>,
    /// The lines.
    pub components: Vec<Component>,
    /// Their sum.
    pub total: Micros,
    /// What the others would cost; without those whose price is not known.
    pub alternatives: Vec<(Arc<Deployment>, Micros)>,
    /// Parameters that would be dropped or changed.
    pub changes: Vec<Change>,
    /// Pixels of each picture.
    pub size: Pixels,
    /// How they would be encoded.
    pub format: Format,
}

//! What a deployment would be asked for a request, worked out before anybody is called: filters, dry runs and calls all
//! follow the same plan.

use std::sync::Arc;

use zoetrope_api::Format;
use zoetrope_api::images::{Change, Fit};

use crate::catalogue::Deployment;
use crate::price::Component;

/// What a deployment would be asked, and what is done with its answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who would make it.
    pub deployment: Arc<Deployment>,
    /// What size is asked for, and which is given.
    pub fit: Fit,
    /// The calls that together make all pictures; they do not wait for each other.
    pub parts: Vec<Part>,
    /// The format that the provider is asked for.
    pub ask: Encoding,
    /// How its pictures are encoded again; `None` where they are given as they come.
    pub encode: Option<Encoding>,
    /// Parameters that were sent and are dropped or changed for this deployment.
    pub changes: Vec<Change>,
    /// What it would cost; empty where the price is not known.
    pub components: Vec<Component>,
}

/// One call's share of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which picture of the request is its first, from 0.
    pub first: u32,
    /// Pictures, 1 or more, no more than the provider makes at once.
    pub count: u32,
    /// Of its first picture; each further one counts on.
    pub seed: Option<u64>,
}

/// A format and, where it loses something, how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The format.
    pub format: Format,
    /// 0 to 100; the encoder's default without.
    pub quality: Option<u8>,
}

/// Why a deployment cannot serve a request at all: not a candidate, and an error of this text where nobody else is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsuited {
    /// The parameter that is in the way, as it was sent.
    pub parameter: Option<String>,
    /// For people: the value, the limit, and what to do.
    pub message: String,
}

//! Who is asked, in which order, and what happens when they fail.

mod attempt;
mod breaker;
mod candidates;
mod gather;
mod lane;
mod log;
mod notes;
mod purse;
mod rank;
mod refusal;
mod registry;
mod share;
mod speed;

pub(crate) use candidates::{Candidate, allowed, candidates};
pub(crate) use gather::{Gathered, Round};
pub(crate) use lane::Lane;
pub(crate) use log::Entry;
pub(crate) use purse::{Purse, unpriced};
pub(crate) use rank::rank;
pub(crate) use registry::Registry;
pub(crate) use share::share;

//! Who is asked, in which order, and what happens when they fail.

mod attempt;
mod candidates;
mod gather;
mod refusal;

pub(crate) use candidates::{Candidate, allowed, candidates};
pub(crate) use gather::{Gathered, gather};

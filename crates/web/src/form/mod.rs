//! An endpoint's input as a form: what was filled in is kept as texts, read from forms and links, and turned into the JSON that programs send.

pub(crate) mod controls;
mod filled;
mod received;

pub(crate) use filled::{CUSTOM, Filled};
pub(crate) use received::receive;

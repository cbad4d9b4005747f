//! HTTP in: parse, call, render. Knows the queue and the files; no tensor and no SQL.
//!
//! [`app`] is everything that answers; [`surface`] decides which of fal's hosts a request was meant for; `fal/` holds a file
//! for each thing that fal's clients do.

mod answer;
mod auth;
mod cors;
mod extract;
pub mod fal;
mod files;
mod janitor;
pub mod keys;
pub mod listen;
mod local;
pub mod metrics;
mod own;
mod state;
mod surface;
mod token;
mod webhook;

pub use janitor::{forget, keep_house};
pub use state::{App, Settings};
pub use surface::app;
pub use webhook::deliver;

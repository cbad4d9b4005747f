//! HTTP in: parse, call, render. Knows the queue, the files and the gateway; no tensor and no SQL.
//!
//! [`app`] is everything that answers; [`surface`] decides which of fal's hosts, or which other API, a request was meant for; `fal/`
//! and `openai/` hold a file for each thing that those clients do, `sdapi/` what front-ends of AUTOMATIC1111 call.

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
mod openai;
mod own;
pub mod pages;
mod sdapi;
mod state;
mod surface;
mod token;
mod webhook;

pub use janitor::{forget, keep_house};
pub use state::{App, Settings};
pub use surface::{app, app_with};
pub use webhook::deliver;

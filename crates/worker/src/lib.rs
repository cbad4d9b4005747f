//! The bridge: claims a request, fetches what it needs, runs the engine, stores what came of it.
//!
//! The only room that sees both towers: the queue and the files on one side, the engine on the other. [`Worker::run`] is the
//! loop; [`generate`] and [`train`] are what one request goes through; [`residency`] decides which weights stay in memory, and
//! [`safety`] looks at what was drawn.

mod adapters;
mod attempt;
mod depth;
mod engine;
mod error;
mod generate;
mod inputs;
mod loras;
mod outputs;
mod prepared;
mod presence;
mod references;
mod residency;
pub mod safety;
mod shown;
mod stage;
mod train;
mod training_news;
mod words;

pub use attempt::{Safety, Settings, Worker};
pub use depth::Depth;
pub use engine::Engine;
pub use prepared::prepared;
pub use references::reference;
pub use residency::{Models, Residency, Served};
pub use safety::Checker;
pub use zoetrope_engine::expand::Expansion;

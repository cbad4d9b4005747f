//! fal's dialect: its endpoints, their fields and errors. One table of fields makes validation, schemas and documents.

mod control;
pub mod endpoint;
pub mod field;
pub mod llms;
mod own;
pub mod parse;
pub mod problem;
mod read;
pub mod schema;

pub use endpoint::{CONFIG_FILE, Draws, ENDPOINTS, Endpoint, LORA_FILE, Makes, application};
pub use own::fields as own_fields;
pub use parse::{PIXELS_MAX, parse};
pub use problem::{Problem, detail};

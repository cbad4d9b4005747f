//! Requests for pictures as the gateway understands them, whatever dialect they came in: one table of parameters, from which
//! parsing, schemas and documents are made; the rules of sizes; and what can be wrong, in OpenAI's terms.

mod about;
mod catalogue;
mod handling;
mod llms;
mod openapi;
mod parameter;
mod parse;
mod problem;
mod read;
mod record;
mod request;
mod samples;
mod schema;
mod size;

pub use about::{About, Example};
pub use catalogue::{Listed, catalogue_txt};
pub use handling::{Change, Handling};
pub use llms::llms_txt;
pub use openapi::openapi;
pub use parameter::{Group, Kind, Literal, Modes, PARAMETERS, Parameter, Scope, Support};
pub use parse::{Route, VARIATION_STRENGTH, no_object, parse_form, parse_json};
pub use problem::{Code, Problem};
pub use record::{ArenaFigure, Board, FirstByteTime, GenerationTime, Performance, Record};
pub use request::{
    COUNT_MAX, Edit, Form, INPUTS_MAX, ImageRequest, Input, Mode, PARTIALS_MAX, Reply,
};
pub use schema::{
    Modalities, ModelSheet, Offer, ParameterSheet, PriceSheet, ProviderSheet, Schema, compile,
};
pub use size::{Finish, Fit, Pixels, Ratio, SizeRule, SizeWish, Tier, Unfit};

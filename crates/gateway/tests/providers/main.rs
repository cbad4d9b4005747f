//! What providers are asked and what becomes of their answers, good and bad: each against a server on a loopback port that
//! behaves as its documentation says.

#![allow(clippy::unwrap_used)]

mod bodies;
mod delivery;
mod emulation;
mod ends;
mod faults;
#[path = "../../../files/tests/loopback/mod.rs"]
mod loopback;
mod pictures;
mod plans;
mod room;
mod uploads;
mod upstream;

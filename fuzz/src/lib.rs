//! A function for each thing that is fuzzed. `targets/` calls them with the fuzzer's bytes; tests in the crates call them
//! with the files of `corpus/`.

pub mod checkpoints;
pub mod http;
pub mod images;
pub mod requests;

//! See `requests::json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zoetrope_fuzz::requests::json(data));

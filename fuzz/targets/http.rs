//! See `http::request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zoetrope_fuzz::http::request(data));

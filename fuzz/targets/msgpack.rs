//! See `requests::msgpack`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zoetrope_fuzz::requests::msgpack(data));

//! See `images::image`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zoetrope_fuzz::images::image(data));

//! See `checkpoints::adapter`.

#![no_main]

// The reader of GGUF turns a library's panic into an error; only what leaves the target is a finding.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| zoetrope_fuzz::checkpoints::adapter(data));

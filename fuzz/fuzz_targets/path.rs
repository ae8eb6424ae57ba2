//! See `src/path.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    callgate_fuzz::path::run(data);
});

//! See `src/response_head.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    callgate_fuzz::response_head::run(data);
});

//! See `src/token.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    callgate_fuzz::token::run(data);
});

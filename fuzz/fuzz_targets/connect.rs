//! See `src/connect.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    callgate_fuzz::connect::run(data);
});

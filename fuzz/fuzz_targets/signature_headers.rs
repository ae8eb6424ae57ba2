//! See `src/signature_headers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    callgate_fuzz::signature_headers::run(data);
});

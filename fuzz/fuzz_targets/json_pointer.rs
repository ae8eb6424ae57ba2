//! See `src/json_pointer.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    callgate_fuzz::json_pointer::run(data);
});

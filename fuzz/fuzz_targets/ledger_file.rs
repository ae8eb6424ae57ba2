//! See `src/ledger_file.rs`.
#![no_main]

use std::sync::Once;

static QUIET: Once = Once::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // libFuzzer's own hook ends the process at every panic. Callgate catches panics of the database and reports them as
    // errors, so only a panic that reaches this function is a finding.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Err(panic) = std::panic::catch_unwind(|| callgate_fuzz::ledger_file::run(data)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        eprintln!("panicked: {text}");
        std::process::abort();
    }
});

//! Records the lines of the event log, so that tests can look at them.

use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

struct Recorder;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static INSTALL: Once = Once::new();

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("callgate")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{}: {}", record.level().as_str().to_ascii_lowercase(), record.args());
            LINES.lock().push(line);
        }
    }

    fn flush(&self) {}
}

/// Starts to record the lines. All tests of the process share them.
pub fn record() {
    INSTALL.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}

/// Returns the lines that contain a text, such as an address that only one test uses.
pub fn lines(with: &str) -> Vec<String> {
    LINES.lock().iter().filter(|line| line.contains(with)).cloned().collect()
}

/// Returns all lines.
pub fn all() -> String {
    LINES.lock().join("\n")
}

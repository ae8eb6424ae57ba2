//! Throttles log lines that callers can cause: at most one line per kind and minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The minimum time between two log lines of the same kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// Throttles log lines: stores the time of the last log line of each kind.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<&'static str, Instant>>);

impl LogThrottle {
    /// Reports whether a log line of this kind should be written now. If so, records the time.
    pub(crate) fn should_log(&self, kind: &'static str, now: Instant) -> bool {
        let mut last_logged = self.0.lock();
        let is_recent = last_logged.get(kind).is_some_and(|at| now.saturating_duration_since(*at) < INTERVAL);
        if !is_recent {
            last_logged.insert(kind, now);
        }
        !is_recent
    }
}

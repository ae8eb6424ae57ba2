//! What many may cause is said now and then: once a minute for each kind, not for each time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long nothing more is said of a kind.
const QUIET: Duration = Duration::from_secs(60);

/// What was said last, and when.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<&'static str, Instant>>);

impl LogThrottle {
    /// Whether it is the first of its kind for a while.
    pub(crate) fn is_first(&self, kind: &'static str, now: Instant) -> bool {
        let mut said = self.0.lock();
        let quiet = said.get(kind).is_some_and(|at| now.saturating_duration_since(*at) < QUIET);
        if !quiet {
            said.insert(kind, now);
        }
        !quiet
    }
}

//! The clocks of the program. All other modules receive the time as an argument, so that tests can choose the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::time::{Steady, Timestamp};

/// A source of the wall-clock time: the operating system, or a chosen time in tests.
#[derive(Clone, Debug)]
pub enum Clock {
    /// A clock that always shows this time, for tests.
    Fixed(Timestamp),
    /// A clock that shows the stored Unix time, in milliseconds. Tests can change the stored time.
    Set(Arc<AtomicI64>),
    /// The clock of the operating system.
    System,
}

impl Clock {
    /// Returns the current wall-clock time.
    #[allow(clippy::disallowed_methods, reason = "all other modules read the time through this module")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Fixed(at) => *at,
            Self::Set(ms) => Timestamp::from_unix_ms(ms.load(Ordering::SeqCst)),
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}

/// Returns the current time of the monotonic clock, which is used to measure durations.
#[allow(clippy::disallowed_methods, reason = "all other modules read the time through this module")]
#[cfg(not(test))]
pub fn instant() -> Instant {
    Instant::now()
}

/// Returns the current time of tokio's clock, which unit tests can pause.
#[cfg(test)]
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the time since a file was written. `written` is the modification time of the file. Returns zero if `written`
/// is in the future.
#[allow(clippy::disallowed_methods, reason = "all other modules read the time through this module")]
pub(crate) fn age_of(written: SystemTime) -> Duration {
    SystemTime::now().duration_since(written).unwrap_or_default()
}

/// The clock by which the ledger, which records the interactions, decides whether a deadline has passed. This decision
/// cannot be undone. Therefore the clock follows a forward jump of the wall clock only if the jump lasts (see
/// [`Steady`]).
#[derive(Debug)]
pub struct LedgerClock {
    clock: Clock,
    began: Instant,
    steady: Mutex<Steady>,
}

impl LedgerClock {
    /// Creates the clock of the ledger. Monotonic time is measured from this call.
    pub fn new(clock: Clock) -> Self {
        Self { clock, began: instant(), steady: Mutex::default() }
    }

    /// Returns the wall-clock time, corrected for jumps. `at` is the current time of the monotonic clock.
    pub fn now(&self, at: Instant) -> Timestamp {
        let wall = self.clock.now();
        match self.clock {
            Clock::System => self.steady.lock().look(wall, at.saturating_duration_since(self.began)),
            Clock::Fixed(_) | Clock::Set(_) => wall,
        }
    }
}

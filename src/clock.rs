//! The clock: one of the few places that read one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::time::{Steady, Timestamp};

/// What time it is.
#[derive(Clone, Debug)]
pub enum Clock {
    /// Always this moment: for tests.
    Fixed(Timestamp),
    /// The Unix milliseconds that somebody sets: for tests.
    Set(Arc<AtomicI64>),
    /// The system's.
    System,
}

impl Clock {
    /// The moment.
    #[allow(clippy::disallowed_methods, reason = "this is the clock that is handed to everybody else")]
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

/// A reading of the monotonic clock, for measuring how long things take.
#[allow(clippy::disallowed_methods, reason = "this is the clock that is handed to everybody else")]
pub fn instant() -> Instant {
    Instant::now()
}

/// How long ago a file was written; nothing at all, if that lies ahead.
#[allow(clippy::disallowed_methods, reason = "this is the clock that is handed to everybody else")]
pub(crate) fn age_of(written: SystemTime) -> Duration {
    SystemTime::now().duration_since(written).unwrap_or_default()
}

/// The clock of what ends for good, such as that a deadline has passed: it is not believed when it jumps.
#[derive(Debug)]
pub struct LedgerClock {
    clock: Clock,
    began: Instant,
    steady: Mutex<Steady>,
}

impl LedgerClock {
    /// One that begins now.
    pub fn new(clock: Clock) -> Self {
        Self { clock, began: instant(), steady: Mutex::default() }
    }

    /// The time to go by, at this moment of the clock that cannot jump.
    pub fn now(&self, at: Instant) -> Timestamp {
        let wall = self.clock.now();
        match self.clock {
            Clock::System => self.steady.lock().look(wall, at.saturating_duration_since(self.began)),
            Clock::Fixed(_) | Clock::Set(_) => wall,
        }
    }
}

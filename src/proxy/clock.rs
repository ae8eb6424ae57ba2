//! The clock: one of the few places that read one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

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

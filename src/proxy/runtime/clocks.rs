//! The clocks of a running server.

use std::sync::Arc;
use std::time::Instant;

use crate::clock::{Clock, LedgerClock};
use crate::time::Timestamp;

/// The clocks of a running server.
#[derive(Clone)]
pub(crate) struct Clocks {
    pub(crate) wall: Clock,
    /// The clock for deadlines of interactions. It ignores jumps of the system clock.
    pub(crate) ledger: Arc<LedgerClock>,
}

impl Clocks {
    /// Returns the wall-clock time.
    pub(crate) fn now(&self) -> Timestamp {
        self.wall.now()
    }

    /// Returns the ledger's time at a reading of the monotonic clock.
    pub(crate) fn ledger_now(&self, at: Instant) -> Timestamp {
        self.ledger.now(at)
    }
}

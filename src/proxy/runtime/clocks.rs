//! The clocks of a running server: the wall clock and the clock of the ledger.

use std::sync::Arc;
use std::time::Instant;

use crate::clock::{Clock, LedgerClock};
use crate::time::Timestamp;

/// The clocks of a running server: the wall clock and the clock of the ledger.
#[derive(Clone)]
pub(crate) struct Clocks {
    pub(crate) wall: Clock,
    /// The clock for deadlines of interactions. This clock follows a forward jump of the system clock only if the jump
    /// lasts.
    pub(crate) ledger: Arc<LedgerClock>,
}

impl Clocks {
    /// Returns the wall-clock time.
    pub(crate) fn now(&self) -> Timestamp {
        self.wall.now()
    }

    /// Returns the time of the ledger's clock. `at` is the current time of the monotonic clock.
    pub(crate) fn ledger_now(&self, at: Instant) -> Timestamp {
        self.ledger.now(at)
    }
}

//! Counts work in flight, so that stopping can wait for its end and can refuse new work.
//!
//! `tokio_util::task::TaskTracker` is not used: its `wait` ends only after `close`, but stopping first waits while new
//! requests on kept-alive connections may still begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Interval at which [`Drain::wait_until_empty`] checks the count.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Counts the exchanges or connections of one kind.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    in_flight: AtomicUsize,
    closed: AtomicBool,
}

/// One exchange or connection in flight. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct InFlight<'t>(&'t Drain);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One exchange or connection in flight that may outlive the borrow of its [`Drain`].
#[derive(Debug)]
pub(crate) struct OwnedInFlight(Arc<Drain>);

impl Drop for OwnedInFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drain {
    /// Begins a connection, also after [`Drain::close`].
    pub(crate) fn begin_owned(self: &Arc<Self>) -> OwnedInFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        OwnedInFlight(Arc::clone(self))
    }

    /// Begins an exchange or connection. Returns `None` after [`Drain::close`].
    pub(crate) fn begin(&self) -> Option<InFlight<'_>> {
        // The count is incremented before the check. If a concurrent `close` is not seen here, the wait after that
        // `close` sees the count.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let begun = InFlight(self);
        (!self.closed.load(Ordering::SeqCst)).then_some(begun)
    }

    /// Closes the drain: every later `begin` returns `None`.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Returns the number in flight.
    pub(crate) fn count(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn wait_until_empty(&self) {
        while self.count() > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

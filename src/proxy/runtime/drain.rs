//! What is under way: it is counted, so that stopping can wait for its end, and can be closed, so that nothing more
//! begins.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How often a wait for the end looks.
const LOOK: Duration = Duration::from_millis(5);

/// Exchanges, or connections, of one kind.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    under_way: AtomicUsize,
    closed: AtomicBool,
}

/// One of them. Over when dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'t>(&'t Drain);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drain {
    /// Another one begins; `None` once this is closed.
    pub(crate) fn begin(&self) -> Option<InFlight<'_>> {
        // Counted before the look: whoever closes waits for the count afterwards, and misses none.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let begun = InFlight(self);
        (!self.closed.load(Ordering::SeqCst)).then_some(begun)
    }

    /// From here on none begins.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Waits until there is none.
    pub(crate) async fn ended(&self) {
        while self.count() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

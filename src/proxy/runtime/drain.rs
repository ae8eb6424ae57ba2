//! Counts work in flight, so that a stopping server can wait until the work has ended, and can then deny new work.
//!
//! `tokio_util::task::TaskTracker` is not used, because its `wait` never returns before `close` was called. A stopping
//! server must wait before it calls `close`, because callers may still send new requests on kept-alive connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the requests or connections of one kind that are in flight. Clones share one count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: AtomicUsize,
    closed: AtomicBool,
    emptied: Notify,
}

/// Counts one request or connection as in flight until this value is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

impl Drain {
    /// Counts a new request or connection as in flight. Returns `None` after [`Drain::close`].
    pub(crate) fn begin(&self) -> Option<InFlight> {
        // The count is incremented before `closed` is read. If `closed` is still false, `close` is called later, and a
        // wait after this call sees the incremented count.
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        let begun = InFlight(Arc::clone(&self.0));
        (!self.0.closed.load(Ordering::SeqCst)).then_some(begun)
    }

    /// Closes the drain, so that every later call of [`Drain::begin`] returns `None`.
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    /// Returns the number of requests or connections in flight.
    pub(crate) fn count(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until no request or connection is in flight.
    pub(crate) async fn wait_until_empty(&self) {
        loop {
            // The future is created before the count is read, so that the wait notices a request that ends between
            // these two steps.
            let emptied = self.0.emptied.notified();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Polls a wait once. Returns whether the wait has ended.
    async fn has_ended(wait: Pin<&mut impl Future<Output = ()>>) -> bool {
        timeout(Duration::ZERO, wait).await.is_ok()
    }

    #[tokio::test]
    async fn every_waiter_wakes_when_the_last_exchange_ends() {
        let drain = Drain::default();
        let (first, second) = (drain.begin().unwrap(), drain.begin().unwrap());
        let mut waits = [Box::pin(drain.wait_until_empty()), Box::pin(drain.wait_until_empty())];
        drop(first);
        for wait in &mut waits {
            assert!(!has_ended(wait.as_mut()).await);
        }
        // `second` can be dropped on another thread, and after the borrow of the drain has ended.
        tokio::spawn(async move { drop(second) }).await.unwrap();
        for wait in waits {
            wait.await;
        }
        assert_eq!(drain.count(), 0);
    }

    #[tokio::test]
    async fn a_wait_continues_if_an_exchange_begins_before_the_waiter_runs() {
        let drain = Drain::default();
        let first = drain.begin().unwrap();
        let mut wait = pin!(drain.wait_until_empty());
        assert!(!has_ended(wait.as_mut()).await);
        drop(first);
        let second = drain.begin();
        assert!(!has_ended(wait.as_mut()).await);
        drop(second);
        wait.await;
    }

    #[tokio::test]
    async fn a_closed_drain_begins_nothing() {
        let drain = Drain::default();
        let last = drain.begin();
        drain.close();
        assert!(drain.begin().is_none());
        assert_eq!(drain.count(), 1);
        drop(last);
        drain.wait_until_empty().await;
    }
}

//! Timeouts. A timer is created only if the future is not ready at its first poll, because most futures are ready then.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::clock::instant;
use crate::policy::Limits;

/// The timeout for each write of a response.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout for closing a connection.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum supported timeout. Adding [`Duration::MAX`] to an instant would overflow.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Returns the output of `future`, or `None` if the future is not ready after `duration`.
pub(crate) async fn with_timeout<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    ReusableTimer::default().with_timeout(duration, future).await
}

/// A timer that a connection reuses for all its waits. Resetting a timer is much cheaper than creating and dropping a
/// timer.
#[derive(Default)]
pub(crate) struct ReusableTimer(Option<Pin<Box<Sleep>>>);

impl ReusableTimer {
    /// Returns the output of `future`, or `None` if the future is not ready after `duration`.
    pub(crate) async fn with_timeout<F: Future>(
        &mut self,
        duration: Duration,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut is_set = false;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if !std::mem::replace(&mut is_set, true) {
                self.set(duration);
            }
            if let Some(sleep) = &mut self.0 {
                // The timer ignores tokio's cooperative budget, because a caller that keeps the future busy must not
                // prevent the timeout.
                ready!(pin!(unconstrained(sleep.as_mut())).poll(context));
            }
            Poll::Ready(None)
        })
        .await
    }

    fn set(&mut self, duration: Duration) {
        let end = Instant::from_std(instant()) + duration.min(MAX_TIMEOUT);
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(end),
            None => self.0 = Some(Box::pin(sleep_until(end))),
        }
    }
}

/// Polls `future` once. Returns its output, or `None` if it is not ready.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Enforces a total deadline and a minimum rate for the transfer of a body. Only the time that is spent waiting for the
/// peer counts.
pub(crate) struct TransferTimer<'l> {
    limits: &'l Limits,
    deadline: Duration,
    waited: Duration,
}

impl<'l> TransferTimer<'l> {
    /// Creates a timer for a transfer that may wait for the peer for at most `deadline` in total.
    pub(crate) fn new(limits: &'l Limits, deadline: Duration) -> Self {
        Self { limits, deadline, waited: Duration::ZERO }
    }

    /// Runs the next read or write and returns its output. `bytes` is the number of bytes that were transferred so far.
    /// Returns `None` if the peer is slower than the minimum rate or the deadline has passed.
    pub(crate) async fn step<F: Future>(&mut self, bytes: u64, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        if let Some(output) = poll_once(future.as_mut()).await {
            return Some(output);
        }
        let left = self.deadline.min(self.limits.time_for(bytes)).saturating_sub(self.waited);
        let began = instant();
        let output = timeout(left, future).await.ok();
        self.waited += instant().saturating_duration_since(began);
        output
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::coop::consume_budget;

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_timer_can_be_reused() {
        let mut timer = ReusableTimer::default();
        assert_eq!(timer.with_timeout(MAX_TIMEOUT, async { 1 }).await, Some(1));
        assert_eq!(timer.with_timeout(SOON, pending::<()>()).await, None);
        assert_eq!(timer.with_timeout(MAX_TIMEOUT, tokio::time::sleep(SOON)).await, Some(()));
        assert_eq!(
            timer.with_timeout(SOON, pending::<()>()).await,
            None,
            "a shorter wait behind a longer one"
        );
        assert_eq!(timer.with_timeout(Duration::MAX, tokio::time::sleep(SOON)).await, Some(()));
    }

    #[tokio::test]
    async fn a_busy_future_does_not_prevent_the_timeout() {
        let busy = async {
            loop {
                consume_budget().await;
            }
        };
        let ended: Option<()> = with_timeout(SOON, busy).await;
        assert!(ended.is_none());
    }
}

//! Deadlines that nothing renews. A timer is only set for what is not there at once: most of it is.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::clock::instant;
use crate::policy::Limits;

/// How long each write of a response may take: callers that do not read their response are not waited for.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take to close.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// Longer than anything is waited for.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// What comes of `future`, unless it takes longer than this.
pub(crate) async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    ReusableTimer::default().within(patience, future).await
}

/// The timer of a connection, kept from one wait to the next: to move it further into the future is much cheaper than
/// to make one and to take it away again.
#[derive(Default)]
pub(crate) struct ReusableTimer(Option<Pin<Box<Sleep>>>);

impl ReusableTimer {
    /// What comes of `future`, unless it takes longer than this.
    pub(crate) async fn within<F: Future>(&mut self, patience: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut is_set = false;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if !std::mem::replace(&mut is_set, true) {
                self.set(patience);
            }
            if let Some(sleep) = &mut self.0 {
                // Whatever the future has used up: a flood must not keep the time from passing.
                ready!(pin!(unconstrained(sleep.as_mut())).poll(context));
            }
            Poll::Ready(None)
        })
        .await
    }

    fn set(&mut self, patience: Duration) {
        let end = Instant::from_std(instant()) + patience.min(MAX_TIMEOUT);
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(end),
            None => self.0 = Some(Box::pin(sleep_until(end))),
        }
    }
}

/// What comes of `future` without waiting.
pub(crate) async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// How long the other side may be waited for while bytes come or go: what is slow has less time than is allowed in all.
pub(crate) struct Pace<'l> {
    limits: &'l Limits,
    deadline: Duration,
    waited: Duration,
}

impl<'l> Pace<'l> {
    /// At most for as long as `deadline` in all.
    pub(crate) fn new(limits: &'l Limits, deadline: Duration) -> Self {
        Self { limits, deadline, waited: Duration::ZERO }
    }

    /// What comes of the next step, when this many bytes have come or gone so far; `None` when they are too few for
    /// the time that was waited.
    pub(crate) async fn step<F: Future>(&mut self, bytes: u64, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        if let Some(output) = at_once(future.as_mut()).await {
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
    async fn an_alarm_goes_off_however_often_it_was_set() {
        let mut alarm = ReusableTimer::default();
        assert_eq!(alarm.within(MAX_TIMEOUT, async { 1 }).await, Some(1));
        assert_eq!(alarm.within(SOON, pending::<()>()).await, None);
        assert_eq!(alarm.within(MAX_TIMEOUT, tokio::time::sleep(SOON)).await, Some(()));
        assert_eq!(alarm.within(SOON, pending::<()>()).await, None, "a shorter wait behind a longer one");
        assert_eq!(alarm.within(Duration::MAX, tokio::time::sleep(SOON)).await, Some(()));
    }

    #[tokio::test]
    async fn a_flood_does_not_keep_the_time_from_passing() {
        let busy = async {
            loop {
                consume_budget().await;
            }
        };
        let ended: Option<()> = within(SOON, busy).await;
        assert!(ended.is_none());
    }
}

//! Deadlines that nothing renews. A timer is only set for what is not there at once: most of it is.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::clock::instant;
use crate::policy::Limits;

/// What comes of `future`, unless it takes longer than this.
pub(super) async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match at_once(future.as_mut()).await {
        Some(output) => Some(output),
        None => timeout(patience, future).await.ok(),
    }
}

/// What comes of `future` without waiting.
async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// How long the other side may be waited for while bytes come or go: what is slow has less time than is allowed in all.
pub(super) struct Pace<'l> {
    limits: &'l Limits,
    deadline: Duration,
    waited: Duration,
}

impl<'l> Pace<'l> {
    /// At most for as long as `deadline` in all.
    pub(super) fn new(limits: &'l Limits, deadline: Duration) -> Self {
        Self { limits, deadline, waited: Duration::ZERO }
    }

    /// What comes of the next step, when this many bytes have come or gone so far; `None` when they are too few for
    /// the time that was waited.
    pub(super) async fn step<F: Future>(&mut self, bytes: u64, future: F) -> Option<F::Output> {
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

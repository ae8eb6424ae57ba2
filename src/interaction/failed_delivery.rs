//! What failed deliveries change in an interaction: callbacks that the agent did not accept, and a request of the agent
//! that the provider may not have accepted.

use super::interaction::{Claim, Interaction};
use super::notice::Undelivered;
use crate::time::Timestamp;

impl Interaction {
    /// Returns the callbacks that the agent did not accept, if there were any.
    pub fn undelivered(&self) -> Option<Undelivered> {
        self.more.as_ref().and_then(|more| more.undelivered)
    }

    /// Reports whether the provider probably did not accept the request: the agent received an error, and no callback
    /// has arrived since.
    pub(super) fn is_probably_not_sent(&self) -> bool {
        let is_doubtful = self.more.as_ref().is_some_and(|more| more.is_doubtful);
        is_doubtful && self.last_event.is_none() && self.undelivered().is_none()
    }

    /// Ends a claim whose callback the agent did not accept. Restores the previous state, and counts the callback.
    pub fn fail(&mut self, claim: &Claim, now: Timestamp) {
        self.release(claim);
        let count = self.undelivered().map_or(0, |before| before.count);
        self.more().undelivered = Some(Undelivered { count: count.saturating_add(1), last: now.unix_ms() });
    }

    /// Records that the agent received an error that does not say whether the provider accepted the request.
    pub fn doubt(&mut self) {
        if self.state.is_open() {
            self.more().is_doubtful = true;
        }
    }
}

//! What failed deliveries change in an interaction: callbacks that the agent did not accept, and a request of the agent
//! that the provider may not have accepted.

use super::interaction::{Claim, Interaction};
use super::notice::{Overdue, Undelivered};
use super::state::State;
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
        self.count_undelivered(now);
    }

    fn count_undelivered(&mut self, now: Timestamp) {
        let count = self.undelivered().map_or(0, |before| before.count);
        self.more().undelivered = Some(Undelivered { count: count.saturating_add(1), last: now.unix_ms() });
    }

    /// Records that the inbox has given up a callback. The agent gets a notice, unless another one is pending, which
    /// then contains the same number.
    pub fn lose_message(&mut self, now: Timestamp) {
        self.count_undelivered(now);
        if self.notice().is_none() && self.state != State::Revoked {
            self.notice_of(Overdue::Undelivered, now.unix_ms());
        }
    }

    /// Records that the agent received an error that does not say whether the provider accepted the request.
    pub fn doubt(&mut self) {
        if self.state.is_open() {
            self.more().is_doubtful = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::{Ask, Follow, Report};
    use crate::path::{CanonicalPath, Template};

    #[test]
    fn a_callback_that_the_agent_did_not_accept_is_counted_and_changes_no_state() {
        let at = Timestamp::from_unix_secs;
        let (route, follow, report) = ("r".into(), Follow::default(), Report::default());
        let captures = Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap());
        let ask = Ask::new(&route, &captures, &follow, &report);
        let mut record = Interaction::new("r".into(), "".into(), at(1), at(1000)).limited(Some(1));
        record.doubt();
        assert!(record.undelivered().is_none() && record.is_probably_not_sent());
        for count in 1..=2 {
            let claim = record.claim(&ask, at(count), |_| false).unwrap().unwrap();
            record.fail(&claim, at(count + 10));
            let undelivered = record.undelivered().unwrap();
            assert_eq!((i64::from(undelivered.count), undelivered.last), (count, at(count + 10).unix_ms()));
            assert_eq!((record.state, record.uses_left(), record.deliveries), (State::Open, Some(1), 0));
            assert!(
                !record.is_probably_not_sent(),
                "a callback shows that the provider accepted the request"
            );
        }
        let claim = record.claim(&ask, at(3), |_| false).unwrap().unwrap();
        record.settle(&claim, &report, None, at(4), |_| 0);
        assert_eq!((record.uses_left(), record.deliveries), (Some(0), 1));
    }
}

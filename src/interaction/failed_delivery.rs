//! The effects of failed deliveries on an interaction: the agent did not accept a callback, or the provider may not
//! have accepted the agent's request.

use super::events::FailedEvent;
use super::interaction::{Claim, Interaction};
use super::notice::{InformedBy, Overdue, Undelivered};
use super::state::State;
use crate::time::Timestamp;

/// The maximum number of callbacks of one interaction for which failed attempts are counted per callback.
const FAILED_MAX: usize = 32;

impl Interaction {
    /// Returns the number of failed deliveries and the time of the last one. Returns `None` if no delivery failed.
    pub fn undelivered(&self) -> Option<Undelivered> {
        self.more.as_ref().and_then(|more| more.undelivered)
    }

    /// Reports whether the provider probably did not accept the agent's request: the agent received an error for the
    /// request, and no callback has arrived.
    pub(super) fn is_probably_not_sent(&self) -> bool {
        let is_doubtful = self.more.as_ref().is_some_and(|more| more.is_doubtful);
        is_doubtful && self.last_event.is_none() && self.undelivered().is_none()
    }

    /// Ends a claim (a callback that is being delivered) because the agent did not accept the callback. Undoes the
    /// effects of the claim on the interaction, and counts the failed delivery.
    pub fn fail(&mut self, claim: &Claim, now: Timestamp) {
        let keys = self.more().events.keys(claim.number());
        self.release(claim);
        self.count_undelivered(now);
        let failed = &mut self.more().failed;
        let count = failed.len();
        match failed.iter_mut().find(|failed| failed.is(&keys)) {
            Some(failed) => failed.attempts = failed.attempts.saturating_add(1),
            None if count < FAILED_MAX => failed.push(FailedEvent { keys, attempts: 1 }),
            None => {}
        }
    }

    /// Subtracts the failed attempts to deliver this callback from the interaction's number of failed deliveries,
    /// because the agent has now accepted the callback.
    pub(super) fn forget_failures(&mut self, claim: &Claim) {
        let Some(more) = self.more.as_mut().filter(|more| !more.failed.is_empty()) else { return };
        let keys = more.events.keys(claim.number());
        let Some(at) = more.failed.iter().position(|failed| failed.is(&keys)) else { return };
        let attempts = more.failed.swap_remove(at).attempts;
        more.undelivered = more.undelivered.and_then(|before| {
            let count = before.count.saturating_sub(attempts);
            (count > 0).then_some(Undelivered { count, ..before })
        });
    }

    /// Records that the inbox contains no waiting or dead callback of this interaction any more. Resets the number of
    /// failed deliveries. If a callback has ended the interaction, also records that the agent has received this
    /// callback.
    pub fn receive_all(&mut self, now: Timestamp) {
        if let Some(more) = self.more.as_mut().filter(|more| more.undelivered.is_some()) {
            more.undelivered = None;
            more.count_change();
        }
        if self.lacks_final_callback() {
            self.inform(InformedBy::FinalCallback, now);
        }
    }

    fn count_undelivered(&mut self, now: Timestamp) {
        let count = self.undelivered().map_or(0, |before| before.count);
        let more = self.more();
        more.undelivered = Some(Undelivered { count: count.saturating_add(1), last: now.unix_ms() });
        more.count_change();
    }

    /// Records that the inbox has given up the delivery of a callback. The agent gets a notice about this callback,
    /// unless another notice is already pending. One notice is enough, because every notice contains the number of
    /// undelivered callbacks.
    pub fn lose_message(&mut self, now: Timestamp) {
        self.count_undelivered(now);
        if self.notice().is_none() && self.state != State::Revoked {
            self.notice_of(Overdue::Undelivered, now.unix_ms());
        }
    }

    /// Records that the agent received an error for its request. The error does not show whether the provider accepted
    /// the request.
    pub fn doubt(&mut self) {
        if self.state.is_open() {
            self.more().is_doubtful = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::{Ask, EventKey, Follow, Report};
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
        assert!(record.undelivered().is_none());
    }

    #[test]
    fn only_the_attempts_of_the_accepted_callback_are_subtracted() {
        let at = Timestamp::from_unix_secs;
        let (route, follow, report) = ("r".into(), Follow::default(), Report::default());
        let captures = Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap());
        let ask = Ask::new(&route, &captures, &follow, &report);
        let mut record = Interaction::new("r".into(), "".into(), at(1), at(1000));
        let claim = |record: &mut Interaction, key: u128| {
            record.claim(&Ask { events: &[EventKey(key)], ..ask }, at(2), |_| false).unwrap().unwrap()
        };
        for (key, count) in [(1, 1), (1, 2), (3, 3)] {
            let claim = claim(&mut record, key);
            record.fail(&claim, at(3));
            assert_eq!(record.undelivered().unwrap().count, count);
        }
        for (key, count) in [(5, Some(3)), (1, Some(1)), (3, None)] {
            let claim = claim(&mut record, key);
            record.settle(&claim, &report, None, at(4), |_| 0);
            assert_eq!(record.undelivered().map(|undelivered| undelivered.count), count, "{key}");
        }
    }
}

//! The effects of time on an interaction. It expires at its deadline, and it stalls if no callback arrives for too
//! long. In both cases, the agent gets a notice.

use std::num::NonZeroI64;
use std::time::Duration;

use super::interaction::Interaction;
use super::notice::{Notice, NoticeId, NoticeResult, Overdue};
use super::state::Event;
use crate::time::Timestamp;

/// The minimum delay before an unacknowledged notice is sent again. The delay doubles with each attempt, up to
/// [`NOTICE_BACKOFF_MAX`].
const NOTICE_BACKOFF_MIN: Duration = Duration::from_secs(1);
const NOTICE_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// The delay before the deadline of an interaction is checked again while one of its callbacks is being delivered.
const IN_FLIGHT_LOOK: Duration = Duration::from_secs(1);
/// The time after which Callgate gives up a notice that the agent did not acknowledge.
const NOTICE_GIVE_UP: Duration = Duration::from_secs(86_400);

/// If an interaction ends less than this number of milliseconds after its deadline, the record does not store the time
/// of the end. Callgate then shows the deadline as the time of the end.
const LAPSE_MS_MAX: i64 = 60_000;

/// The result of [`Interaction::pass`]: whether the record of the interaction has changed, and the actions that the
/// caller must take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// Whether this call changed the record of the interaction.
    pub changed: bool,
    /// Whether this call of [`Interaction::pass`] ended the interaction because of its deadline.
    pub lapsed: bool,
    /// The notice that the caller must send now.
    pub notice: Option<NoticeId>,
    /// The cause of a notice that this call gave up because the agent did not acknowledge the notice in time.
    pub given_up: Option<Overdue>,
    /// Whether the ledger can remove the record: the interaction has ended, its token has expired, and no notice is
    /// pending.
    pub dead: bool,
}

impl Interaction {
    /// Returns the time at which [`Interaction::pass`] must be called next.
    pub fn next_look(&self, now: Timestamp) -> Timestamp {
        let notice = self.more.as_ref().and_then(|more| more.notice.as_ref());
        let notice = notice.map(|notice| if notice.in_flight { i64::MAX } else { notice.next });
        let at = match self.state.is_open() {
            true => {
                let ends = self.deadline().unix_ms().min(self.stalls_at().unwrap_or(i64::MAX));
                // A callback that is being delivered may be the final one. The interaction must not expire before the
                // delivery of this callback ends.
                let soonest = if self.in_flight == 0 { i64::MIN } else { now.plus(IN_FLIGHT_LOOK).unix_ms() };
                ends.max(soonest).min(notice.unwrap_or(i64::MAX))
            }
            false => notice.unwrap_or(self.expires),
        };
        Timestamp::from_unix_ms(at)
    }

    /// Returns the time at which the interaction ended, or `None` if it is open.
    pub fn ended_at(&self) -> Option<Timestamp> {
        let ended = self.more.as_ref().and_then(|more| more.ended);
        let at = || ended.map_or(self.deadline(), |at| Timestamp::from_unix_ms(at.get()));
        (!self.state.is_open()).then(at)
    }

    /// Applies an event to the state of the interaction. If the event ends the interaction, records `now` as the time
    /// of the end. Returns whether the event ended the interaction.
    pub fn end_by(&mut self, event: Event, now: Timestamp) -> bool {
        let ended = self.go(event);
        // If the interaction ends at about its deadline, the time of the end needs no space in the record.
        let late = now.unix_ms().saturating_sub(self.deadline().unix_ms());
        if ended && (self.more.is_some() || !(0..LAPSE_MS_MAX).contains(&late)) {
            self.more().ended = NonZeroI64::new(now.unix_ms());
        }
        ended
    }

    fn stalls_at(&self) -> Option<i64> {
        let after = self.stalled_after_ms.filter(|_| !self.stall_noticed && !self.is_probably_not_sent())?;
        let since = self.last_event.map_or(self.created, NonZeroI64::get);
        Some(since.saturating_add(i64::try_from(after.get()).unwrap_or(i64::MAX)))
    }

    /// Applies all deadlines that have passed at the time `now`. Returns what has changed, and what the caller must do.
    pub fn pass(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        let ms = now.unix_ms();
        let silent = self.state.is_open() && self.in_flight == 0;
        if silent && now >= self.deadline() && self.is_probably_not_sent() {
            // The agent needs no notice, because it has already received an error for its request.
            due.lapsed = self.end_by(Event::NotSent, now);
        } else if silent && now >= self.deadline() {
            due.lapsed = self.end_by(Event::Lapsed, now);
            self.notice_of(Overdue::Expired, ms);
        } else if silent && self.stalls_at().is_some_and(|at| at <= ms) {
            due.changed = true;
            self.stall_noticed = true;
            self.notice_of(Overdue::Stalled, ms);
        }
        due.changed |= due.lapsed;
        if let Some(notice) = self.more.as_mut().and_then(|more| more.notice.as_mut())
            && !notice.in_flight
            && notice.next <= ms
        {
            if ms.saturating_sub(notice.since) > ms_of(NOTICE_GIVE_UP) {
                due.given_up = Some(notice.cause);
                let more = self.more();
                more.notice = None;
                more.count_change();
                due.changed = true;
            } else {
                notice.in_flight = true;
                due.notice = Some(notice.id());
            }
        }
        due.dead = !self.state.is_open() && self.notice().is_none() && now >= self.expires();
        due
    }

    /// Reports whether this notice is still pending: the agent has not acknowledged it, and Callgate has not given it
    /// up.
    pub fn owes(&self, id: NoticeId) -> bool {
        let notice = self.more.as_ref().and_then(|more| more.notice.as_ref());
        notice.is_some_and(|notice| notice.id() == id)
    }

    /// Returns the number of failed attempts to deliver the pending notice.
    pub fn notice_attempts(&self) -> u32 {
        let notice = self.more.as_ref().and_then(|more| more.notice.as_ref());
        notice.map_or(0, |notice| notice.attempts)
    }

    pub(super) fn notice_of(&mut self, cause: Overdue, since: i64) {
        if self.notifies {
            let more = self.more();
            more.notice = Some(Notice { cause, since, attempts: 0, next: since, in_flight: false });
            more.count_change();
        }
    }

    /// Marks the pending notice as being sent. The caller has read the record from the shared store, and the record
    /// states that a process is sending the notice.
    pub(super) fn resume_notice(&mut self) {
        if let Some(notice) = self.more.as_mut().and_then(|more| more.notice.as_mut()) {
            notice.in_flight = true;
        }
    }

    /// Ends an attempt to send the pending notice, because the result of the attempt is unknown. The notice is sent
    /// again.
    pub(super) fn end_notice_attempt(&mut self) {
        if let Some(notice) = self.more.as_mut().and_then(|more| more.notice.as_mut()) {
            notice.reset();
        }
    }

    /// Records the result of an attempt to send a notice.
    pub fn noticed(&mut self, id: NoticeId, result: NoticeResult, now: Timestamp) {
        let Some(more) = &mut self.more else { return };
        match &mut more.notice {
            Some(notice) if notice.id() == id && result != NoticeResult::Failed => {
                more.notice = None;
                more.count_change();
                if result == NoticeResult::Accepted {
                    self.inform(id.cause.into(), now);
                }
            }
            Some(notice) if notice.id() == id => {
                let wait = NOTICE_BACKOFF_MIN.saturating_mul(1 << notice.attempts.min(16));
                notice.attempts = notice.attempts.saturating_add(1);
                notice.next = now.plus(wait.min(NOTICE_BACKOFF_MAX)).unix_ms();
                notice.in_flight = false;
            }
            _ => {}
        }
    }
}

fn ms_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::{Follow, State};

    #[test]
    fn an_answer_to_an_older_silence_is_none_to_the_newer_one() {
        let at = Timestamp::from_unix_secs;
        let follow = Follow { stalled_after: Some(Duration::from_secs(10)), ..Follow::default() };
        let record = Interaction::new("r".into(), "".into(), at(1), at(1000));
        let mut record = record.followed(&follow, true);
        let first = record.pass(at(11)).notice.unwrap();
        assert_eq!(record.pass(at(12)).notice, None, "it is under way");
        // The fields are set as if a callback had arrived at second 13. Then no callback arrives for ten seconds.
        record.stall_noticed = false;
        record.last_event = NonZeroI64::new(at(13).unix_ms());
        let second = record.pass(at(23)).notice.unwrap();
        assert_ne!(first, second);
        assert!(record.owes(second) && !record.owes(first));
        record.noticed(first, NoticeResult::Accepted, at(24));
        assert_eq!(record.notice(), Some(Overdue::Stalled), "the second was not answered");
        record.noticed(second, NoticeResult::Failed, at(24));
        assert_eq!(record.pass(at(25)).notice, Some(second));
        assert!(record.owes(second));
        record.noticed(second, NoticeResult::Accepted, at(26));
        assert_eq!(record.notice(), None);
        assert!(!record.owes(second));
    }

    #[test]
    fn a_stall_causes_one_notice_and_none_if_the_request_was_probably_not_sent() {
        let at = Timestamp::from_unix_secs;
        let follow = Follow { stalled_after: Some(Duration::from_secs(10)), ..Follow::default() };
        let record = || Interaction::new("r".into(), "".into(), at(1), at(1000)).followed(&follow, true);
        let mut once = record();
        assert_eq!((once.next_look(at(2)), once.pass(at(10)).notice), (at(11), None));
        let notice = once.pass(at(11)).notice.unwrap();
        assert_eq!(notice.cause, Overdue::Stalled);
        once.noticed(notice, NoticeResult::Accepted, at(12));
        assert_eq!((once.next_look(at(12)), once.pass(at(999)).notice), (at(1000), None));
        assert_eq!(once.pass(at(1000)).notice.unwrap().cause, Overdue::Expired);
        let mut never = record();
        never.doubt();
        assert_eq!((never.next_look(at(2)), never.pass(at(999))), (at(1000), Due::default()));
        let due = never.pass(at(1000));
        assert_eq!((due.lapsed, due.notice, never.state), (true, None, State::NotSent));
    }

    #[test]
    fn a_notice_is_given_up_on_after_a_day_and_backs_off_until_then() {
        let at = Timestamp::from_unix_secs;
        let mut record =
            Interaction::new("r".into(), "".into(), at(1), at(100)).followed(&Follow::default(), true);
        let (mut now, mut tries) = (at(100), 0);
        loop {
            let due = record.pass(now);
            if due.given_up.is_some() {
                assert!(due.dead);
                break;
            }
            record.noticed(due.notice.unwrap(), NoticeResult::Failed, now);
            tries += 1;
            now = record.next_look(now);
        }
        assert!((280..320).contains(&tries), "{tries}");
        assert!(now > at(100).plus(NOTICE_GIVE_UP));
    }
}

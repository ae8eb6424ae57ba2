//! The delivered events of an interaction, as its record stores them, and the times at which the agent accepted
//! callbacks and notices.

use super::ask::EventKey;
use super::interaction::Interaction;
use super::notice::{Informed, InformedBy};
use super::state::State;
use crate::time::Timestamp;

/// The maximum number of accepted callbacks and notices whose times the record of an interaction stores for display.
const INFORMED_MAX: usize = 8;

impl Interaction {
    /// Returns the last callbacks and notices that the agent has accepted, oldest first. The list is empty in records
    /// that earlier versions of Callgate wrote.
    pub fn informed(&self) -> &[Informed] {
        self.more.as_ref().map_or(&[], |more| &more.informed)
    }

    /// Returns the time at which the agent accepted the final callback or the notice about the expiry. Returns `None`
    /// if the agent has accepted neither, or if the record does not contain the time.
    pub fn informed_at(&self) -> Option<Timestamp> {
        self.informed().iter().rev().find(|informed| informed.by.is_end()).map(|informed| informed.at())
    }

    /// Records that the agent has accepted a callback or a notice.
    pub fn inform(&mut self, by: InformedBy, now: Timestamp) {
        let more = self.more();
        more.count_change();
        let informed = &mut more.informed;
        if informed.len() >= INFORMED_MAX {
            // The entry about the end of the interaction stays in the list, even if many late callbacks follow.
            let oldest = informed.iter().position(|one| !one.by.is_end()).unwrap_or_default();
            informed.remove(oldest);
        }
        let last = informed.last().map_or(i64::MIN, |informed| informed.at);
        informed.push(Informed { by, at: last.max(now.unix_ms()) });
    }

    /// Reports whether a callback has ended the interaction, but the agent has not accepted this callback yet. This is
    /// the case while the callback waits in the inbox.
    pub fn lacks_final_callback(&self) -> bool {
        matches!(self.state, State::Done | State::Failed) && self.informed_at().is_none()
    }
}

impl Interaction {
    /// Restores a claim (a callback that is being delivered) from the record of an interaction that several processes
    /// share. Returns the number of the claim.
    pub(super) fn resume_claim(&mut self, events: &[EventKey]) -> u32 {
        self.in_flight = self.in_flight.saturating_add(1);
        self.more().events.claim(events.iter())
    }

    /// Adds the fingerprint of a delivered event that was read from the file of the ledger.
    pub fn restore_event(&mut self, fingerprint: u64) {
        self.more().events.restore(fingerprint);
    }

    /// Returns the fingerprints of the delivered events. The ledger forgets old events, so it may not contain all of
    /// these events any more.
    pub fn delivered_events(&self) -> &[u64] {
        self.more.as_ref().map_or(&[], |more| more.events.delivered())
    }

    /// Removes the fingerprints of events that the ledger has forgotten. Does nothing unless the list of fingerprints
    /// is long and its allocated memory is full. `is_known` reports whether the ledger still remembers an event.
    pub fn prune_events(&mut self, is_known: impl Fn(u64) -> bool) {
        if let Some(more) = &mut self.more {
            more.events.prune(is_known);
        }
    }

    /// Reports whether [`Interaction::forget_events`] has removed the fingerprints of the delivered events.
    pub fn has_forgotten_events(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.events_forgotten)
    }

    /// Removes and returns the fingerprints of the delivered events, if the interaction has ended. Afterwards, the
    /// interaction accepts no callback, because the ledger could no longer recognize duplicates.
    pub fn forget_events(&mut self) -> Vec<u64> {
        match &mut self.more {
            Some(more) if !self.state.is_open() => {
                more.events_forgotten = true;
                more.events.take()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::interaction::{Ask, ClaimError, Event, Follow, Report, Stale};
    use crate::path::{CanonicalPath, Template};
    use crate::time::Timestamp;

    #[test]
    fn the_end_stays_known_however_many_late_callbacks_follow() {
        let at = Timestamp::from_unix_secs;
        let mut record = Interaction::new("r".into(), "".into(), at(1), at(1000));
        record.inform(InformedBy::Callback, at(2));
        assert!(record.informed_at().is_none() && !record.lacks_final_callback());
        record.go(Event::Completed);
        assert!(record.lacks_final_callback());
        record.inform(InformedBy::FinalCallback, at(3));
        for late in 4..40 {
            record.inform(InformedBy::Callback, at(late));
        }
        assert_eq!(record.informed().len(), INFORMED_MAX);
        let text = serde_json::to_string(&record).unwrap();
        for record in [record, serde_json::from_str(&text).unwrap()] {
            assert_eq!(record.informed_at(), Some(at(3)));
            assert_eq!(record.informed().last().map(|one| one.at()), Some(at(39)));
        }
        // In a record that an earlier version of Callgate wrote, the list of accepted callbacks is missing.
        let old = Interaction::new("r".into(), "".into(), at(1), at(1000));
        let text = serde_json::to_string(&old.matched()).unwrap();
        assert!(!text.contains("informed"), "{text}");
        assert!(serde_json::from_str::<Interaction>(&text).unwrap().informed().is_empty());
    }

    #[test]
    fn late_progress_is_not_delivered_once_the_events_are_forgotten() {
        let (now, route) = (Timestamp::from_unix_secs(1000), Arc::from("r"));
        let path = CanonicalPath::parse("/a").unwrap();
        let captures = Template::parse("/a").unwrap().capture(&path);
        let follow = Follow { stale: Some(Stale::Deliver), ..Follow::default() };
        let report = Report { progress: Some(1.0), ..Report::default() };
        let ask = Ask { events: &[EventKey(1)], ..Ask::new(&route, &captures, &follow, &report) };
        let expires = now.plus(Duration::from_secs(60));
        let mut record = Interaction::new(Arc::clone(&route), "".into(), now, expires);
        let claim = record.claim(&ask, now, |_| false).unwrap().unwrap();
        record.settle(&claim, &report, None, now, |_| 7);
        assert!(record.forget_events().is_empty(), "the interaction is open");
        record.go(Event::Completed);
        let late = record.claim(&ask, now, |_| false).unwrap().unwrap();
        assert!(late.stale, "another event is delivered");
        record.release(&late);
        assert_eq!(record.forget_events(), [7]);
        let text = serde_json::to_string(&record).unwrap();
        for mut record in [record, serde_json::from_str(&text).unwrap()] {
            let Err(ClaimError::Refused(refusal)) = record.claim(&ask, now, |_| false) else {
                panic!("delivered again");
            };
            assert_eq!(refusal.denial.code(), "interaction_over");
        }
    }
}

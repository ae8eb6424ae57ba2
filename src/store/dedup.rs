//! The events that belong to no interaction: the delivered events, and the events that are being delivered.

use std::collections::HashSet;

use super::event_memory::{EventLog, FingerprintKey, LoggedEvent};
use crate::interaction::{EventKey, EventState};

/// The number of hash tables of the event index. Callbacks wait while a table grows. The growth of each table is short,
/// because there are many small tables.
const TABLES: usize = 64;

/// The delivered and the claimed events that belong to no interaction.
#[derive(Debug)]
pub(super) struct Dedup {
    pub(super) log: EventLog,
    delivering: HashSet<EventKey>,
    key: FingerprintKey,
}

impl Dedup {
    pub(super) fn new(key: FingerprintKey) -> Self {
        Self { log: EventLog::new(TABLES), delivering: HashSet::new(), key }
    }

    /// Claims an event with these keys, unless one of the keys was already delivered or claimed. An earlier
    /// delivery is ignored if its time is `since` (Unix seconds) or before. Returns the state of the event before the claim.
    pub(super) fn claim(&mut self, keys: &[EventKey], since: i64) -> EventState {
        let delivered = |key: &EventKey| self.log.get(self.key.fingerprint("", *key));
        if keys.iter().filter_map(delivered).any(|event| i64::from(event.delivered) > since) {
            return EventState::Delivered;
        }
        if keys.iter().any(|key| self.delivering.contains(key)) {
            return EventState::Delivering;
        }
        self.delivering.extend(keys);
        EventState::Unknown
    }

    /// Releases the claim of an event with these keys.
    pub(super) fn release(&mut self, keys: &[EventKey]) {
        for key in keys {
            self.delivering.remove(key);
        }
    }

    /// Ends the claim of a key, and records the event with this key as delivered. Returns the recorded event. Also
    /// returns the earlier event with the same fingerprint, if there was one. The recorded event has replaced it.
    pub(super) fn settle(
        &mut self,
        key: EventKey,
        delivered: u32,
        window: u32,
        number: u64,
    ) -> (LoggedEvent, Option<LoggedEvent>) {
        self.delivering.remove(&key);
        let fingerprint = self.key.fingerprint("", key);
        let event = LoggedEvent { fingerprint, delivered, window, number };
        (event, self.log.insert(event))
    }

    /// Removes one event that was delivered at `since` (Unix seconds) or before. Returns the removed event.
    pub(super) fn expire(&mut self, since: i64) -> Option<LoggedEvent> {
        let oldest = self.log.fronts().find(|event| i64::from(event.delivered) <= since)?;
        self.log.remove(oldest.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_until_its_retention_is_over() {
        let mut dedup = Dedup::new(FingerprintKey([1, 2]));
        let (one, other) = (EventKey(1), EventKey(2));
        assert_eq!(dedup.claim(&[one], 0), EventState::Unknown);
        assert_eq!(dedup.claim(&[one, other], 0), EventState::Delivering);
        dedup.release(&[one]);
        assert_eq!(dedup.claim(&[one], 0), EventState::Unknown);
        assert_eq!(dedup.settle(one, 100, 0, 1).1, None);
        assert_eq!(dedup.claim(&[other, one], 99), EventState::Delivered);
        assert_eq!(dedup.claim(&[one], 100), EventState::Unknown, "its retention is over");
        let (event, former) = dedup.settle(one, 200, 0, 2);
        assert_eq!((event.number, former.map(|event| event.number)), (2, Some(1)));
        assert_eq!(dedup.expire(100), None);
        assert_eq!(dedup.expire(200).map(|event| event.number), Some(2));
        assert_eq!(dedup.log.len(), 0);
    }
}

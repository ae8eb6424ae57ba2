//! The delivered events without an interaction. All of them are retained for the same time, so they form a queue in the
//! order of their delivery. When the queue is full, the oldest events are removed.

use std::collections::{HashMap, VecDeque};

use crate::interaction::{EventKey, EventState};
use crate::time::Timestamp;

/// The state of a known event.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// The event was delivered. The fields are the end of its retention and its number in the file.
    Delivered(Timestamp, u64),
    /// The event is being delivered.
    InFlight,
}

/// The delivered events without an interaction, and the claims on such events.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    marks: HashMap<EventKey, Mark>,
    queue: VecDeque<(Timestamp, EventKey, u64)>,
}

impl Dedup {
    /// Returns the number of delivered events.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns all delivered events with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (Timestamp, EventKey, u64)> {
        self.queue.iter().copied()
    }

    /// Claims an event with these keys, unless one of the keys is already known. Returns the state before the claim.
    pub(super) fn claim(&mut self, keys: &[EventKey], now: Timestamp) -> EventState {
        let mut known = EventState::Unknown;
        for key in keys {
            match self.marks.get(key) {
                Some(Mark::Delivered(until, _)) if *until > now => return EventState::Delivered,
                Some(Mark::InFlight) => known = EventState::Delivering,
                Some(Mark::Delivered(..)) | None => {}
            }
        }
        if known == EventState::Unknown {
            for key in keys {
                self.marks.insert(*key, Mark::InFlight);
            }
        }
        known
    }

    /// Releases a claim.
    pub(super) fn release(&mut self, keys: &[EventKey]) {
        for key in keys {
            if matches!(self.marks.get(key), Some(Mark::InFlight)) {
                self.marks.remove(key);
            }
        }
    }

    /// Records a delivered event, which is retained until `until`.
    pub(super) fn remember(&mut self, key: EventKey, until: Timestamp, number: u64) {
        self.marks.insert(key, Mark::Delivered(until, number));
        self.queue.push_back((until, key, number));
    }

    /// Removes the oldest event if its retention is over, or if there are more than `max` events. Returns its number, and
    /// whether it was removed before the end of its retention.
    pub(super) fn forget(&mut self, now: Timestamp, max: usize) -> Option<(u64, bool)> {
        let (until, key, number) = self.queue.front().copied()?;
        let over = until <= now;
        if !over && self.queue.len() <= max {
            return None;
        }
        self.queue.pop_front();
        // The same event may have been delivered again under a later number.
        if matches!(self.marks.get(&key), Some(Mark::Delivered(_, known)) if *known == number) {
            self.marks.remove(&key);
        }
        Some((number, !over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_removes_the_oldest_event() {
        let (mut dedup, now) = (Dedup::default(), Timestamp::from_unix_secs(0));
        let until = Timestamp::from_unix_secs(100);
        for i in 0..5 {
            assert_eq!(dedup.claim(&[EventKey(i)], now), EventState::Unknown);
            dedup.remember(EventKey(i), until, u64::try_from(i).unwrap());
            while let Some((number, made_room)) = dedup.forget(now, 3) {
                assert!(made_room && number + 3 == u64::try_from(i).unwrap());
            }
        }
        assert_eq!(dedup.claim(&[EventKey(4)], now), EventState::Delivered);
        assert_eq!(dedup.claim(&[EventKey(0)], now), EventState::Unknown);
        assert_eq!(dedup.claim(&[EventKey(0), EventKey(9)], now), EventState::Delivering);
        dedup.release(&[EventKey(0)]);
        assert_eq!(dedup.forget(until, 3), Some((2, false)));
        assert_eq!(dedup.claim(&[EventKey(4)], until), EventState::Unknown, "its retention is over");
    }
}

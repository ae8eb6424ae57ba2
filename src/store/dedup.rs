//! The delivered events whose token names no interaction. They are few or many, but each is kept for the same time:
//! a queue in the order in which they came, and the oldest ones make room.

use std::collections::{HashMap, VecDeque};

use crate::interaction::{EventKey, EventState};
use crate::time::Timestamp;

/// An event that is known.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// Delivered, and remembered until then; the file has it under this number.
    Delivered(Timestamp, u64),
    /// Being delivered.
    InFlight,
}

#[derive(Debug, Default)]
pub(super) struct Dedup {
    marks: HashMap<EventKey, Mark>,
    queue: VecDeque<(Timestamp, EventKey, u64)>,
}

impl Dedup {
    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// All that are remembered, with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (Timestamp, EventKey, u64)> {
        self.queue.iter().copied()
    }

    /// Claims an event that goes by these keys, unless it is known by any of them.
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

    pub(super) fn release(&mut self, keys: &[EventKey]) {
        for key in keys {
            if matches!(self.marks.get(key), Some(Mark::InFlight)) {
                self.marks.remove(key);
            }
        }
    }

    /// Remembers a delivered event until then.
    pub(super) fn remember(&mut self, key: EventKey, until: Timestamp, number: u64) {
        self.marks.insert(key, Mark::Delivered(until, number));
        self.queue.push_back((until, key, number));
    }

    /// Forgets the oldest one if its time is over, or if there are more than `max`. Returns its number, and whether it
    /// had to make room.
    pub(super) fn forget(&mut self, now: Timestamp, max: usize) -> Option<(u64, bool)> {
        let (until, key, number) = self.queue.front().copied()?;
        let over = until <= now;
        if !over && self.queue.len() <= max {
            return None;
        }
        self.queue.pop_front();
        // The same event may have been delivered again, and be known under a later number.
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
    fn the_oldest_makes_room_and_never_the_newest() {
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
        assert_eq!(dedup.claim(&[EventKey(4)], until), EventState::Unknown, "its time is over");
    }
}

//! A compact memory of delivered events. An event takes about 24 bytes: 16 bytes in a queue and 7 to 8 bytes in the
//! index (`index.rs`).
//!
//! When room is needed, the events whose replay would be denied are removed first. A replay is denied if its signature
//! is too old. If there are no such events, the oldest event is removed.
//!
//! The log has one queue for each replay window. The replay window of an event is the time after its delivery during
//! which a replay may pass the signature check. Each queue is in the order of delivery, so that the event to remove is
//! at the front of a queue.

use std::collections::VecDeque;

use super::index::{EventIndex, Position};

/// The replay windows of the queues, in seconds. The replay window of an event is the time after its delivery during
/// which a replay may pass the signature check. It is rounded up to a value of this list. A longer window, or no limit,
/// counts as [`WINDOW_MAX`]. The index of a value in this list is the number of its queue.
pub(super) const WINDOWS: [u32; 7] = [0, 300, 600, 1800, 3600, 6 * 3600, WINDOW_MAX];
/// The longest replay window: one day, in seconds.
pub(in crate::store) const WINDOW_MAX: u32 = 86_400;

/// The number of bits for the offset of an event in its chunk. They are the lowest bits of a [`Position`].
const PLACE_BITS: u32 = 9;
/// The number of events in a chunk.
const CHUNK: usize = 1 << PLACE_BITS;
/// The number of bits for the number of a chunk. In a [`Position`], these bits are above the offset of the event and
/// below the number of the queue.
const CHUNK_BITS: u32 = 20;
const CHUNK_MASK: u32 = (1 << CHUNK_BITS) - 1;

/// A delivered event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) struct LoggedEvent {
    /// The keyed hash of the event's key and of the id of its interaction. The hash is never 0.
    pub(in crate::store) fingerprint: u64,
    /// The time of the delivery, in Unix seconds.
    pub(in crate::store) delivered: u32,
    /// The replay window in seconds: the time after the delivery during which a replay may pass the signature check.
    pub(in crate::store) window: u32,
    /// The number of the event, which is its key in the ledger's file.
    pub(in crate::store) number: u64,
}

/// Two times of a log, in Unix seconds: the earliest end of a replay window, and the earliest delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) struct Oldest {
    /// The earliest time from which the replay of an event is denied.
    replayable_until: u32,
    /// The time of the earliest delivery.
    delivered: u32,
}

impl Oldest {
    /// The value for a log without events.
    pub(in crate::store) const NONE: Self = Self { replayable_until: u32::MAX, delivered: u32::MAX };
    /// The value with the lowest possible rank. Events of a log with this value are removed before the events of other
    /// logs.
    pub(in crate::store) const FIRST: Self = Self { replayable_until: 0, delivered: 0 };

    pub(super) fn of(event: &LoggedEvent) -> Self {
        Self { replayable_until: event.replayable_until(), delivered: event.delivered }
    }

    /// Returns the rank of these two times at `now` (Unix seconds). When room is needed, the event with the lowest rank
    /// is removed first. If the replay of an event is denied, the event has a lower rank than every event whose replay
    /// may pass.
    pub(in crate::store) fn rank(self, now: u32) -> (bool, u32) {
        match self.replayable_until <= now {
            true => (false, self.replayable_until),
            false => (true, self.delivered),
        }
    }

    /// Returns both times as one number, which can be stored in an atomic.
    pub(in crate::store) fn to_bits(self) -> u64 {
        u64::from(self.replayable_until) << 32 | u64::from(self.delivered)
    }

    pub(in crate::store) fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
        Self {
            replayable_until: u32::from_be_bytes([a, b, c, d]),
            delivered: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

/// An event in its chunk. The fingerprint of a removed event is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    fingerprint: u64,
    delivered: u32,
    /// The number of the event in the file, minus the number of the first event in the chunk.
    number: u32,
}

#[derive(Debug)]
struct Chunk {
    number: u64,
    entries: Vec<Entry>,
}

/// The events with the same replay window, in the order of delivery.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// The number of the queue's first chunk.
    first: u32,
    /// The number of removed entries at the beginning of the first chunk.
    gone: usize,
    /// The number of entries that were not removed.
    len: usize,
}

/// The progress of reading all events of a log with [`EventLog::next_events`].
#[derive(Debug, Default)]
pub(in crate::store) struct EventPlace {
    queue: usize,
    /// All events in this queue with a lower number were read.
    number: u64,
}

/// The log of delivered events.
#[derive(Debug)]
pub(in crate::store) struct EventLog {
    queues: [Queue; WINDOWS.len()],
    index: EventIndex,
}

/// Rounds a replay window of this number of seconds up to a value in [`WINDOWS`]. Returns the longest value if the
/// window is longer.
pub(in crate::store) fn window_of(seconds: u32) -> u32 {
    WINDOWS.into_iter().find(|window| *window >= seconds).unwrap_or(WINDOW_MAX)
}

impl LoggedEvent {
    /// Creates an event from `replayable_until`, the time from which a replay is denied, in Unix seconds. The time of
    /// the delivery is not known, but it is at or before `latest`. The event gets the shortest replay window with which
    /// the computed time of the delivery is not later than `latest`.
    pub(in crate::store) fn restored(
        fingerprint: u64,
        replayable_until: u32,
        latest: u32,
        number: u64,
    ) -> Self {
        let is_possible = |window: &u32| replayable_until.saturating_sub(*window) <= latest;
        let window = WINDOWS.into_iter().find(is_possible).unwrap_or(WINDOW_MAX);
        // Earlier versions of Callgate stored values of `replayable_until` that are so far in the future that no window
        // is long enough. The delivery is then assumed at `latest`.
        let delivered = replayable_until.saturating_sub(window).min(latest);
        Self { fingerprint, delivered, window, number }
    }

    /// Returns the time from which a replay of this event is denied, in Unix seconds.
    pub(in crate::store) fn replayable_until(&self) -> u32 {
        self.delivered.saturating_add(self.window)
    }
}

impl EventLog {
    /// Creates an empty log whose index has this number of tables.
    pub(in crate::store) fn new(tables: usize) -> Self {
        Self { queues: Default::default(), index: EventIndex::new(tables) }
    }

    /// Creates an empty log in which the numbers of chunks begin again with 0 after this number of chunks.
    #[cfg(test)]
    pub(super) fn ending_after(chunks: u32) -> Self {
        let mut log = Self::new(1);
        log.queues.iter_mut().for_each(|queue| queue.first = 0_u32.wrapping_sub(chunks) & CHUNK_MASK);
        log
    }

    /// Returns the number of events.
    #[cfg(test)]
    pub(in crate::store) fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.len).sum()
    }

    /// Returns the number of chunks.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.queues.iter().map(|queue| queue.chunks.len()).sum()
    }

    /// Returns the event with this fingerprint.
    pub(in crate::store) fn get(&self, fingerprint: u64) -> Option<LoggedEvent> {
        event(&self.queues, self.index.find(fingerprint, at(&self.queues))?)
    }

    /// Adds an event. If the log has an earlier event with the same fingerprint, removes and returns the earlier event.
    pub(in crate::store) fn insert(&mut self, event: LoggedEvent) -> Option<LoggedEvent> {
        let former = self.remove(event.fingerprint);
        let window = window_of(event.window);
        let number = WINDOWS.iter().position(|of_queue| *of_queue == window).unwrap_or(WINDOWS.len() - 1);
        if let Some(queue) = self.queues.get_mut(number) {
            let position = position(number, queue.push(&event));
            self.index.insert(event.fingerprint, position, at(&self.queues));
        }
        former
    }

    /// Removes and returns the event with this fingerprint.
    pub(in crate::store) fn remove(&mut self, fingerprint: u64) -> Option<LoggedEvent> {
        let position = self.index.remove(fingerprint, at(&self.queues))?;
        let removed = event(&self.queues, position);
        let number = queue_of(position);
        let queue = self.queues.get_mut(number)?;
        queue.clear(position);
        queue.trim();
        if queue.is_sparse() {
            self.compact(number);
        }
        removed
    }

    /// Returns the event that must be removed first when room is needed at `now` (Unix seconds).
    pub(in crate::store) fn first_to_go(&self, now: u32) -> Option<LoggedEvent> {
        self.fronts().min_by_key(|event| Oldest::of(event).rank(now))
    }

    /// Returns the earliest end of a replay window and the earliest delivery of all events.
    pub(in crate::store) fn oldest(&self) -> Oldest {
        self.fronts().map(|event| Oldest::of(&event)).fold(Oldest::NONE, |one, other| Oldest {
            replayable_until: one.replayable_until.min(other.replayable_until),
            delivered: one.delivered.min(other.delivered),
        })
    }

    /// Returns the oldest event of each queue.
    pub(in crate::store) fn fronts(&self) -> impl Iterator<Item = LoggedEvent> {
        let fronts = self.queues.iter().zip(WINDOWS);
        fronts.filter_map(|(queue, window)| queue.chunks.front()?.event(queue.gone, window))
    }

    /// Returns the next events, at most `max`, and moves `place` behind them. Returns an empty list after the last
    /// event. The events must have been added to the log in the order of their numbers. The log may change between two
    /// calls.
    pub(in crate::store) fn next_events(&self, place: &mut EventPlace, max: usize) -> Vec<LoggedEvent> {
        let mut events = Vec::new();
        while let (Some(queue), Some(window)) = (self.queues.get(place.queue), WINDOWS.get(place.queue)) {
            events.extend(queue.from(place.number, *window).take(max.saturating_sub(events.len())));
            if events.len() >= max {
                place.number = events.last().map_or(0, |last| last.number.saturating_add(1));
                break;
            }
            *place = EventPlace { queue: place.queue + 1, number: 0 };
        }
        events
    }

    /// Rebuilds a queue without its removed entries.
    fn compact(&mut self, number: usize) {
        let (Some(queue), Some(window)) = (self.queues.get_mut(number), WINDOWS.get(number)) else { return };
        let first = queue.first.wrapping_add(u32::try_from(queue.chunks.len()).unwrap_or(0)) & CHUNK_MASK;
        let former = std::mem::replace(queue, Queue { first, ..Queue::default() });
        for (chunk, chunk_number) in former.chunks.iter().zip(0..) {
            for (place, offset) in (0..chunk.entries.len()).zip(0..) {
                let Some(event) = chunk.event(place, *window) else { continue };
                let from = position(number, (former.first.wrapping_add(chunk_number), offset));
                let to = position(number, queue.push(&event));
                self.index.replace(event.fingerprint, from, to);
            }
        }
    }
}

impl Chunk {
    /// Returns the event at this index of the chunk, unless the event was removed.
    fn event(&self, place: usize, window: u32) -> Option<LoggedEvent> {
        let entry = self.entries.get(place).filter(|entry| entry.fingerprint != 0)?;
        let Entry { fingerprint, delivered, number } = *entry;
        Some(LoggedEvent {
            fingerprint,
            delivered,
            window,
            number: self.number.saturating_add(number.into()),
        })
    }
}

impl Queue {
    /// Adds an event to the queue. Returns the number of the event's chunk, and the offset in the chunk.
    fn push(&mut self, event: &LoggedEvent) -> (u32, u32) {
        let number = |chunk: &Chunk| u32::try_from(event.number.checked_sub(chunk.number)?).ok();
        let last = self.chunks.back().filter(|chunk| chunk.entries.len() < CHUNK);
        let number = last.and_then(number).unwrap_or_else(|| {
            self.chunks.push_back(Chunk { number: event.number, entries: Vec::new() });
            0
        });
        let last = u32::try_from(self.chunks.len()).unwrap_or(0).wrapping_sub(1);
        let place = self.chunks.back_mut().map_or(0, |chunk| {
            let (fingerprint, delivered) = (event.fingerprint, event.delivered);
            chunk.entries.push(Entry { fingerprint, delivered, number });
            chunk.entries.len() - 1
        });
        self.len += 1;
        (self.first.wrapping_add(last), u32::try_from(place).unwrap_or(0))
    }

    /// Returns the events whose number is at least `number`.
    fn from(&self, number: u64, window: u32) -> impl Iterator<Item = LoggedEvent> {
        let first = self.chunks.partition_point(|chunk| chunk.number <= number).saturating_sub(1);
        let chunks = self.chunks.iter().skip(first);
        chunks
            .flat_map(move |chunk| (0..chunk.entries.len()).filter_map(move |i| chunk.event(i, window)))
            .filter(move |event| event.number >= number)
    }

    fn entry(&self, position: Position) -> Option<(&Chunk, usize)> {
        let chunk = (position >> PLACE_BITS).wrapping_sub(self.first) & CHUNK_MASK;
        let place = position & ((1 << PLACE_BITS) - 1);
        Some((self.chunks.get(usize::try_from(chunk).ok()?)?, usize::try_from(place).ok()?))
    }

    fn clear(&mut self, position: Position) {
        let chunk = (position >> PLACE_BITS).wrapping_sub(self.first) & CHUNK_MASK;
        let place = position & ((1 << PLACE_BITS) - 1);
        let chunk = usize::try_from(chunk).ok().and_then(|chunk| self.chunks.get_mut(chunk));
        let entry = chunk.and_then(|chunk| chunk.entries.get_mut(usize::try_from(place).ok()?));
        if let Some(entry) = entry.filter(|entry| entry.fingerprint != 0) {
            entry.fingerprint = 0;
            self.len -= 1;
        }
    }

    /// Frees the removed entries at the beginning of the queue.
    fn trim(&mut self) {
        while let Some(chunk) = self.chunks.front() {
            match chunk.entries.get(self.gone) {
                Some(entry) if entry.fingerprint != 0 => return,
                Some(_) => self.gone += 1,
                None => {
                    self.chunks.pop_front();
                    self.first = self.first.wrapping_add(1) & CHUNK_MASK;
                    self.gone = 0;
                }
            }
        }
    }

    /// Reports whether most entries of the queue were removed.
    fn is_sparse(&self) -> bool {
        self.chunks.len() > 4 + 2 * self.len.div_ceil(CHUNK)
    }
}

fn position(queue: usize, (chunk, place): (u32, u32)) -> Position {
    let queue = u32::try_from(queue).unwrap_or(0);
    queue << (CHUNK_BITS + PLACE_BITS) | (chunk & CHUNK_MASK) << PLACE_BITS | place
}

fn queue_of(position: Position) -> usize {
    usize::try_from(position >> (CHUNK_BITS + PLACE_BITS)).unwrap_or(usize::MAX)
}

fn event(queues: &[Queue], position: Position) -> Option<LoggedEvent> {
    let number = queue_of(position);
    let (chunk, place) = queues.get(number)?.entry(position)?;
    chunk.event(place, *WINDOWS.get(number)?)
}

/// Returns a function that reads the fingerprint at a position of the log.
fn at(queues: &[Queue]) -> impl Fn(Position) -> Option<u64> {
    |position| {
        let (chunk, place) = queues.get(queue_of(position))?.entry(position)?;
        chunk.entries.get(place).map(|entry| entry.fingerprint)
    }
}

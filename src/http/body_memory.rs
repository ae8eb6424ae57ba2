//! Limits the total memory of all request bodies and all HTTP/2 heads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of the bytes that all request bodies and all HTTP/2 heads have reserved.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyMemory {
    bytes: Arc<AtomicU64>,
}

/// The memory that is reserved for one body or head. Dropping this value releases the memory.
#[derive(Debug)]
pub(crate) struct MemoryReservation {
    whole: BoundedMemory,
    /// A second limit, for the bodies of the requests to one agent. `None` if only the limit for all requests applies.
    share: Option<BoundedMemory>,
    bytes: u64,
}

/// A counter of reserved bytes, and the maximum of this counter.
#[derive(Debug)]
struct BoundedMemory {
    memory: BodyMemory,
    max: u64,
}

impl BoundedMemory {
    /// Adds `more` to the number of reserved bytes. If the maximum would be exceeded, changes nothing and returns
    /// false.
    fn add(&self, more: u64) -> bool {
        let before = self.memory.bytes.fetch_add(more, Ordering::SeqCst);
        let fits = before.saturating_add(more) <= self.max;
        if !fits {
            self.remove(more);
        }
        fits
    }

    fn remove(&self, bytes: u64) {
        self.memory.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn has_room(&self, more: u64) -> bool {
        self.memory.bytes().saturating_add(more) <= self.max
    }
}

impl BodyMemory {
    /// Creates an empty reservation. It can grow as long as all reservations together do not exceed `max` bytes.
    pub(crate) fn reserve(&self, max: u64) -> MemoryReservation {
        let whole = BoundedMemory { memory: self.clone(), max };
        MemoryReservation { whole, share: None, bytes: 0 }
    }

    /// Returns the total number of reserved bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

impl MemoryReservation {
    /// Adds a second limit to this empty reservation. The reservation can then grow only as long as all reservations in
    /// `share` together do not exceed `max` bytes.
    #[must_use]
    pub(crate) fn within(mut self, share: &BodyMemory, max: u64) -> Self {
        self.share = Some(BoundedMemory { memory: share.clone(), max });
        self
    }

    /// Reports whether the limits currently allow the reservation to grow to `bytes` bytes.
    pub(crate) fn would_fit(&self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.whole.has_room(more) && self.share.as_ref().is_none_or(|share| share.has_room(more))
    }

    /// Grows the reservation to at least `bytes` bytes. Returns false and changes nothing if a limit would be exceeded.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return true };
        if self.share.as_ref().is_some_and(|share| !share.add(more)) {
            return false;
        }
        if !self.whole.add(more) {
            self.share.iter().for_each(|share| share.remove(more));
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.whole.remove(self.bytes);
        self.share.iter().for_each(|share| share.remove(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reserved_and_released() {
        let memory = BodyMemory::default();
        let mut one = memory.reserve(10);
        assert!(one.grow_to(6) && one.grow_to(3) && !memory.reserve(10).grow_to(5));
        assert_eq!(memory.bytes(), 6);
        assert!(one.grow_to(10) && !one.grow_to(11));
        drop(one);
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn a_share_leaves_memory_for_the_others() {
        let (whole, share) = (BodyMemory::default(), BodyMemory::default());
        let reserve = || whole.reserve(10).within(&share, 5);
        let (mut one, mut other) = (reserve(), reserve());
        assert!(one.grow_to(4) && !other.would_fit(2) && !other.grow_to(2) && other.grow_to(1));
        assert_eq!((whole.bytes(), share.bytes()), (5, 5));
        assert!(whole.reserve(10).grow_to(5), "the share is used up, the whole memory is not");
        drop(one);
        let mut rest = whole.reserve(10);
        assert!(rest.grow_to(9) && !other.grow_to(2), "the whole memory is used up, the share is not");
        assert_eq!((whole.bytes(), share.bytes()), (10, 1));
        drop((rest, other));
        assert_eq!((whole.bytes(), share.bytes()), (0, 0));
    }
}

//! Limits the memory that all request bodies and all HTTP/2 heads use together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes that all request bodies and all HTTP/2 heads reserve.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyMemory {
    bytes: Arc<AtomicU64>,
}

/// The memory that is reserved for one body or head. Dropping this value releases the memory.
#[derive(Debug)]
pub(crate) struct MemoryReservation {
    memory: BodyMemory,
    bytes: u64,
    max: u64,
}

impl BodyMemory {
    /// Creates an empty reservation. The reservation can grow as long as all reservations together do not exceed `max`
    /// bytes.
    pub(crate) fn reserve(&self, max: u64) -> MemoryReservation {
        MemoryReservation { memory: self.clone(), bytes: 0, max }
    }

    /// Returns the number of reserved bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

impl MemoryReservation {
    /// Reports whether the reservation could grow to `bytes` now.
    pub(crate) fn would_fit(&self, bytes: u64) -> bool {
        self.memory.bytes().saturating_sub(self.bytes).saturating_add(bytes) <= self.max
    }

    /// Grows the reservation to at least `bytes`. Returns false and changes nothing if the limit does not allow it.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return true };
        let before = self.memory.bytes.fetch_add(more, Ordering::SeqCst);
        if before.saturating_add(more) > self.max {
            self.memory.bytes.fetch_sub(more, Ordering::SeqCst);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
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
}

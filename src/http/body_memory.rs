//! The memory that request bodies use together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of all bodies that are held, and of the heads of HTTP/2.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyMemory {
    bytes: Arc<AtomicU64>,
}

/// Bytes that are set aside. Free again when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: BodyMemory,
    bytes: u64,
    max: u64,
}

impl BodyMemory {
    /// Nothing so far, of at most `max` bytes in all.
    pub(crate) fn reserve(&self, max: u64) -> Reserved {
        Reserved { memory: self.clone(), bytes: 0, max }
    }

    /// How many bytes are set aside.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

impl Reserved {
    /// Whether there is room for this many bytes at the moment.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.memory.bytes().saturating_sub(self.bytes).saturating_add(bytes) <= self.max
    }

    /// Makes it at least this many bytes. Returns whether there was room.
    pub(crate) fn at_least(&mut self, bytes: u64) -> bool {
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

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_set_aside_and_given_back() {
        let memory = BodyMemory::default();
        let mut one = memory.reserve(10);
        assert!(one.at_least(6) && one.at_least(3) && !memory.reserve(10).at_least(5));
        assert_eq!(memory.bytes(), 6);
        assert!(one.at_least(10) && !one.at_least(11));
        drop(one);
        assert_eq!(memory.bytes(), 0);
    }
}

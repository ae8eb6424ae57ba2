//! Room: for connections, in all and of one address, and for the bodies that are held.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Open files besides the connections from outside: those to the agent and to providers, the ledger's, the log's.
const FILES_BESIDES: u64 = 1024;

/// The connections there are.
#[derive(Debug)]
pub(super) struct Slots {
    /// Most that the system has sockets for.
    granted: AtomicUsize,
    taken: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The room of one connection. Free again when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    address: Option<IpAddr>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            granted: AtomicUsize::new(usize::MAX),
            taken: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }
}

impl Slots {
    /// Asks the system for as many sockets as there may be connections, those of the `egress` besides: most start with
    /// few, and grant more. With fewer, the connections are fewer, so that there are some left to reach the agent.
    pub(super) fn provide(&self, connections: usize, egress: usize) {
        let besides = FILES_BESIDES.saturating_add(u64::try_from(egress).unwrap_or(u64::MAX));
        let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(besides);
        let files = rlimit::increase_nofile_limit(wanted).unwrap_or(u64::MAX);
        let besides = besides.min(files / 2);
        let granted = usize::try_from(files.saturating_sub(besides)).unwrap_or(usize::MAX);
        self.granted.store(granted, Ordering::SeqCst);
        if granted < connections {
            log::warn!(
                "limits.connections_max is {connections}, but the system grants {files} open files in all (ulimit -n): {granted} connections are taken"
            );
        }
    }

    /// Room for one more; `None` when as many are there as may be.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Option<Slot> {
        // Counted before the look: two that come at once cannot both be the last one.
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        let slot = Slot { slots: Arc::clone(self), address: None };
        (before < max.min(self.granted.load(Ordering::Relaxed))).then_some(slot)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Slot {
    /// Counts it for whom an address stands for. Returns whether that one may have so many.
    pub(super) fn count_for(&mut self, address: IpAddr, max: usize) -> bool {
        self.count_exactly(whose(address), max)
    }

    /// Counts it for this very address: in a cluster, all pods of a node may share a network of 64 bits.
    pub(super) fn count_exactly(&mut self, address: IpAddr, max: usize) -> bool {
        let mut by_address = self.slots.by_address.lock();
        let count = by_address.entry(address).or_default();
        *count += 1;
        self.address = Some(address);
        *count <= max
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken.fetch_sub(1, Ordering::SeqCst);
        let Some(address) = self.address else { return };
        let mut by_address = self.slots.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// Whom an address stands for: of IPv6 a customer has a network of 64 bits at least.
pub(super) fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// The bytes of all bodies that are held, and of the heads of HTTP/2.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyMemory {
    bytes: Arc<AtomicU64>,
}

/// Bytes that are set aside. Free again when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: BodyMemory,
    bytes: u64,
    max: u64,
}

impl BodyMemory {
    /// Nothing so far, of at most `max` bytes in all.
    pub(super) fn reserve(&self, max: u64) -> Reserved {
        Reserved { memory: self.clone(), bytes: 0, max }
    }

    /// How many bytes are set aside.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

impl Reserved {
    /// Whether there is room for this many bytes at the moment.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.memory.bytes().saturating_sub(self.bytes).saturating_add(bytes) <= self.max
    }

    /// Makes it at least this many bytes. Returns whether there was room.
    pub(super) fn at_least(&mut self, bytes: u64) -> bool {
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
    fn connections_are_counted_and_let_go() {
        let slots = Arc::new(Slots::default());
        let address = |text: &str| text.parse().unwrap();
        let mut one = slots.take(2).unwrap();
        let mut two = slots.take(2).unwrap();
        assert!(slots.take(2).is_none());
        assert!(one.count_for(address("2001:db8::1"), 1));
        assert!(!two.count_for(address("2001:db8::2"), 1), "one network of 64 bits is one caller");
        drop(two);
        let mut three = slots.take(2).unwrap();
        assert!(three.count_for(address("2001:db8:0:1::1"), 1));
        drop((one, three));
        assert_eq!((slots.count(), slots.by_address.lock().len()), (0, 0));
    }

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

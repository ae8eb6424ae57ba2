//! Limits of connections: in all, and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Open files besides the connections from outside: those to the agent and to providers, the ledger's, the log's.
const FILES_BESIDES: u64 = 1024;

/// The connections there are.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    /// Most that the system has sockets for.
    granted: AtomicUsize,
    taken: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The room of one connection. Free again when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slots: Arc<ConnectionLimits>,
    address: Option<IpAddr>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            granted: AtomicUsize::new(usize::MAX),
            taken: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }
}

impl ConnectionLimits {
    /// Asks the system for as many sockets as there may be connections, those of the `egress` besides: most start with
    /// few, and grant more. With fewer, the connections are fewer, so that there are some left to reach the agent.
    pub(crate) fn provide(&self, connections: usize, egress: usize) {
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

    /// Returns a slot for one more connection; `None` if there are already as many as allowed.
    pub(crate) fn take(self: &Arc<Self>, max: usize) -> Option<ConnectionSlot> {
        // Counted before the look: two that come at once cannot both be the last one.
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        let slot = ConnectionSlot { slots: Arc::clone(self), address: None };
        (before < max.min(self.granted.load(Ordering::Relaxed))).then_some(slot)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl ConnectionSlot {
    /// Counts it for whom an address stands for. Returns whether that one may have so many.
    pub(crate) fn count_for(&mut self, address: IpAddr, max: usize) -> bool {
        self.count_exactly(rate_limit_key(address), max)
    }

    /// Counts it for this very address: in a cluster, all pods of a node may share a network of 64 bits.
    pub(crate) fn count_exactly(&mut self, address: IpAddr, max: usize) -> bool {
        let mut by_address = self.slots.by_address.lock();
        let count = by_address.entry(address).or_default();
        *count += 1;
        self.address = Some(address);
        *count <= max
    }
}

impl Drop for ConnectionSlot {
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
pub(crate) fn rate_limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_and_let_go() {
        let slots = Arc::new(ConnectionLimits::default());
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
}

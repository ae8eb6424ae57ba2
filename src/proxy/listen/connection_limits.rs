//! Limits the number of connections, in total and per client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::policy::Limits;

/// The number of open files that Callgate needs for other purposes than accepted connections: connections to agents and
/// providers, the ledger, the log.
const OTHER_FILES: u64 = 1024;

/// Counts the open connections, in total and per client address.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    /// The maximum number of connections that the process's limit of open files allows.
    granted: AtomicUsize,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts one connection as open until this value is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    limits: Arc<ConnectionLimits>,
    address: Option<IpAddr>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            granted: AtomicUsize::new(usize::MAX),
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }
}

impl ConnectionLimits {
    /// Raises the process's limit of open files to cover `connections` ingress connections, `egress` egress connections
    /// and 1024 other files. Most systems start a process with a low limit and allow the process to raise it. If the
    /// system grants less, fewer ingress connections are accepted, so that files remain for connections to the agent.
    pub(crate) fn raise_file_limit(&self, connections: usize, egress: usize) {
        let other_files = OTHER_FILES.saturating_add(u64::try_from(egress).unwrap_or(u64::MAX));
        let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(other_files);
        let files = rlimit::increase_nofile_limit(wanted).unwrap_or(u64::MAX);
        let other_files = other_files.min(files / 2);
        let granted = usize::try_from(files.saturating_sub(other_files)).unwrap_or(usize::MAX);
        self.granted.store(granted, Ordering::SeqCst);
        if is_worth_a_warning(granted, connections) {
            log::warn!(
                "limits.connections_max is {connections}, but the system allows {files} open files in total (ulimit -n), so that at most {granted} connections are accepted"
            );
        }
    }

    /// Counts one more connection. Returns `None` if `max` connections are already open, or if the limit of open files
    /// allows no more connections.
    pub(crate) fn acquire(self: &Arc<Self>, max: usize) -> Option<ConnectionSlot> {
        // The number is incremented before the comparison, so that two concurrent calls cannot both take the last slot.
        let before = self.open.fetch_add(1, Ordering::SeqCst);
        let slot = ConnectionSlot { limits: Arc::clone(self), address: None };
        (before < max.min(self.granted.load(Ordering::Relaxed))).then_some(slot)
    }

    /// Returns the number of open connections.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl ConnectionSlot {
    /// Counts the connection for its client address, or for its network as defined by [`rate_limit_key`]. Returns false
    /// if more than `max` connections are open for this address or network.
    pub(crate) fn count_address(&mut self, address: IpAddr, max: usize) -> bool {
        self.count_exact_address(rate_limit_key(address), max)
    }

    /// Counts the connection for exactly this address and not for its network, because all pods of a node may share an
    /// IPv6 /64 network. Returns false if more than `max` connections are open for this address.
    pub(crate) fn count_exact_address(&mut self, address: IpAddr, max: usize) -> bool {
        let mut by_address = self.limits.by_address.lock();
        let count = by_address.entry(address).or_default();
        *count += 1;
        self.address = Some(address);
        *count <= max
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limits.open.fetch_sub(1, Ordering::SeqCst);
        let Some(address) = self.address else { return };
        let mut by_address = self.limits.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// Reports whether the operator should be warned that the system allows fewer connections than
/// `limits.connections_max`. This is the case if the operator set this number, or if the system allows less than half
/// of the default.
fn is_worth_a_warning(granted: usize, connections: usize) -> bool {
    let is_default = connections == Limits::default().connections_max;
    granted < connections && (!is_default || granted < connections / 2)
}

/// Returns the address or network for which connections and requests are counted. This is the /64 network of an IPv6
/// address, because one customer of an internet provider usually has at least a /64 network.
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
    fn a_default_that_is_almost_reached_is_no_reason_for_a_warning() {
        let default = Limits::default().connections_max;
        for (granted, connections, warns) in [
            (default, default, false),
            (default - 1024, default, false),
            (default / 2, default, false),
            (default / 2 - 1, default, true),
            (default, default + 1, true),
            (default - 2, default - 1, true),
            (default, default - 1, false),
        ] {
            assert_eq!(is_worth_a_warning(granted, connections), warns, "{granted} {connections}");
        }
    }

    #[test]
    fn slots_are_counted_and_freed() {
        let slots = Arc::new(ConnectionLimits::default());
        let address = |text: &str| text.parse().unwrap();
        let mut one = slots.acquire(2).unwrap();
        let mut two = slots.acquire(2).unwrap();
        assert!(slots.acquire(2).is_none());
        assert!(one.count_address(address("2001:db8::1"), 1));
        assert!(!two.count_address(address("2001:db8::2"), 1), "one network of 64 bits is one caller");
        drop(two);
        let mut three = slots.acquire(2).unwrap();
        assert!(three.count_address(address("2001:db8:0:1::1"), 1));
        drop((one, three));
        assert_eq!((slots.count(), slots.by_address.lock().len()), (0, 0));
    }
}

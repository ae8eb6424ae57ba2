//! The events of one interaction: delivered events, and events that are being delivered.

use super::ask::EventKey;

/// The minimum number of fingerprints in a list that is pruned (see [`Events::prune`]).
const PRUNED_FROM: usize = 64;

/// The delivered events of one interaction, and the events that are being delivered. A delivered event is stored as a
/// fingerprint.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    /// The fingerprints of the delivered events. The ledger forgets old events, so it may not contain all of these
    /// events any more.
    delivered: Vec<u64>,
    /// The events that are being delivered. For each key of an event, the list has an element: the number that
    /// [`Events::claim`] returned for the event, and the key.
    delivering: Vec<(u32, EventKey)>,
    claims: u32,
}

/// A callback that the agent did not accept, with the number of failed attempts.
#[derive(Clone, Debug)]
pub(super) struct FailedEvent {
    /// The keys of the event. The list is empty if the message contains nothing that identifies the event.
    pub(super) keys: Vec<EventKey>,
    pub(super) attempts: u32,
}

impl FailedEvent {
    /// Reports whether this event has at least one of these keys, or whether neither this event nor `keys` has any key.
    pub(super) fn is(&self, keys: &[EventKey]) -> bool {
        self.keys.is_empty() && keys.is_empty() || self.keys.iter().any(|key| keys.contains(key))
    }
}

/// Whether an event was delivered, is being delivered, or is unknown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventState {
    /// The event was delivered.
    Delivered,
    /// The event is being delivered.
    Delivering,
    /// The event was never seen, or its delivery failed.
    Unknown,
}

impl Events {
    /// Reports whether an event with one of these keys is being delivered.
    pub(super) fn is_delivering(&self, keys: &[EventKey]) -> bool {
        self.delivering.iter().any(|(_, key)| keys.contains(key))
    }

    /// Marks the event with these keys as being delivered. Returns a number that identifies this delivery (the claim).
    pub(super) fn claim<'k>(&mut self, keys: impl Iterator<Item = &'k EventKey>) -> u32 {
        self.claims = self.claims.wrapping_add(1);
        self.delivering.extend(keys.map(|key| (self.claims, *key)));
        self.claims
    }

    /// Marks the event of a claim (a callback that is being delivered) as delivered. For each key of the event,
    /// `remember` stores the event in the ledger and returns its fingerprint.
    pub(super) fn settle(&mut self, claim: u32, mut remember: impl FnMut(EventKey) -> u64) {
        let delivered = &mut self.delivered;
        self.delivering.retain(|(of, key)| {
            if *of == claim {
                delivered.push(remember(*key));
            }
            *of != claim
        });
    }

    /// Returns all keys of an event that is being delivered. `claim` is the number that [`Events::claim`] returned for
    /// this delivery.
    pub(super) fn keys(&self, claim: u32) -> Vec<EventKey> {
        self.delivering.iter().filter(|(of, _)| *of == claim).map(|(_, key)| *key).collect()
    }

    pub(super) fn release(&mut self, claim: u32) {
        self.delivering.retain(|(of, _)| *of != claim);
    }

    /// Adds the fingerprint of a delivered event that was read from the file of the ledger.
    pub(super) fn restore(&mut self, fingerprint: u64) {
        self.delivered.push(fingerprint);
    }

    /// Returns the fingerprints of the delivered events.
    pub(super) fn delivered(&self) -> &[u64] {
        &self.delivered
    }

    /// Removes and returns the fingerprints of the delivered events.
    pub(super) fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.delivered)
    }

    /// Removes the fingerprints of events that the ledger has forgotten. Does nothing unless the list of fingerprints
    /// is long and its allocated memory is full, so that the next fingerprint would enlarge the list.
    pub(super) fn prune(&mut self, is_known: impl Fn(u64) -> bool) {
        let len = self.delivered.len();
        if len >= PRUNED_FROM && len == self.delivered.capacity() {
            self.delivered.retain(|fingerprint| is_known(*fingerprint));
        }
    }
}

//! The events of one interaction that were delivered or are being delivered.

use std::collections::HashMap;

use super::ask::EventKey;

/// The events of one interaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    /// The delivered events. The value of each entry is the number under which the file store keeps the event.
    delivered: HashMap<EventKey, u64>,
    /// The events that are being delivered, each with the number of its claim.
    delivering: Vec<(u32, EventKey)>,
    claims: u32,
}

/// The state of an event.
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
    /// Returns the state of the event with these keys.
    pub(super) fn known(&self, keys: &[EventKey]) -> EventState {
        if keys.iter().any(|key| self.delivered.contains_key(key)) {
            EventState::Delivered
        } else if self.delivering.iter().any(|(_, key)| keys.contains(key)) {
            EventState::Delivering
        } else {
            EventState::Unknown
        }
    }

    /// Creates a claim: marks the event with these keys as being delivered. Returns the number of the claim.
    pub(super) fn claim(&mut self, keys: &[EventKey]) -> u32 {
        self.claims = self.claims.wrapping_add(1);
        self.delivering.extend(keys.iter().map(|key| (self.claims, *key)));
        self.claims
    }

    /// Marks the events of a claim as delivered. For each key, `number` returns the number under which the file store
    /// keeps the event.
    pub(super) fn settle(&mut self, claim: u32, mut number: impl FnMut(EventKey) -> u64) {
        let delivered = &mut self.delivered;
        self.delivering.retain(|(of, key)| {
            if *of == claim {
                delivered.insert(*key, number(*key));
            }
            *of != claim
        });
    }

    pub(super) fn release(&mut self, claim: u32) {
        self.delivering.retain(|(of, _)| *of != claim);
    }

    /// Adds a delivered event that was read from the file store.
    pub(super) fn restore(&mut self, key: EventKey, number: u64) {
        self.delivered.insert(key, number);
    }

    /// Returns the delivered events, and the numbers under which the file store keeps them.
    pub(super) fn delivered(&self) -> impl Iterator<Item = (EventKey, u64)> {
        self.delivered.iter().map(|(key, number)| (*key, *number))
    }

    /// Returns the numbers under which the file store keeps the delivered events.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.delivered.values().copied()
    }
}

//! The events of one interaction: which were delivered, and which are being delivered.

use std::collections::HashMap;

use super::ask::EventKey;

/// The events of one interaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    /// Delivered; a file has each under this number.
    delivered: HashMap<EventKey, u64>,
    /// Being delivered, and by which claim.
    delivering: Vec<(u32, EventKey)>,
    claims: u32,
}

/// How an event is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// It was delivered.
    Delivered,
    /// It is being delivered.
    Delivering,
    /// Not at all.
    Unknown,
}

impl Events {
    /// What is known of an event that goes by any of these keys.
    pub(super) fn known(&self, keys: &[EventKey]) -> Known {
        if keys.iter().any(|key| self.delivered.contains_key(key)) {
            Known::Delivered
        } else if self.delivering.iter().any(|(_, key)| keys.contains(key)) {
            Known::Delivering
        } else {
            Known::Unknown
        }
    }

    /// Claims them; returns the claim's number.
    pub(super) fn claim(&mut self, keys: &[EventKey]) -> u32 {
        self.claims = self.claims.wrapping_add(1);
        self.delivering.extend(keys.iter().map(|key| (self.claims, *key)));
        self.claims
    }

    /// The claim is settled. `number` is told each of its keys, and makes the number by which a file is to know it.
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

    /// Takes over an event that a file held.
    pub(super) fn restore(&mut self, key: EventKey, number: u64) {
        self.delivered.insert(key, number);
    }

    /// The delivered ones, and the numbers by which a file knows them.
    pub(super) fn delivered(&self) -> impl Iterator<Item = (EventKey, u64)> {
        self.delivered.iter().map(|(key, number)| (*key, *number))
    }

    /// The numbers by which a file knows the delivered ones.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.delivered.values().copied()
    }
}

//! The content of a ledger, on its way to another ledger.

use std::sync::Arc;

use crate::interaction::{EventKey, Interaction, SharedRecord};
use crate::store::event_memory::FingerprintKey;
use crate::store::file::StoredEvent;
use crate::time::Timestamp;

/// The content of a ledger.
#[derive(Debug, Default)]
pub(in crate::store) struct Content {
    /// The key of the fingerprints, if the ledger is in a file.
    pub(in crate::store) key: Option<FingerprintKey>,
    pub(in crate::store) interactions: Vec<Copied>,
    /// The delivered events without an interaction.
    pub(in crate::store) loose: Vec<Loose>,
}

/// An interaction with its delivered events.
#[derive(Clone, Debug)]
pub(in crate::store) struct Copied {
    pub(in crate::store) id: Arc<str>,
    pub(in crate::store) record: SharedRecord,
    /// The delivered events that are not in the record.
    pub(in crate::store) events: Vec<StoredEvent>,
}

/// A delivered event without an interaction.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Loose {
    pub(in crate::store) event: LooseEvent,
    /// The end of its retention.
    pub(in crate::store) until: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum LooseEvent {
    /// The key of an event, and the partition of its route.
    Key(EventKey, u8),
    /// A fingerprint, and its secret key.
    Fingerprint(FingerprintKey, u64),
}

/// What happened to a record in the ledger that is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum Written {
    Added,
    /// The record was older, and was replaced.
    Updated,
    /// The record was the same.
    Unchanged,
    /// The record is newer, and was left as it is.
    Newer,
    /// The interaction was used with both ledgers. The record got the end and the fewer uses of both.
    Merged,
}

/// The results of a copy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CopyReport {
    /// Interactions that were added.
    pub added: usize,
    /// Interactions whose record was older, and was replaced.
    pub updated: usize,
    /// Interactions that were there already.
    pub unchanged: usize,
    /// Interactions whose record is newer. It was left as it is.
    pub newer: usize,
    /// Interactions that were used with both ledgers.
    pub merged: usize,
    /// Delivered events, with and without an interaction.
    pub events: usize,
    /// Ids of providers.
    pub provider_ids: usize,
    /// Messages of the inbox.
    pub messages: usize,
    /// What was not copied.
    pub lost: Lost,
}

/// What a copy cannot carry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// Kept callbacks that the agent has not received.
    pub messages: usize,
    /// Delivered events, whose repetition would be delivered again.
    pub events: usize,
}

impl Lost {
    /// Reports whether everything can be copied.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl CopyReport {
    pub(in crate::store) fn count(&mut self, written: Written) {
        *match written {
            Written::Added => &mut self.added,
            Written::Updated => &mut self.updated,
            Written::Unchanged => &mut self.unchanged,
            Written::Newer => &mut self.newer,
            Written::Merged => &mut self.merged,
        } += 1;
    }
}

impl Copied {
    /// Returns all events of which the key is known.
    pub(in crate::store) fn keys(&self) -> impl Iterator<Item = EventKey> {
        let more = self.events.iter().filter_map(|event| match event {
            StoredEvent::Key(key) => Some(*key),
            StoredEvent::Fingerprint(..) => None,
        });
        self.record.events().iter().copied().chain(more)
    }

    /// Returns the events of which only the fingerprint is known.
    pub(in crate::store) fn fingerprints(&self) -> impl Iterator<Item = (u64, u32)> {
        self.events.iter().filter_map(|event| match event {
            StoredEvent::Fingerprint(fingerprint, until) => Some((*fingerprint, *until)),
            StoredEvent::Key(_) => None,
        })
    }

    /// Returns the record and the number of events that it cannot take, if the events of `key` must be in the record.
    pub(in crate::store) fn with_inherited(&self, key: Option<FingerprintKey>) -> (Interaction, usize) {
        let mut interaction = self.record.interaction.clone();
        let events: Vec<_> = self.fingerprints().map(|(fingerprint, _)| fingerprint).collect();
        let left = match key {
            Some(FingerprintKey(key)) => interaction.inherit(crate::interaction::Inherited { key, events }),
            None => events.len(),
        };
        (interaction, left)
    }
}

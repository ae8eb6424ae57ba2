//! The content of a ledger that is copied to another ledger.

use std::sync::Arc;

use crate::interaction::{EventKey, Interaction, SharedRecord};
use crate::store::event_memory::FingerprintKey;
use crate::store::file::StoredEvent;
use crate::time::Timestamp;

/// The content of a ledger, in the form in which it is copied to another ledger.
#[derive(Debug, Default)]
pub(in crate::store) struct Content {
    /// The secret key of the event fingerprints. `None` if the ledger is not in a file.
    pub(in crate::store) key: Option<FingerprintKey>,
    pub(in crate::store) interactions: Vec<Copied>,
    /// The delivered events that belong to no interaction.
    pub(in crate::store) loose: Vec<Loose>,
}

/// An interaction with its delivered events, in the form in which it is copied to another ledger.
#[derive(Clone, Debug)]
pub(in crate::store) struct Copied {
    pub(in crate::store) id: Arc<str>,
    pub(in crate::store) record: SharedRecord,
    /// Delivered events of the interaction. Events that are already in `record` are omitted.
    pub(in crate::store) events: Vec<StoredEvent>,
}

/// A delivered event that belongs to no interaction.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Loose {
    pub(in crate::store) event: LooseEvent,
    /// The end of the event's retention.
    pub(in crate::store) until: Timestamp,
}

/// A delivered event that belongs to no interaction: its key or its fingerprint.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum LooseEvent {
    /// The key of the event, and the number of the partition in which a shared ledger stores the event.
    Key(EventKey, u8),
    /// The secret key with which the fingerprint was computed, and the fingerprint of the event.
    Fingerprint(FingerprintKey, u64),
}

/// What the copy of an interaction changed in the target ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum Written {
    Added,
    /// The interaction's record in the target ledger was older, and was replaced.
    Updated,
    /// Both ledgers had the same record of the interaction.
    Unchanged,
    /// The interaction's record in the target ledger is newer, and was not changed.
    Newer,
    /// The interaction was changed in both ledgers, so the two records were merged. The merged interaction has ended if
    /// it had ended in one of the ledgers. It has the lower of the two numbers of remaining uses.
    Merged,
}

/// The results of copying a ledger.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CopyReport {
    /// The number of interactions that were added to the target ledger.
    pub added: usize,
    /// The number of interactions whose record in the target ledger was older, and was replaced.
    pub updated: usize,
    /// The number of interactions whose record was the same in both ledgers.
    pub unchanged: usize,
    /// The number of interactions whose record in the target ledger is newer, and was not changed.
    pub newer: usize,
    /// The number of interactions that were changed in both ledgers, and whose records were merged.
    pub merged: usize,
    /// The number of copied delivered events, with and without an interaction.
    pub events: usize,
    /// The number of provider's ids that were copied. Callbacks without a token find their interaction by the
    /// provider's id.
    pub provider_ids: usize,
    /// The number of copied messages of the inbox.
    pub messages: usize,
    /// The content that was not copied, because the target ledger cannot store it.
    pub lost: Lost,
}

/// The content that a copy to another ledger loses, because that ledger cannot store it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// The number of messages of the inbox that were not delivered to their agents.
    pub messages: usize,
    /// The number of delivered events. If the provider repeats such an event, it is delivered again.
    pub events: usize,
}

impl Lost {
    /// Reports whether the copy loses nothing.
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
    /// Returns the keys of the interaction's delivered events. Omits events of which only the fingerprint is stored.
    pub(in crate::store) fn keys(&self) -> impl Iterator<Item = EventKey> {
        let more = self.events.iter().filter_map(|event| match event {
            StoredEvent::Key(key) => Some(*key),
            StoredEvent::Fingerprint(..) => None,
        });
        self.record.events().iter().copied().chain(more)
    }

    /// Returns the fingerprints of the delivered events whose keys are not stored. The second number is the Unix time
    /// from which a replay of the event is denied.
    pub(in crate::store) fn fingerprints(&self) -> impl Iterator<Item = (u64, u32)> {
        self.events.iter().filter_map(|event| match event {
            StoredEvent::Fingerprint(fingerprint, until) => Some((*fingerprint, *until)),
            StoredEvent::Key(_) => None,
        })
    }

    /// Returns a copy of the interaction's record, to which the fingerprints of the delivered events were added. `key`
    /// is the secret key of the fingerprints. Without this key, no fingerprint is added. Also returns the number of
    /// fingerprints that were not added.
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

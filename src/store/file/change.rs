//! The changes to the ledger that are written to its file.

use std::sync::Arc;

use crate::interaction::EventKey;
use crate::time::Timestamp;

/// The owner of an event that belongs to no interaction.
pub(in crate::store) const NO_OWNER: u64 = u64::MAX;

/// A change to the ledger. The first field is the number of the record.
#[derive(Debug)]
pub(in crate::store) enum Change {
    /// Inserts a delivered event: its key, the end of its retention, and the number of its interaction or [`NO_OWNER`].
    Event(u64, EventKey, Timestamp, u64),
    /// Removes an event.
    EventGone(u64),
    /// Inserts or replaces an interaction: its id and its record (JSON).
    Interaction(u64, Arc<str>, Vec<u8>),
    /// Removes an interaction.
    InteractionGone(u64),
}

impl Change {
    /// Returns the approximate size of the change in memory.
    pub(in crate::store) fn bytes(&self) -> usize {
        let more = match self {
            Self::Interaction(_, _, record) => record.len(),
            Self::Event(..) | Self::EventGone(_) | Self::InteractionGone(_) => 0,
        };
        size_of::<Self>() + more
    }
}

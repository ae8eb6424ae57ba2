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

/// Identifies a record of the file.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::store) struct RecordKey {
    is_event: bool,
    pub(in crate::store) number: u64,
}

impl Change {
    /// Returns the key of the changed record.
    pub(in crate::store) fn key(&self) -> RecordKey {
        match self {
            Self::Event(number, ..) | Self::EventGone(number) => {
                RecordKey { is_event: true, number: *number }
            }
            Self::Interaction(number, ..) | Self::InteractionGone(number) => {
                RecordKey { is_event: false, number: *number }
            }
        }
    }

    /// Returns the approximate size of the change in memory.
    pub(in crate::store) fn bytes(&self) -> usize {
        let more = match self {
            Self::Interaction(_, _, record) => record.len(),
            Self::Event(..) | Self::EventGone(_) | Self::InteractionGone(_) => 0,
        };
        size_of::<Self>() + more
    }
}

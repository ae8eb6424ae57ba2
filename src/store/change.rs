//! A change to the ledger, as it is written to the file.

use std::sync::Arc;

use crate::interaction::EventKey;
use crate::time::Timestamp;

/// The owner of an event that belongs to no interaction.
pub(super) const NO_OWNER: u64 = u64::MAX;

/// A change to the ledger.
#[derive(Debug)]
pub(super) enum Change {
    Event(u64, EventKey, Timestamp, u64),
    EventGone(u64),
    Interaction(u64, Arc<str>, Vec<u8>),
    InteractionGone(u64),
}

impl Change {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let more = match self {
            Self::Interaction(_, _, record) => record.len(),
            Self::Event(..) | Self::EventGone(_) | Self::InteractionGone(_) => 0,
        };
        size_of::<Self>() + more
    }
}

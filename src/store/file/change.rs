//! The changes to the ledger that are written to its file.

use std::sync::Arc;

use bytes::Bytes;

use crate::interaction::EventKey;
use crate::time::Timestamp;

/// The value that the file contains in place of an interaction's number if an event belongs to no interaction.
pub(in crate::store) const NO_OWNER: u64 = u64::MAX;

/// A delivered event in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum StoredEvent {
    /// The fingerprint of the event. The second number is the Unix time from which a replay is denied because of the
    /// age of its signature.
    Fingerprint(u64, u32),
    /// The key of the event. Earlier versions of Callgate stored keys.
    Key(EventKey),
}

impl StoredEvent {
    /// Returns the event as the number that the file contains. For a fingerprint, the highest 32 bits are 0. For a key,
    /// the highest bits are random, because keys are digests.
    pub(in crate::store) fn to_bits(self) -> u128 {
        match self {
            Self::Fingerprint(fingerprint, until) => u128::from(until) << 64 | u128::from(fingerprint),
            Self::Key(key) => key.0,
        }
    }

    /// Creates an event from the number that the file contains.
    pub(in crate::store) fn from_bits(bits: u128) -> Self {
        let [fingerprint, until] = [bits & u128::from(u64::MAX), bits >> 64];
        match (u64::try_from(fingerprint), u32::try_from(until)) {
            (Ok(fingerprint), Ok(until)) => Self::Fingerprint(fingerprint, until),
            _ => Self::Key(EventKey(bits)),
        }
    }
}

/// A change to the ledger's file. The first field of a change to an event, an interaction or a message is the number of
/// the changed record.
#[derive(Clone, Debug)]
pub(in crate::store) enum Change {
    /// Inserts a delivered event, with the end of its retention and the number of its interaction or [`NO_OWNER`].
    Event(u64, StoredEvent, Timestamp, u64),
    /// Removes a delivered event.
    EventGone(u64),
    /// Sets the secret key of the fingerprints.
    FingerprintKey([u64; 2]),
    /// Inserts or replaces an interaction: its id and its record (JSON).
    Interaction(u64, Arc<str>, Vec<u8>),
    /// Removes an interaction.
    InteractionGone(u64),
    /// Inserts a message of the inbox: its head and its body.
    Message(u64, Arc<[u8]>, Bytes),
    /// Sets the state of a message (JSON).
    MessageState(u64, Vec<u8>),
    /// Removes a message and its state.
    MessageGone(u64),
    /// Records the highest message number that was ever assigned.
    MessageNumber(u64),
}

/// Identifies a record of the ledger's file by its table and its number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::store) struct RecordKey {
    table: Table,
    pub(in crate::store) number: u64,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Table {
    Interactions,
    Events,
    /// The messages of the inbox. A message and its state count as one record.
    Messages,
    /// The properties of the file: the fingerprint key, and the highest message number.
    About,
}

impl Change {
    /// Returns the key of the record of the file to which the change applies.
    pub(in crate::store) fn key(&self) -> RecordKey {
        let (table, number) = match self {
            Self::Event(number, ..) | Self::EventGone(number) => (Table::Events, *number),
            Self::Interaction(number, ..) | Self::InteractionGone(number) => (Table::Interactions, *number),
            Self::Message(number, ..) | Self::MessageState(number, _) | Self::MessageGone(number) => {
                (Table::Messages, *number)
            }
            Self::FingerprintKey(_) => (Table::About, 0),
            Self::MessageNumber(_) => (Table::About, 1),
        };
        RecordKey { table, number }
    }

    /// Returns the approximate size of the change in memory, in bytes.
    pub(in crate::store) fn bytes(&self) -> usize {
        let more = match self {
            Self::Interaction(_, _, record) => record.len(),
            Self::Message(_, head, body) => head.len() + body.len(),
            Self::MessageState(_, state) => state.len(),
            Self::Event(..)
            | Self::EventGone(_)
            | Self::FingerprintKey(_)
            | Self::InteractionGone(_)
            | Self::MessageGone(_)
            | Self::MessageNumber(_) => 0,
        };
        size_of::<Self>() + more
    }

    /// Reports whether the change belongs to the inbox. The memory does not contain the bodies of messages. When the
    /// file is rewritten from memory, the queued changes of the inbox must therefore be written, too.
    pub(in crate::store) fn is_of_inbox(&self) -> bool {
        matches!(
            self,
            Self::Message(..) | Self::MessageState(..) | Self::MessageGone(_) | Self::MessageNumber(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_event_is_a_number_that_is_read_back() {
        for (event, bits) in [
            (StoredEvent::Fingerprint(0x0123_4567_89ab_cdef, 0x8000_0001), 0x8000_0001_0123_4567_89ab_cdef),
            (StoredEvent::Fingerprint(u64::MAX, u32::MAX), (1 << 96) - 1),
            (StoredEvent::Fingerprint(1, 0), 1),
            (StoredEvent::Key(EventKey(1 << 96)), 1 << 96),
            (StoredEvent::Key(EventKey(u128::MAX)), u128::MAX),
        ] {
            assert_eq!((event.to_bits(), StoredEvent::from_bits(bits)), (bits, event));
        }
    }
}

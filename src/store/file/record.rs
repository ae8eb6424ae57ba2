//! The records of the ledger's file. Also a check that no record is missing in a table.

use redb::TableDefinition;

use super::change::StoredEvent;
use crate::interaction::Interaction;
use crate::time::Timestamp;

/// The table that describes the ledger's file: it maps the name of a property to its value.
pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// A record of the ledger's file.
#[derive(Debug)]
pub(in crate::store) enum Record {
    /// An interaction: its number, its id and its state.
    Interaction(u64, Box<str>, Interaction),
    /// A delivered event: its number, the event, the end of its retention, and the number of its interaction or
    /// [`NO_OWNER`](super::NO_OWNER).
    Event(u64, StoredEvent, Timestamp, u64),
    /// A message of the inbox: its number, its head, and its state. The state is `None` until the first attempt to
    /// deliver the message.
    Message(u64, Vec<u8>, Option<Vec<u8>>),
    /// The highest message number that was ever assigned.
    MessageNumber(u64),
}

/// Returns an error which states that the file is damaged.
pub(super) fn corrupted(message: String) -> redb::Error {
    redb::Error::Corrupted(message)
}

/// Checks that no row of a table is missing, and that the rows are in the order of their numbers.
#[derive(Default)]
pub(super) struct Order {
    last: Option<u64>,
    rows: u64,
}

impl Order {
    pub(super) fn check(&mut self, number: u64) -> Result<(), redb::Error> {
        if self.last.replace(number).is_some_and(|last| last >= number) {
            return Err(corrupted(format!("record {number} is out of order")));
        }
        self.rows += 1;
        Ok(())
    }

    pub(super) fn finish(self, expected: u64) -> Result<(), redb::Error> {
        if self.rows == expected {
            return Ok(());
        }
        Err(corrupted(format!("it has {} records instead of {expected}", self.rows)))
    }
}

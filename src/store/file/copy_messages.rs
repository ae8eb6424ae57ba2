//! Copies the messages of the inbox from one file of a ledger to another. The messages are read from the file, because
//! the memory does not contain their bodies.

use super::change::Change;
use super::ledger_file::{Fault, LedgerFile};
use super::message_tables;
use super::tables::guarded;

/// The maximum number of messages that are copied to another file in one commit.
const COPIED: usize = 256;
/// The size of the copied messages, in bytes, at which a commit ends.
const COPIED_BYTES: usize = 8 << 20;

impl LedgerFile {
    /// Returns the changes that write the next messages to another file, beginning with the first message whose number
    /// is above `after`. Returns an empty list after the last message.
    pub(in crate::store) fn messages_after(&self, after: u64) -> Result<Vec<Change>, Fault> {
        let Some(database) = self.database() else { return Ok(Vec::new()) };
        guarded(|| message_tables::after(database, after, COPIED, COPIED_BYTES)).map_err(Fault::broken)
    }

    /// Returns the highest message number that was ever assigned.
    pub(in crate::store) fn message_number(&self) -> Result<u64, Fault> {
        let Some(database) = self.database() else { return Err(Fault::broken("it is not open")) };
        guarded(|| message_tables::number(database)).map_err(Fault::broken)
    }

    /// Copies the messages of this file to another file.
    pub(in crate::store) fn copy_messages(&self, to: &mut Self) -> Result<(), Fault> {
        to.apply(&[Change::MessageNumber(self.message_number()?)])?;
        let mut last = 0;
        loop {
            let messages = self.messages_after(last)?;
            let Some(next) = messages.last() else { return Ok(()) };
            last = next.key().number;
            to.apply(&messages)?;
        }
    }
}

//! Copies the messages of the inbox to another file. The memory does not contain their bodies.

use super::change::Change;
use super::ledger_file::{Fault, LedgerFile};
use super::message_tables;
use super::tables::guarded;

/// The number of messages that are copied to another file in one commit, and the size from which a commit has fewer
/// messages, in bytes.
const COPIED: usize = 256;
const COPIED_BYTES: usize = 8 << 20;

impl LedgerFile {
    /// Returns the changes that write the next messages after `after` to another file. Returns none after the last one.
    pub(in crate::store) fn messages_after(&self, after: u64) -> Result<Vec<Change>, Fault> {
        let Some(database) = self.database() else { return Ok(Vec::new()) };
        guarded(|| message_tables::after(database, after, COPIED, COPIED_BYTES)).map_err(Fault::broken)
    }

    /// Returns the highest number that a message has had.
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

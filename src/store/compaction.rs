//! Compacts the ledger's file: replaces the file by a smaller one when most of its space is free. The database itself
//! does not make the file small enough.
//!
//! The new file is written next to the old one, in steps between the commits of the old file. An acknowledgement
//! therefore waits for one step at most. Until the new file is complete, every change is written to both files, and
//! only the old file is authoritative. After a crash, the next start uses the old file and removes the incomplete new
//! one.

use std::sync::Arc;

use super::event_memory::EventPlace;
use super::file::{Change, Fault, LedgerFile};
use super::memory::{Memory, SHARDS};

/// The approximate number of interactions and events that one step of a compaction copies. A step takes a few
/// milliseconds and syncs the new file once.
const STEP: usize = 256;
/// The number of interactions that are copied while one shard of the memory is locked.
const RECORDS_PER_LOCK: usize = 32;

/// A compaction in progress, which writes the new file.
pub(super) struct Compaction {
    new: LedgerFile,
    /// The first change of the new file, which writes the secret key of the fingerprints. `None` after this change was
    /// written.
    key: Option<Change>,
    /// For the current shard: the ids of the interactions that are not copied yet.
    ids: Vec<Arc<str>>,
    next_shard: usize,
    /// A location in the log of the events that belong to no interaction. The events before this location are already
    /// copied.
    next_event: EventPlace,
    /// The number of the last copied message of the inbox. `None` until the copy of the messages begins.
    last_message: Option<u64>,
}

impl Compaction {
    /// Creates the new file next to the old one.
    pub(super) fn begin(file: &LedgerFile, memory: &Memory) -> Result<Self, Fault> {
        file.check_name()?;
        let new = LedgerFile::create_beside(file.path())?;
        let (key, next_event) = (Some(memory.snapshot_key()), EventPlace::default());
        Ok(Self { new, key, ids: Vec::new(), next_shard: 0, next_event, last_message: None })
    }

    /// Applies `written` to the new file: the changes that were just written to the old file. Then copies the next
    /// records from memory, and the next messages of the inbox from `file`. Returns true if the new file is complete.
    ///
    /// The memory is ahead of the old file, because it already includes the queued changes. When the queued changes of
    /// a copied record are written to both files, both files have the same record.
    pub(super) fn step(
        &mut self,
        (file, memory): (&LedgerFile, &Memory),
        written: &[Change],
    ) -> Result<bool, Fault> {
        if !written.is_empty() {
            self.new.apply(written)?;
        }
        let mut copied = self.next_records(memory);
        if copied.is_empty() {
            copied = self.next_messages(file)?;
        }
        if copied.is_empty() {
            return Ok(true);
        }
        self.new.apply(&copied)?;
        Ok(false)
    }

    /// Returns the changes that write the next messages of the inbox to the new file. The messages are read from the
    /// old file, because the memory does not contain their bodies.
    fn next_messages(&mut self, file: &LedgerFile) -> Result<Vec<Change>, Fault> {
        if !file.has_messages() {
            return Ok(Vec::new());
        }
        let Some(last) = self.last_message else {
            self.last_message = Some(0);
            return Ok(vec![Change::MessageNumber(file.message_number()?)]);
        };
        let copied = file.messages_after(last)?;
        self.last_message = copied.last().map_or(self.last_message, |change| Some(change.key().number));
        Ok(copied)
    }

    fn next_records(&mut self, memory: &Memory) -> Vec<Change> {
        let mut records: Vec<_> = self.key.take().into_iter().collect();
        while records.len() < STEP {
            if self.ids.is_empty() {
                if self.next_shard == SHARDS {
                    break;
                }
                self.ids = memory.ids(self.next_shard);
                self.next_shard += 1;
                continue;
            }
            let ids = self.ids.split_off(self.ids.len().saturating_sub(RECORDS_PER_LOCK));
            records.extend(memory.snapshot_of(&ids));
        }
        if records.is_empty() { memory.snapshot_events(&mut self.next_event, STEP) } else { records }
    }

    /// Replaces the old file by the new one. Returns the results of [`LedgerFile::replace_with`].
    pub(super) fn finish(self, file: &mut LedgerFile) -> (bool, Result<(), Fault>) {
        file.replace_with(self.new)
    }

    /// Removes the incomplete new file.
    pub(super) fn abandon(self) {
        self.new.remove();
    }
}

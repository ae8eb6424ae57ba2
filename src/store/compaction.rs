//! Replaces the ledger's file by a smaller one when most of the file is free. The database itself never makes its file
//! smaller than the most that it has ever contained.
//!
//! The new file is written next to the old one, in steps between the commits of the old file, so that acknowledgements
//! wait for one step at most. Until the new file is complete, every change is written to both files, and only the old
//! file counts. A crash leaves the old file and an incomplete new one, which the next start removes.

use std::sync::Arc;

use super::event_memory::EventPlace;
use super::file::{Change, Fault, LedgerFile};
use super::memory::{Memory, SHARDS};

/// The number of records that one step copies. A step takes a few milliseconds and a sync.
const STEP: usize = 256;
/// The number of records that are copied while their shard is locked.
const RECORDS_PER_LOCK: usize = 32;

/// A new file that is being written.
pub(super) struct Compaction {
    new: LedgerFile,
    /// The first record that is copied.
    key: Option<Change>,
    /// The interactions of the current shard that are not copied yet.
    ids: Vec<Arc<str>>,
    next_shard: usize,
    /// The events without an interaction before this place are copied.
    next_event: EventPlace,
}

impl Compaction {
    /// Creates the new file.
    pub(super) fn begin(file: &LedgerFile, memory: &Memory) -> Result<Self, Fault> {
        file.check_name()?;
        let new = LedgerFile::create_beside(file.path())?;
        let (key, next_event) = (Some(memory.snapshot_key()), EventPlace::default());
        Ok(Self { new, key, ids: Vec::new(), next_shard: 0, next_event })
    }

    /// Writes changes to the new file that were written to the old one, and copies the next records. Returns whether the
    /// new file is complete.
    ///
    /// A copied record is at least as new as the changes written so far. Changes that were recorded before the copy and
    /// are written later write the record once more, up to the same state.
    pub(super) fn step(&mut self, memory: &Memory, written: &[Change]) -> Result<bool, Fault> {
        if !written.is_empty() {
            self.new.apply(written)?;
        }
        let copied = self.next_records(memory);
        if copied.is_empty() {
            return Ok(true);
        }
        self.new.apply(&copied)?;
        Ok(false)
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

    /// Puts the new file in the place of the old one. See [`LedgerFile::replace_with`].
    pub(super) fn finish(self, file: &mut LedgerFile) -> (bool, Result<(), Fault>) {
        file.replace_with(self.new)
    }

    /// Removes the new file.
    pub(super) fn abandon(self) {
        self.new.remove();
    }
}

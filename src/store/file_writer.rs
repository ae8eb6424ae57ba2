//! The thread that writes the ledger's file. When the disk fails, the thread tries again until the disk works.
//! `file/ledger_file.rs` describes the recovery after each kind of failure.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::compaction::Compaction;
use super::event_memory::EventPlace;
use super::file::{Change, CommitQueue, EndGuard, Fault, FaultKind, FileClosedGuard, LedgerFile, Shared};
use super::memory::{Memory, SHARDS};

/// The first delay before the writer tries the disk again. The delay doubles after each attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The maximum delay before the writer tries the disk again. After an attempt that took longer than this, the delay is
/// as long as that attempt.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The number of events in one commit of a rewritten file.
const EVENTS_PER_COMMIT: usize = 32_768;

/// Starts the thread that writes the changes of a commit queue to its file. `durable` receives the sequence number of
/// the last change that is on disk.
///
/// # Errors
/// Returns the reason as text if the thread cannot be started.
pub(super) fn start(
    commit_queue: &CommitQueue,
    file: LedgerFile,
    memory: Weak<Memory>,
    durable: watch::Sender<u64>,
) -> Result<(), String> {
    let shared = commit_queue.shared();
    let clock = commit_queue.clock();
    let writer = Writer {
        file,
        compaction: None,
        compact_above: 0,
        memory,
        durable,
        shared: Arc::clone(&shared),
        clock,
        inbox: Vec::new(),
    };
    let run = move || {
        // These values are dropped in reverse order. The reason for the end is therefore logged before waiting callers
        // receive an error. The end is reported only after the file is closed.
        let _file_closed = FileClosedGuard(Arc::clone(&shared));
        let mut writer = writer;
        let _end = EndGuard(shared);
        writer.run();
    };
    let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(run);
    thread.map(drop).map_err(|error| error.to_string())
}

struct Writer {
    file: LedgerFile,
    /// The new file of a compaction in progress.
    compaction: Option<Compaction>,
    /// A compaction begins only if the file is larger than this size. If a compaction fails or does not help, this size
    /// becomes twice the size of the file.
    compact_above: u64,
    /// The ledger in memory, from which the file is rewritten.
    memory: Weak<Memory>,
    shared: Arc<Shared>,
    durable: watch::Sender<u64>,
    clock: fn() -> Instant,
    /// The changes of the inbox that are not written to the file yet. They are not in memory, so a rewrite of the file
    /// needs them.
    inbox: Vec<Change>,
}

impl Writer {
    /// Writes changes until the commit queue is closed and empty, or until the file cannot be written any more.
    fn run(&mut self) {
        let mut batch = Vec::new();
        while let Some(last) = self.shared.next_batch(&mut batch, self.compaction.is_none(), self.clock) {
            if !batch.is_empty() {
                let Some(durable) = self.write(&batch, last) else { break };
                self.durable.send_replace(durable);
            }
            if !self.compact(&batch, last) {
                break;
            }
            batch.clear();
        }
        self.abandon_compaction();
    }

    /// Writes changes. Returns the sequence number of the last durable change, or `None` if the writer must end.
    fn write(&mut self, batch: &[Change], last: u64) -> Option<u64> {
        let began = (self.clock)();
        match self.file.apply(batch) {
            Ok(()) => {
                self.shared.metrics.commit(self.since(began).as_secs_f64());
                Some(last)
            }
            Err(fault) => self.recover(fault, batch, last),
        }
    }

    /// Begins or continues a compaction, if most of the file is free. `written` contains the changes that were just
    /// written to the file. Returns false if the writer must end, for example because another process has replaced the
    /// file.
    fn compact(&mut self, written: &[Change], last: u64) -> bool {
        let Some(memory) = self.memory.upgrade() else { return true };
        let begun = self.compaction.take().map(Ok).or_else(|| self.begin_compaction(&memory));
        let Some(begun) = begun else { return true };
        let before = self.file.size();
        let stepped =
            begun.and_then(|mut compaction| match compaction.step((&self.file, &memory), written) {
                Ok(is_complete) => Ok((compaction, is_complete)),
                Err(fault) => {
                    compaction.abandon();
                    Err(fault)
                }
            });
        let (in_place, result) = match stepped {
            Ok((compaction, false)) => {
                self.compaction = Some(compaction);
                return true;
            }
            Ok((compaction, true)) => compaction.finish(&mut self.file),
            Err(fault) => (false, Err(fault)),
        };
        let after = self.file.size();
        // If a compaction did not help, the next one begins only when the file is twice as large.
        let helped = result.is_ok() && self.file.size_if_mostly_free().is_none();
        self.compact_above = if helped { 0 } else { after.saturating_mul(2) };
        match result {
            Ok(()) => log::info!("the ledger's file was compacted from {before} to {after} bytes"),
            // Another process has put another file at this path. The next start would read that file, in which the
            // changes of this process are missing.
            Err(fault) if fault.kind == FaultKind::NotOurs => {
                self.give_up(&fault);
                return false;
            }
            // The new file is at the path, but a crash may bring back the former file. The former file lacks all later
            // changes. Callgate therefore recovers as after a failed write.
            Err(fault) if in_place => {
                let durable = self.recover(fault, &[], last);
                return durable.map(|durable| self.durable.send_replace(durable)).is_some();
            }
            Err(fault) => log::warn!("the ledger's file was not compacted: {}", fault.message),
        }
        true
    }

    fn begin_compaction(&self, memory: &Memory) -> Option<Result<Compaction, Fault>> {
        let size = self.file.size_if_mostly_free()?;
        (size > self.compact_above).then(|| Compaction::begin(&self.file, memory))
    }

    fn abandon_compaction(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            compaction.abandon();
        }
    }

    fn since(&self, began: Instant) -> Duration {
        (self.clock)().saturating_duration_since(began)
    }

    /// Tries to write until all changes up to `last` are durable. Returns the sequence number of the last durable
    /// change. Returns `None` if the writer must end, because the commit queue was closed or another process has
    /// replaced the file.
    fn recover(&mut self, mut fault: Fault, batch: &[Change], last: u64) -> Option<u64> {
        self.shared.set_failing();
        // The new file of a compaction may occupy the space that the old file lacks.
        self.abandon_compaction();
        log::error!(
            "the ledger's file cannot be written, and Callgate accepts nothing new until it can: {}",
            fault.message
        );
        let mut delay = BACKOFF_MIN;
        // Whether an attempt has failed for another reason than a lack of space. The content of the file is then
        // unknown, so the file must be rewritten from memory.
        let mut must_rewrite = false;
        loop {
            let closing = self.shared.wait_or_close(delay);
            let began = (self.clock)();
            if fault.kind == FaultKind::Broken && !must_rewrite {
                must_rewrite = true;
                self.inbox.extend(batch.iter().filter(|change| change.is_of_inbox()).cloned());
            }
            let result = if must_rewrite { self.rewrite() } else { self.retry(batch).map(|()| last) };
            match result {
                Ok(durable) => return Some(durable),
                Err(next) if next.kind == FaultKind::NotOurs => {
                    self.give_up(&next);
                    return None;
                }
                Err(next) => {
                    if next.message != fault.message {
                        log::warn!("the ledger's file cannot be written yet: {}", next.message);
                    }
                    fault = next;
                }
            }
            if closing {
                log::error!(
                    "the ledger's file lacks the last changes, which Callgate has not acknowledged to anybody"
                );
                return None;
            }
            delay = delay.saturating_mul(2).min(BACKOFF_MAX).max(self.since(began));
        }
    }

    /// Stops accepting changes, because another process has replaced the file. The caller must end the writer.
    fn give_up(&self, fault: &Fault) {
        self.shared.set_gone();
        log::error!(
            "the ledger's file {} is not overwritten: {}. Callgate accepts nothing new until a restart",
            self.file.path().display(),
            fault.message
        );
    }

    /// Opens the database in the same file again, and applies the changes again.
    fn retry(&mut self, batch: &[Change]) -> Result<(), Fault> {
        if !self.file.check_name()? {
            return Err(Fault::broken("it was removed"));
        }
        self.file.reopen()?;
        self.file.apply(batch)
    }

    /// Rewrites the file from memory. Returns a sequence number: the new file contains all changes up to this number.
    ///
    /// Every recorded change is already in memory, because a change is made in memory and recorded under the same lock.
    /// A change that is recorded during the rewrite may be in the new file, and is applied again by the next commit.
    /// This is harmless.
    fn rewrite(&mut self) -> Result<u64, Fault> {
        let memory = self.memory.upgrade().ok_or_else(|| Fault::broken("the ledger is closed"))?;
        self.file.check_name()?;
        let (last, pending) = self.shared.discard_pending();
        self.inbox.extend(pending);
        let mut new = LedgerFile::create_beside(self.file.path())?;
        let written = write_snapshot(&mut new, &memory).and_then(|()| self.write_messages(&mut new));
        if let Err(fault) = written {
            new.remove();
            return Err(fault);
        }
        self.file.replace_with(new).1.map(|()| {
            self.inbox.clear();
            last
        })
    }

    /// Copies the messages of the inbox to `new` from the last complete commit of the file. Then applies the changes of
    /// the inbox that the file lacks. If the ledger has no messages, does not read the file, because the file may be
    /// damaged.
    fn write_messages(&mut self, new: &mut LedgerFile) -> Result<(), Fault> {
        if !self.file.has_messages() && self.inbox.is_empty() {
            return Ok(());
        }
        // After a fault, the database must be opened again. This discards an incomplete commit.
        self.file.reopen()?;
        self.file.copy_messages(new)?;
        new.apply(&self.inbox)
    }
}

/// Writes the contents of the ledger to an empty file.
pub(super) fn write_snapshot(new: &mut LedgerFile, memory: &Memory) -> Result<(), Fault> {
    new.apply(&[memory.snapshot_key()])?;
    (0..SHARDS).try_for_each(|index| new.apply(&memory.snapshot(index)))?;
    let mut place = EventPlace::default();
    loop {
        let events = memory.snapshot_events(&mut place, EVENTS_PER_COMMIT);
        if events.is_empty() {
            return Ok(());
        }
        new.apply(&events)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;
    use crate::store::event_memory::FingerprintKey;
    use crate::store::tests::settings;

    #[test]
    fn a_compaction_that_failed_begins_again_when_the_file_is_twice_as_large() {
        /// A size at which a file without records is compacted.
        const SIZE: u64 = 32 << 20;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let metrics = Arc::new(Metrics::new().unwrap());
        let memory = Arc::new(Memory::new(settings(), FingerprintKey::random(), None, Arc::clone(&metrics)));
        let (commit_queue, durable) = CommitQueue::new(Duration::ZERO, metrics, crate::clock::instant);
        let mut writer = Writer {
            file: LedgerFile::open(path.to_str().unwrap()).unwrap(),
            compaction: None,
            compact_above: 0,
            memory: Arc::downgrade(&memory),
            shared: commit_queue.shared(),
            durable,
            clock: commit_queue.clock(),
            inbox: Vec::new(),
        };
        let resize = |bytes| {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(bytes).unwrap();
        };
        // While a folder has the path of the new file, the new file cannot be created.
        let obstacle = folder.path().join("ledger.new");
        std::fs::create_dir(&obstacle).unwrap();
        resize(SIZE);
        assert!(writer.compact(&[], 0) && writer.compaction.is_none());
        std::fs::remove_dir(&obstacle).unwrap();
        for (bytes, begins) in [(SIZE, false), (2 * SIZE, false), (2 * SIZE + 1, true)] {
            resize(bytes);
            assert!(writer.compact(&[], 0));
            assert_eq!(writer.compaction.is_some(), begins, "{bytes}");
        }
        while writer.compaction.is_some() {
            assert!(writer.compact(&[], 0));
        }
        assert!(std::fs::metadata(&path).unwrap().len() < SIZE, "the file was compacted");
        // After a compaction that has helped, the next one begins as soon as most of the file is free.
        resize(SIZE);
        assert!(writer.compact(&[], 0) && writer.compaction.is_some());
    }
}

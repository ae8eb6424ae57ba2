//! The thread that writes the ledger's file. When the disk fails, the thread tries again until the disk works.
//! `file/ledger_file.rs` describes the recovery after each kind of failure.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::file::{Change, EndGuard, Fault, FaultKind, FileClosedGuard, Journal, LedgerFile, Shared};
use super::memory::{Memory, SHARDS};

/// The first delay before the disk is tried again. The delay doubles after each attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest delay, unless an attempt itself takes longer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Starts the thread that writes the changes of a journal to its file. `durable` receives the number of the last change
/// that is on disk.
///
/// # Errors
/// Returns the reason as text if the thread cannot be started.
pub(super) fn start(
    journal: &Journal,
    file: LedgerFile,
    memory: Weak<Memory>,
    durable: watch::Sender<u64>,
) -> Result<(), String> {
    let shared = journal.shared();
    let writer = Writer { file, memory, durable, shared: Arc::clone(&shared), clock: journal.clock() };
    let run = move || {
        // Dropped in reverse order: the reason is logged before waiting callers receive an error, and the end is
        // reported once the file is closed.
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
    /// The contents of a rewritten file.
    memory: Weak<Memory>,
    shared: Arc<Shared>,
    durable: watch::Sender<u64>,
    clock: fn() -> Instant,
}

impl Writer {
    /// Writes changes until the journal is closed and empty, or until the file cannot be written any more.
    fn run(&mut self) {
        let mut batch = Vec::new();
        while let Some(last) = self.shared.next_batch(&mut batch, true, self.clock) {
            let began = (self.clock)();
            let durable = match self.file.apply(&batch) {
                Ok(()) => {
                    self.shared.metrics.commit(self.since(began).as_secs_f64());
                    Some(last)
                }
                Err(fault) => self.recover(fault, &batch, last),
            };
            let Some(durable) = durable else { return };
            self.durable.send_replace(durable);
            batch.clear();
        }
    }

    fn since(&self, began: Instant) -> Duration {
        (self.clock)().saturating_duration_since(began)
    }

    /// Tries until all changes up to `last` are durable. Returns the number of the last durable change. Returns `None`
    /// if the writer must end: the journal was closed meanwhile, or another process has replaced the file.
    fn recover(&mut self, mut fault: Fault, batch: &[Change], last: u64) -> Option<u64> {
        self.shared.set_failing();
        log::error!(
            "the ledger's file cannot be written, and Callgate accepts nothing new until it can: {}",
            fault.message
        );
        let mut delay = BACKOFF_MIN;
        // After any failure other than a lack of space, only the memory is known to be complete.
        let mut must_rewrite = false;
        loop {
            let closing = self.shared.wait_or_close(delay);
            let began = (self.clock)();
            must_rewrite |= fault.kind == FaultKind::Broken;
            let result = if must_rewrite { self.rewrite() } else { self.retry(batch).map(|()| last) };
            match result {
                Ok(durable) => return Some(durable),
                Err(next) if next.kind == FaultKind::NotOurs => {
                    self.shared.set_gone();
                    log::error!(
                        "the ledger's file {} is not overwritten: {}. Callgate accepts nothing new until a restart",
                        self.file.path().display(),
                        next.message
                    );
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

    /// Applies the changes to the same file again.
    fn retry(&mut self, batch: &[Change]) -> Result<(), Fault> {
        if !self.file.check_name()? {
            return Err(Fault::broken("it was removed"));
        }
        self.file.reopen()?;
        self.file.apply(batch)
    }

    /// Rewrites the file from memory. The memory includes every recorded change, because a change is recorded while its
    /// shard is locked. Changes that are recorded during the rewrite are applied to the new file later, once more.
    fn rewrite(&mut self) -> Result<u64, Fault> {
        let memory = self.memory.upgrade().ok_or_else(|| Fault::broken("the ledger is closed"))?;
        self.file.check_name()?;
        let last = self.shared.discard_pending();
        let mut new = LedgerFile::create_beside(self.file.path())?;
        let written = (0..SHARDS)
            .try_for_each(|index| new.apply(&memory.snapshot(index)))
            .and_then(|()| new.apply(&memory.snapshot_events()));
        if let Err(fault) = written {
            new.remove();
            return Err(fault);
        }
        self.file.replace_with(new).1.map(|()| last)
    }
}

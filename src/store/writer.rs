//! The one thread that writes the ledger's file, and what it does when the disk does not take something: it tries
//! until the disk does. [`super::file`] says which way is right after what.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::change::Change;
use super::file::{Fault, LedgerFile};
use super::journal::{Closed, Ending, Journal, Shared};
use super::memory::{Memory, SHARDS};

/// The first pause before the disk is tried again; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause, unless a try itself takes longer.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Starts the thread that writes the changes of a journal to its file. `safe` receives the number of the last change that
/// is on disk.
///
/// # Errors
/// Returns the reason as text if the thread cannot be started.
pub(super) fn start(
    journal: &Journal,
    file: LedgerFile,
    memory: Weak<Memory>,
    safe: watch::Sender<u64>,
) -> Result<(), String> {
    let shared = journal.shared();
    let writer = Writer { file, memory, safe, shared: Arc::clone(&shared), clock: journal.clock() };
    let run = move || {
        // Dropped in reverse order: the reason is logged before waiting callers are refused, and the end is reported once
        // the file is closed.
        let _closed = Closed(Arc::clone(&shared));
        let mut writer = writer;
        let _ending = Ending(shared);
        writer.run();
    };
    let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(run);
    thread.map(drop).map_err(|error| error.to_string())
}

/// The writer.
struct Writer {
    file: LedgerFile,
    /// What the file is made anew from.
    memory: Weak<Memory>,
    shared: Arc<Shared>,
    safe: watch::Sender<u64>,
    clock: fn() -> Instant,
}

impl Writer {
    /// Writes until there is nothing to write any more.
    fn run(&mut self) {
        let mut batch = Vec::new();
        while let Some(last) = self.shared.take(&mut batch, self.clock) {
            let began = (self.clock)();
            let safe = match self.file.apply(&batch) {
                Ok(()) => {
                    self.shared.metrics.commit(self.since(began).as_secs_f64());
                    Some(last)
                }
                Err(fault) => self.heal(fault, &batch, last),
            };
            let Some(safe) = safe else { return };
            self.safe.send_replace(safe);
            batch.clear();
        }
    }

    fn since(&self, began: Instant) -> Duration {
        (self.clock)().saturating_duration_since(began)
    }

    /// Tries until everything up to `last` is safe. Returns the number of the last change that is; `None`: the journal
    /// was closed meanwhile.
    fn heal(&mut self, mut fault: Fault, batch: &[Change], last: u64) -> Option<u64> {
        self.shared.fails();
        log::error!(
            "the ledger's file cannot be written, and nothing is taken until it can: {}",
            fault.message
        );
        let mut pause = PAUSE_MIN;
        // From the first time on that something else than room was lacking, only memory has everything.
        let mut anew = false;
        loop {
            let closing = self.shared.pause(pause);
            let began = (self.clock)();
            anew |= !fault.no_room;
            let tried = match anew {
                true => self.make_anew(),
                false => self.file.reopen().and_then(|()| self.file.apply(batch)).map(|()| last),
            };
            match tried {
                Ok(safe) => return Some(safe),
                Err(next) => {
                    if next.message != fault.message {
                        log::warn!("the ledger's file cannot be written yet: {}", next.message);
                    }
                    fault = next;
                }
            }
            if closing {
                log::error!(
                    "the ledger's file lacks what could not be written, and what nobody was told is safe"
                );
                return None;
            }
            pause = pause.saturating_mul(2).min(PAUSE_MAX).max(self.since(began));
        }
    }

    /// Makes the file anew from memory, which holds everything that was ever handed over: a change is handed over while
    /// what it changes is locked. Changes that come meanwhile are applied to the new file after that, once more.
    fn make_anew(&mut self) -> Result<u64, Fault> {
        let memory = self.memory.upgrade().ok_or_else(|| Fault::of("the ledger is gone"))?;
        let last = self.shared.forget();
        let path: Box<str> = self.file.path().into();
        let mut made = LedgerFile::make_beside(&path)?;
        let whole = (0..SHARDS)
            .try_for_each(|index| made.apply(&memory.snapshot(index)))
            .and_then(|()| made.apply(&memory.snapshot_loose()));
        if let Err(fault) = whole {
            made.remove();
            return Err(fault);
        }
        let moved = made.move_to(&path);
        match *made.path() == *path {
            // The other one has no name any more; its lock ends with it, after this one is locked and in its place.
            true => self.file = made,
            false => made.remove(),
        }
        moved.map(|()| last)
    }
}

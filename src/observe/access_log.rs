//! The access log: one JSON line per request. A line is put together where the request ends and written by
//! a thread of its own, many at a time, so that a slow terminal never holds up a callback.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Lines wait at most about this long.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for a reader of the log that does not read, when the process stops.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// From this many bytes on, lines are written without waiting for more.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes of lines that may wait; beyond it lines are lost and counted.
const PENDING_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    closed: bool,
    /// Everything is written and the writer is gone.
    done: bool,
    /// The writer sleeps until there is a line.
    writer_waits: bool,
    /// The writer lets lines gather, until there is a batch or the interval is over.
    gathering: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
    written: Condvar,
}

/// Takes entries and writes them.
#[derive(Debug)]
pub struct AccessLogger {
    shared: Arc<Shared>,
}

impl AccessLogger {
    /// Starts writing to `out`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&theirs, out))?;
        Ok(Self { shared })
    }

    /// Takes one line. Returns whether there was room for it.
    pub fn log(&self, line: &[u8]) -> bool {
        let mut pending = self.shared.pending.lock();
        if pending.bytes.len() + line.len() > PENDING_BYTES_MAX {
            return false;
        }
        pending.bytes.extend_from_slice(line);
        let full = pending.gathering && pending.bytes.len() >= BATCH_BYTES;
        let wake = std::mem::take(&mut pending.writer_waits) || full;
        pending.gathering &= !full;
        drop(pending);
        if wake {
            self.shared.wake.notify_one();
        }
        true
    }
}

/// Writes what is left, unless nobody reads it.
impl Drop for AccessLogger {
    fn drop(&mut self) {
        let mut pending = self.shared.pending.lock();
        pending.closed = true;
        self.shared.wake.notify_one();
        if !pending.done {
            let _ = self.shared.written.wait_for(&mut pending, CLOSE_DEADLINE);
        }
    }
}

fn write(shared: &Shared, mut out: impl Write) {
    let mut batch = Vec::new();
    loop {
        let mut pending = shared.pending.lock();
        while pending.bytes.is_empty() && !pending.closed {
            pending.writer_waits = true;
            shared.wake.wait(&mut pending);
        }
        // Let a few more lines gather: one write for many requests.
        if !pending.closed && pending.bytes.len() < BATCH_BYTES {
            pending.gathering = true;
            let _ = shared.wake.wait_for(&mut pending, FLUSH_INTERVAL);
            pending.gathering = false;
        }
        std::mem::swap(&mut batch, &mut pending.bytes);
        let closed = pending.closed;
        drop(pending);
        // A reader that went away is no reason to stop serving.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        batch.shrink_to(4 * BATCH_BYTES);
        let mut pending = shared.pending.lock();
        if closed && pending.bytes.is_empty() {
            pending.done = true;
            drop(pending);
            // The reader may wait for the end of what is written.
            drop(out);
            shared.written.notify_one();
            return;
        }
    }
}

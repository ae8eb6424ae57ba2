//! The access log: one JSON line per request.
//!
//! The task that handles a request formats the line of this request. A separate thread writes the lines in batches, so
//! that a slow reader of the log never delays a callback.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The maximum time that a line of the access log waits for more lines. The lines are then written together.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// The maximum time for which a stopping process waits until the remaining lines of the access log are written.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// The size in bytes at which a batch of access-log lines is written without waiting for more lines.
const BATCH_BYTES: usize = 64 << 10;
/// The maximum size of all access-log lines that wait to be written, in bytes. Further lines are dropped, and `log`
/// returns `false` for them.
const PENDING_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    closed: bool,
    /// Whether the writer thread has written all lines of the access log and no longer writes.
    done: bool,
    /// Whether the writer thread of the access log is waiting for the first line of a batch.
    writer_waits: bool,
    /// Whether the writer thread of the access log is waiting until the batch is full or [`FLUSH_INTERVAL`] is over.
    gathering: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
    written: Condvar,
}

/// Queues lines for the thread that writes the access log.
#[derive(Debug)]
pub struct AccessLogger {
    shared: Arc<Shared>,
}

impl AccessLogger {
    /// Starts the thread that writes the access log to `out`.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&theirs, out))?;
        Ok(Self { shared })
    }

    /// Queues one line of the access log. Drops the line and returns `false` if the queue is full.
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

/// Dropping the access logger waits up to `CLOSE_DEADLINE` until the queued lines are written.
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
        // Waits for more lines, so that one write serves many requests.
        if !pending.closed && pending.bytes.len() < BATCH_BYTES {
            pending.gathering = true;
            let _ = shared.wake.wait_for(&mut pending, FLUSH_INTERVAL);
            pending.gathering = false;
        }
        std::mem::swap(&mut batch, &mut pending.bytes);
        let closed = pending.closed;
        drop(pending);
        // Write errors are ignored. If nobody reads the log, Callgate must still serve callbacks.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        batch.shrink_to(4 * BATCH_BYTES);
        let mut pending = shared.pending.lock();
        if closed && pending.bytes.is_empty() {
            pending.done = true;
            drop(pending);
            // Closes the output before `AccessLogger::drop` returns, because a program that reads the log may wait for
            // the end of the output.
            drop(out);
            shared.written.notify_one();
            return;
        }
    }
}

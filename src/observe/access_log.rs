//! The access log: one JSON line per request. A line is put together where the request ends and written by
//! a thread of its own, many at a time, so that a slow terminal never holds up a callback.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::trail::Trail;

/// Lines wait at most about this long.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// From this many bytes on, lines are written without waiting for more.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes of lines that may wait; beyond it lines are lost and counted.
const PENDING_BYTES_MAX: usize = 8 << 20;

/// What the log says of one request. Never a token, a secret, a query or a body.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// When the request ended: RFC 3339, UTC.
    pub time: String,
    /// The id the caller was told, too.
    pub request_id: &'a str,
    /// `none` where no route has the path.
    pub route: &'a str,
    /// `none` without one.
    pub provider: &'a str,
    /// `allow`, `deny` or `fail`.
    pub verdict: &'static str,
    /// A denial's code, or `ok`.
    pub reason: &'static str,
    /// The status the caller saw; 0 when it saw none.
    pub status: u16,
    /// As sent, if it is one of the methods that exist.
    pub method: &'a str,
    /// The path, redacted.
    pub path: &'a str,
    /// Who called, as far as it could be told.
    pub client: Option<IpAddr>,
    /// Who is at the other end of the connection, if that is not the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// The interaction, where the token named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interaction: Option<&'a str>,
    /// Bytes of the body that came in.
    pub body_bytes: u64,
    /// From the end of the head to the end of the answer, in microseconds.
    pub duration_us: u64,
    /// Spent with the agent, in microseconds.
    pub deliver_us: u64,
    /// Check -> nanoseconds, in the order they ran.
    pub trail_ns: Timings<'a>,
}

/// The times of a trail.
#[derive(Debug)]
pub struct Timings<'a>(pub &'a Trail);

impl Serialize for Timings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for step in self.0.steps() {
            map.serialize_entry(step.check.name(), &step.nanos)?;
        }
        map.end()
    }
}

/// A path that no route has, made fit for a log: what could be a token is blanked, controls are escaped.
pub fn redact_path(path: &str) -> String {
    let blank = |segment: &str| segment.len() > 40 || segment.contains("eyJ");
    let shown = path.split('/').map(|segment| if blank(segment) { "[redacted]" } else { segment });
    shown.take(16).collect::<Vec<_>>().join("/").escape_default().to_string()
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    lines_lost: u64,
    closed: bool,
    /// The writer sleeps until there is a line.
    writer_waits: bool,
    /// The writer lets lines gather, until there is a batch or the interval is over.
    gathering: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// Takes entries and writes them.
#[derive(Debug)]
pub struct AccessLogger {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLogger {
    /// Starts writing to `out`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let writer =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&theirs, out))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Takes one entry. Returns how many lines were lost since the last call.
    pub fn log(&self, entry: &Entry<'_>) -> u64 {
        let mut line = Vec::with_capacity(640);
        if serde_json::to_writer(&mut line, entry).is_err() {
            return 1;
        }
        line.push(b'\n');
        let mut pending = self.shared.pending.lock();
        if pending.bytes.len() + line.len() > PENDING_BYTES_MAX {
            pending.lines_lost += 1;
        } else {
            pending.bytes.extend_from_slice(&line);
        }
        let lost = std::mem::take(&mut pending.lines_lost);
        let full = pending.gathering && pending.bytes.len() >= BATCH_BYTES;
        let wake = std::mem::take(&mut pending.writer_waits) || full;
        pending.gathering &= !full;
        drop(pending);
        if wake {
            self.shared.wake.notify_one();
        }
        lost
    }
}

/// Writes what is left.
impl Drop for AccessLogger {
    fn drop(&mut self) {
        self.shared.pending.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
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
        if closed && shared.pending.lock().bytes.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_strangers_are_redacted() {
        assert_eq!(redact_path("/webhooks/doc-1"), "/webhooks/doc-1");
        assert_eq!(redact_path("/w/eyJhbGciOi.x.y/z"), "/w/[redacted]/z");
        assert_eq!(redact_path(&format!("/w/{}", "a".repeat(64))), "/w/[redacted]");
        assert_eq!(redact_path("/a\n\u{1b}[31m\"x"), "/a\\n\\u{1b}[31m\\\"x");
    }
}

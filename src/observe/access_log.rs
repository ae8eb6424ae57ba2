//! The access log: one JSON line per request. A line is put together where the request ends and written by
//! a thread of its own, many at a time, so that a slow terminal never holds up a callback.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::source::write_address;
use crate::time::Timestamp;
use crate::trail::Trail;

/// Lines wait at most about this long.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// Longest explanation of a denial, in bytes; a longer one is cut if that is possible.
const DETAIL_BYTES_MAX: usize = 300;
/// Longest wait for a reader of the log that does not read, when the process stops.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// From this many bytes on, lines are written without waiting for more.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes of lines that may wait; beyond it lines are lost and counted.
const PENDING_BYTES_MAX: usize = 8 << 20;

/// What the log says of one request. Never a token, a secret, a query or a body.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When the request ended.
    pub time: Timestamp,
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
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
    /// The interaction, where the token named one.
    pub interaction: Option<&'a str>,
    /// Bytes of the body that came in.
    pub body_bytes: u64,
    /// From the end of the head to the end of the answer, in microseconds.
    pub duration_us: u64,
    /// Spent with the agent, in microseconds.
    pub deliver_us: u64,
    /// The checks that ran; the log gives the nanoseconds of each, or null where they count with the next.
    pub trail: &'a Trail,
}

impl Entry<'_> {
    /// Writes the line. By hand, because it is written for every request and a serializer takes four times
    /// as long; only what a caller can choose is looked at for characters that JSON escapes.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}", self.time);
        word(out, "\",\"request_id\":\"", self.request_id);
        word(out, "\",\"route\":\"", self.route);
        word(out, "\",\"provider\":\"", self.provider);
        word(out, "\",\"verdict\":\"", self.verdict);
        word(out, "\",\"reason\":\"", self.reason);
        word(out, "\",\"method\":\"", self.method);
        number(out, "\",\"status\":", self.status.into());
        text(out, ",\"path\":", self.path);
        if let Some(client) = self.client {
            address(out, ",\"client\":\"", client);
        }
        if self.client != Some(self.peer.to_canonical()) {
            address(out, ",\"peer\":\"", self.peer);
        }
        if let Some(detail) = self.trail.refusal().filter(|detail| !detail.is_empty()) {
            text(out, ",\"detail\":", detail.get(..DETAIL_BYTES_MAX).unwrap_or(detail));
        }
        if let Some(interaction) = self.interaction {
            text(out, ",\"interaction\":", interaction);
        }
        number(out, ",\"body_bytes\":", self.body_bytes);
        number(out, ",\"duration_us\":", self.duration_us);
        number(out, ",\"deliver_us\":", self.deliver_us);
        out.extend_from_slice(b",\"trail_ns\":{");
        for (i, step) in self.trail.steps().enumerate() {
            out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
            word(out, step.check.name(), "\":");
            match step.nanos {
                Some(nanos) => number(out, "", nanos.into()),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"}}\n");
    }
}

/// A value that needs no escaping: names of the configuration, codes, hexadecimal. `before` is what stands
/// before it in the line.
fn word(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// A value that may hold anything.
fn text(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    let plain = value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\');
    if plain {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(out, value);
    }
}

fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn address(out: &mut Vec<u8>, before: &str, value: IpAddr) {
    out.extend_from_slice(before.as_bytes());
    write_address(out, value);
    out.push(b'"');
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

    /// Takes one entry. Returns whether there was room for it.
    pub fn log(&self, entry: &Entry<'_>) -> bool {
        let mut line = Vec::with_capacity(640);
        entry.write(&mut line);
        let mut pending = self.shared.pending.lock();
        if pending.bytes.len() + line.len() > PENDING_BYTES_MAX {
            return false;
        }
        pending.bytes.extend_from_slice(&line);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_is_in_it() {
        let path = "/a\"b\\c\u{1}é\n";
        for client in [None, Some(IpAddr::from([1, 2, 3, 4]))] {
            let entry = Entry {
                time: Timestamp::from_unix_secs(1_767_225_600),
                request_id: "r",
                route: "none",
                provider: "none",
                verdict: "deny",
                reason: "path_malformed",
                status: 400,
                method: "GET",
                path,
                client,
                peer: IpAddr::from([1, 2, 3, 4]),
                interaction: Some("int_1"),
                body_bytes: u64::MAX,
                duration_us: 0,
                deliver_us: 0,
                trail: &Trail::verbose(),
            };
            let mut line = Vec::new();
            entry.write(&mut line);
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!((read["path"].as_str(), read["body_bytes"].as_u64()), (Some(path), Some(u64::MAX)));
            assert_eq!(read["time"], "2026-01-01T00:00:00Z");
            assert_eq!(read["peer"].is_null(), client.is_some());
        }
    }

    #[test]
    fn paths_of_strangers_are_redacted() {
        assert_eq!(redact_path("/webhooks/doc-1"), "/webhooks/doc-1");
        assert_eq!(redact_path("/w/eyJhbGciOi.x.y/z"), "/w/[redacted]/z");
        assert_eq!(redact_path(&format!("/w/{}", "a".repeat(64))), "/w/[redacted]");
        assert_eq!(redact_path("/a\n\u{1b}[31m\"x"), "/a\\n\\u{1b}[31m\\\"x");
    }
}

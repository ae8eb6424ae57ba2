//! Records requests in the metrics, the access log, the trace spans, and the recent requests of the admin page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::http::{Session, TRACEPARENT};
use crate::observe::capture::Captures;
use crate::observe::{AccessLogger, Metrics, Recent, Span, Traces};

/// The destinations to which each request is written: metrics, access log, trace spans, recent requests and captured
/// requests.
pub(crate) struct Recorder {
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: Option<AccessLogger>,
    pub(crate) traces: Option<Traces>,
    /// The recent requests for the admin page. `None` if there is no admin page.
    pub(crate) recent: Option<Arc<Recent>>,
    /// The captured requests: denied requests that are stored for an operator.
    pub(crate) captures: Arc<Captures>,
    pub(crate) request_ids: RequestIds,
}

impl Recorder {
    /// Begins the trace span of a request. Returns `None` if tracing is disabled.
    pub(crate) fn begin_span(&self, session: &Session, name: &'static str) -> Option<Span> {
        let traces = self.traces.as_ref()?;
        let parent = session.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Some(traces.begin(name, parent))
    }

    /// Writes a line to the access log, unless the access log is disabled.
    pub(crate) fn log(&self, line: impl FnOnce() -> Vec<u8>) {
        if let Some(log) = &self.access_log
            && !log.log(&line())
        {
            self.metrics.log_line_lost();
        }
    }
}

/// Creates request ids. A caller can quote the id in the response to a denied request, so that the operator can find
/// the request in the access log.
pub(crate) struct RequestIds {
    prefix: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let mut prefix = [0; 4];
        // Request ids must be unique across restarts, but they do not have to be secret.
        let _ = getrandom::fill(&mut prefix);
        Self { prefix: u32::from_le_bytes(prefix), next: AtomicU64::new(1) }
    }

    pub(crate) fn next(&self) -> String {
        let number =
            (u64::from(self.prefix) << 32) | (self.next.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff);
        data_encoding::HEXLOWER.encode(&number.to_be_bytes())
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Returns a standard HTTP method unchanged, and `other` for any other method. The metrics and the log need a bounded
/// set of methods, because a caller can send any text as the method.
pub(crate) fn known_method(method: &str) -> &str {
    match method {
        "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE" => method,
        _ => "other",
    }
}

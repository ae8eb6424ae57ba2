//! Records requests to the egress listener in the metrics, the access log and the trace.

use std::time::Instant;

use super::context::EgressContext;
use crate::clock::instant;
use crate::denial::Denial;
use crate::observe::{EgressEntry, Span};
use crate::proxy::runtime::{known_method, micros};

/// The result of a request to the egress listener.
pub(crate) struct ExchangeEnd {
    /// If the request was not denied, the reason for the log: `kept` if the request already contained a callback URL
    /// that Callgate did not replace, and otherwise `ok`. If the request was denied, the denial.
    pub(crate) outcome: Result<&'static str, Denial>,
    pub(crate) status: u16,
    /// Whether the connection can be used for another request.
    pub(crate) reusable: bool,
}

/// The details of a request to the egress listener for the log, the metrics and the trace. The details are set while
/// the request is processed.
pub(crate) struct RequestDetails {
    pub(crate) rule: Box<str>,
    /// The path of the request, with `[token]` in place of text that could be a token. `-` if the path is unknown.
    pub(crate) path: String,
    pub(crate) detail: Option<String>,
    pub(crate) interaction: Option<String>,
    /// The host and the port of a request to the forward proxy. `None` for all other requests.
    pub(crate) host: Option<String>,
    pub(crate) body_bytes: u64,
    /// The number of bytes that the host of a tunnel has sent. `None` if the request is not a tunnel.
    pub(crate) received_bytes: Option<u64>,
}

impl Default for RequestDetails {
    fn default() -> Self {
        Self {
            rule: "none".into(),
            path: "-".to_owned(),
            detail: None,
            interaction: None,
            host: None,
            body_bytes: 0,
            received_bytes: None,
        }
    }
}

/// Records one request to the egress listener. `method` is `-` if the request head could not be parsed.
pub(crate) fn record_exchange(
    context: &EgressContext,
    method: &str,
    request_id: &str,
    details: &RequestDetails,
    end: &ExchangeEnd,
    began: Instant,
    span: Option<Span>,
) {
    let took = instant().saturating_duration_since(began);
    let (verdict, reason) = match end.outcome {
        Ok(reason) => ("allow", reason),
        Err(denial) => (denial.verdict(), denial.code()),
    };
    // A tunnel is not recorded in the metric for request durations, because a tunnel may last for hours.
    if details.received_bytes.is_none() {
        context.recorder.metrics.egress(&details.rule, verdict, reason, took.as_secs_f64());
    }
    if context.recorder.access_log.is_none() && span.is_none() {
        return;
    }
    let entry = EgressEntry {
        time: context.clocks.now(),
        request_id,
        rule: &details.rule,
        verdict,
        reason,
        status: end.status,
        method: if method == "-" { method } else { known_method(method) },
        host: details.host.as_deref(),
        received_bytes: details.received_bytes,
        path: &details.path,
        detail: details.detail.as_deref(),
        interaction: details.interaction.as_deref(),
        body_bytes: details.body_bytes,
        duration_us: micros(took),
    };
    context.recorder.log(|| entry.line());
    if let Some(span) = span {
        span.end_egress(&entry);
    }
}

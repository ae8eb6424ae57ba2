//! Records egress exchanges in the metrics, the access log and the trace.

use std::time::Instant;

use super::context::EgressContext;
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::Session;
use crate::observe::{EgressEntry, Span};
use crate::proxy::runtime::{known_method, micros};

/// The result of an exchange.
pub(crate) struct ExchangeEnd {
    /// `ok` or `kept` if the request was sent, and the denial otherwise.
    pub(crate) outcome: Result<&'static str, Denial>,
    pub(crate) status: u16,
    /// Whether the connection can carry another request.
    pub(crate) reusable: bool,
}

/// The details of a request for the log, the metrics and the trace. They are set while the request is processed.
pub(crate) struct RequestDetails {
    pub(crate) rule: Box<str>,
    /// The path, with text that could be a token replaced. `-` if the path is unknown.
    pub(crate) path: String,
    pub(crate) detail: Option<String>,
    pub(crate) interaction: Option<String>,
    pub(crate) body_bytes: u64,
}

impl Default for RequestDetails {
    fn default() -> Self {
        Self { rule: "none".into(), path: "-".to_owned(), detail: None, interaction: None, body_bytes: 0 }
    }
}

/// Records one exchange.
pub(crate) fn record_exchange(
    context: &EgressContext,
    session: Option<&Session>,
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
    context.recorder.metrics.egress(&details.rule, verdict, reason, took.as_secs_f64());
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
        method: session.map_or("-", |session| known_method(session.method().as_str())),
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

//! The record of a request of the agent: one counter, one line in the access log, one trace span.

use std::time::Instant;

use super::context::EgressContext;
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::Session;
use crate::observe::{EgressEntry, Span};
use crate::proxy::runtime::{known_method, micros};

/// How an exchange ended.
pub(crate) struct ExchangeEnd {
    /// `ok` or `kept`; or why not.
    pub(crate) outcome: Result<&'static str, Denial>,
    pub(crate) status: u16,
    /// Whether the connection is in a state to take another request.
    pub(crate) reusable: bool,
}

/// What the log, the metrics and the span tell of a request, as far as it got.
pub(crate) struct RequestDetails {
    pub(crate) rule: Box<str>,
    /// `-`: it cannot be told.
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

/// Counts and logs a request.
pub(crate) fn record(
    context: &EgressContext,
    session: Option<&Session>,
    request_id: &str,
    told: &RequestDetails,
    ended: &ExchangeEnd,
    began: Instant,
    span: Option<Span>,
) {
    let took = instant().saturating_duration_since(began);
    let (verdict, reason) = match ended.outcome {
        Ok(reason) => ("allow", reason),
        Err(denial) => (denial.verdict(), denial.code()),
    };
    context.recorder.metrics.egress(&told.rule, verdict, reason, took.as_secs_f64());
    if context.recorder.access_log.is_none() && span.is_none() {
        return;
    }
    let entry = EgressEntry {
        time: context.clocks.now(),
        request_id,
        rule: &told.rule,
        verdict,
        reason,
        status: ended.status,
        method: session.map_or("-", |session| known_method(session.method().as_str())),
        path: &told.path,
        detail: told.detail.as_deref(),
        interaction: told.interaction.as_deref(),
        body_bytes: told.body_bytes,
        duration_us: micros(took),
    };
    context.recorder.log(|| entry.line());
    if let Some(span) = span {
        span.end_egress(&entry);
    }
}

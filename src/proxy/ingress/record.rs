//! How an exchange on the ingress ended: counted, told in one line of the access log, and kept for the admin page.

use std::time::{Duration, Instant};

use crate::clock::instant;
use crate::denial::Denial;
use crate::http::{Session, head_of};
use crate::ingress::{Denied, Seen};
use crate::observe::{Entry, Span, redact_path};
use crate::proxy::listen::ConnInfo;
use crate::proxy::runtime::{Recorder, known_method, micros};
use crate::trail::Trail;

/// What came of it.
pub(crate) enum Outcome {
    /// `ok`, `duplicate`, `stale`, `handshake` or `document`.
    Allowed(&'static str),
    /// Delivered on a route that only observes: what would have come of it, and every denial there would have been.
    Observed(&'static str, Vec<Denial>),
    /// Why not.
    Refused(Denial),
}

/// How an exchange ended.
pub(crate) struct ExchangeRecord {
    pub(crate) seen: Seen,
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) deliver: Duration,
    /// Whether the connection is in a state to take another request.
    pub(crate) reusable: bool,
    /// When the answer had been written.
    pub(crate) at: Instant,
}

impl ExchangeRecord {
    /// Answered with `status`; 0: the caller was not there to hear it.
    pub(crate) fn answered(seen: Seen, outcome: Outcome, status: u16, reusable: bool) -> Self {
        Self { seen, outcome, status, body_bytes: 0, deliver: Duration::ZERO, reusable, at: instant() }
    }

    /// Refused; `told` says whether the caller could be told.
    pub(crate) fn refused(denied: Denied, body_bytes: u64, told: bool) -> Self {
        Self {
            seen: denied.seen,
            outcome: Outcome::Refused(denied.denial),
            status: if told { denied.denial.status() } else { 0 },
            body_bytes,
            deliver: Duration::ZERO,
            reusable: told,
            at: instant(),
        }
    }
}

/// Counts, logs and keeps one exchange.
pub(crate) fn record(
    recorder: &Recorder,
    (session, span): (Option<&Session>, Option<Span>),
    link: &ConnInfo,
    request_id: &str,
    trail: &Trail,
    ended: &ExchangeRecord,
    took: Duration,
) {
    let route = ended.seen.route.as_deref();
    let (name, provider) = route.map_or(("none", "none"), |route| (&*route.name, route.provider_name()));
    let (verdict, reason, observed) = match &ended.outcome {
        Outcome::Allowed(reason) => ("allow", *reason, &[] as &[_]),
        Outcome::Observed(instead, denials) => ("observe", *instead, denials.as_slice()),
        Outcome::Refused(denial) => (denial.verdict(), denial.code(), &[] as &[_]),
    };
    for denial in observed {
        recorder.metrics.observed(name, provider, denial.code());
    }
    recorder.metrics.request(name, provider, verdict, reason, trail.nanos());
    if !ended.deliver.is_zero() {
        recorder.metrics.delivery(name, ended.deliver.as_secs_f64());
    }
    let recent = recorder.recent.as_ref().filter(|recent| recent.is_on());
    if recorder.access_log.is_none() && recent.is_none() && span.is_none() {
        return;
    }
    let path = match (&ended.seen.captures, session) {
        (Some(captures), _) => captures.redacted_path(),
        (None, Some(session)) => redact_path(head_of(session, link.caller()).raw_path()),
        (None, None) => "-".to_owned(),
    };
    let entry = Entry {
        time: recorder.clock.now(),
        request_id,
        route: name,
        provider,
        verdict,
        reason,
        status: ended.status,
        method: session.map_or("-", |session| known_method(session.method().as_str())),
        path: &path,
        client: ended.seen.client,
        peer: link.peer,
        observed,
        interaction: ended.seen.interaction.as_deref(),
        body_bytes: ended.body_bytes,
        duration_us: micros(took),
        deliver_us: micros(ended.deliver),
        trail,
    };
    if let Some(recent) = recent {
        recent.keep(&entry);
    }
    recorder.log(|| entry.line());
    if let Some(span) = span {
        span.end(&entry);
    }
}

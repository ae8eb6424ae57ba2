//! Records ingress requests in the metrics, the access log, the trace, and the recent requests of the admin page.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::clock::instant;
use crate::denial::Denial;
use crate::http::{Caller, Session, head_of};
use crate::ingress::{Denied, Seen};
use crate::observe::{Entry, Span, redact_path};
use crate::proxy::runtime::{Recorder, known_method, micros};
use crate::trail::Trail;

/// The outcome of an ingress request, for the log and the metrics.
pub(crate) enum Outcome {
    /// Not denied. Contains the reason for the log, such as `ok`, `duplicate`, `stale`, `accepted`, `handed_over`,
    /// `handshake`, `stream` or `health`.
    Allowed(&'static str),
    /// Delivered on a route in observe mode. Contains the outcome that the request would have had in enforce mode, and
    /// the denial of every check that failed.
    Observed(&'static str, Vec<Denial>),
    /// Denied, for this reason.
    Denied(Denial),
}

/// The result of an ingress request.
pub(crate) struct ExchangeRecord {
    pub(crate) seen: Seen,
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) delivery_duration: Duration,
    /// The address of the other replica that responded to the forwarded callback.
    pub(crate) member: Option<Box<str>>,
    /// The address of the replica that forwarded the callback to this process.
    pub(crate) from_member: Option<Box<str>>,
    /// Whether the connection can be used for another request.
    pub(crate) reusable: bool,
    /// The time at which the response was written.
    pub(crate) ended_at: Instant,
}

impl ExchangeRecord {
    /// Creates the result of a request with a response. `status` is 0 if the response could not be written.
    pub(crate) fn responded(seen: Seen, outcome: Outcome, status: u16, reusable: bool) -> Self {
        Self {
            seen,
            outcome,
            status,
            body_bytes: 0,
            delivery_duration: Duration::ZERO,
            member: None,
            from_member: None,
            reusable,
            ended_at: instant(),
        }
    }

    /// Creates the result of a request to which Callgate responded without checks, such as a health check.
    pub(crate) fn without_checks(reason: &'static str, status: u16, was_written: bool) -> Self {
        let status = if was_written { status } else { 0 };
        Self::responded(Seen::default(), Outcome::Allowed(reason), status, was_written)
    }

    /// Creates the result of a denied request.
    pub(crate) fn denied(denied: Denied, body_bytes: u64, was_written: bool) -> Self {
        Self {
            seen: denied.seen,
            outcome: Outcome::Denied(denied.denial),
            status: if was_written { denied.denial.status() } else { 0 },
            body_bytes,
            delivery_duration: Duration::ZERO,
            member: None,
            from_member: None,
            reusable: was_written,
            ended_at: instant(),
        }
    }
}

/// Writes one ingress request to the metrics, the access log, the trace and the recent requests.
pub(crate) fn record_exchange(
    recorder: &Recorder,
    (session, span): (Option<&Session>, Option<Span>),
    peer: IpAddr,
    request_id: &str,
    trail: &Trail,
    end: &ExchangeRecord,
    duration: Duration,
) {
    let route = end.seen.route.as_deref();
    let (name, provider) = route.map_or(("none", "none"), |route| (&*route.name, route.provider_name()));
    let (verdict, reason, observed) = match &end.outcome {
        // A duplicate is not delivered, so it does not count as an allowed callback.
        Outcome::Allowed("duplicate") => ("duplicate", "duplicate", &[] as &[_]),
        Outcome::Allowed(reason) => ("allow", *reason, &[] as &[_]),
        Outcome::Observed(instead, denials) => ("observe", *instead, denials.as_slice()),
        Outcome::Denied(denial) => (denial.verdict(), denial.code(), &[] as &[_]),
    };
    for denial in observed {
        recorder.metrics.observed(name, provider, denial.code());
    }
    recorder.metrics.request(name, provider, verdict, reason, trail.nanos());
    if !end.delivery_duration.is_zero() {
        recorder.metrics.delivery(name, end.delivery_duration.as_secs_f64());
    }
    // Load balancers send a health check every few seconds, which would fill the log.
    if matches!(end.outcome, Outcome::Allowed("health")) {
        return;
    }
    let recent = recorder.recent.as_ref().filter(|recent| recent.is_on());
    if recorder.access_log.is_none() && recent.is_none() && span.is_none() {
        return;
    }
    let path = match (&end.seen.captures, session) {
        (Some(captures), _) => captures.redacted_path(),
        (None, Some(session)) => redact_path(head_of(session, Caller::at(peer)).raw_path()),
        (None, None) => "-".to_owned(),
    };
    let entry = Entry {
        time: recorder.clock.now(),
        request_id,
        route: name,
        provider,
        agent: route.map(|route| &*route.agent.name),
        verdict,
        reason,
        observes: route.is_some_and(|route| route.observes()),
        status: end.status,
        method: session.map_or("-", |session| known_method(session.method().as_str())),
        path: &path,
        client: end.seen.client,
        peer,
        observed,
        interaction: end.seen.interaction.as_deref(),
        event_id: end.seen.event_id.as_deref(),
        secret: end.seen.secret,
        member: end.member.as_deref(),
        from_member: end.from_member.as_deref(),
        body_bytes: end.body_bytes,
        duration_us: micros(duration),
        deliver_us: micros(end.delivery_duration),
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

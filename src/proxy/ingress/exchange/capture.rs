//! Stores denied requests while an operator captures denied requests (see
//! [`Captures`](crate::observe::capture::Captures)).

use std::time::Duration;

use bytes::Bytes;

use super::callback_exchange::CallbackExchange;
use super::request_log::{ExchangeRecord, Outcome};
use crate::denial::Denial;
use crate::http::{head_of, request_body, send_continue_if_expected};
use crate::ingress::Denied;
use crate::observe::capture::{BODY_BYTES_MAX, CapturedRequest, Request, Verdicts, redacted_request};
use crate::trail::Trail;

/// The maximum time to wait for the body of a captured request that was denied because of its head.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

impl CallbackExchange<'_> {
    /// Stores the body of the current request while an operator captures requests.
    pub(super) fn remember_body(&mut self, body: &Bytes) {
        if self.context.recorder.captures.is_on() && body.len() as u64 <= BODY_BYTES_MAX {
            self.body = Some(body.clone());
        }
    }

    /// Reads the body of a request that was denied because of its head, if the request will be captured. Without the
    /// body, `callgate explain` could not determine whether the request passes after a correction of the configuration.
    pub(super) async fn read_body_for_capture(&mut self, denied: &Denied) {
        let (context, limits) = (self.context, &self.policy.limits);
        let route = denied.seen.route.as_ref().map_or("none", |route| &route.name);
        let captures = &context.recorder.captures;
        let wants = || captures.wants(route, &[denied.denial], || context.clocks.now());
        if self.origin.member().is_some() || !wants() {
            return;
        }
        let declared = head_of(self.session, self.origin.caller(&context.clocks.wall)).body_bytes_declared;
        if declared.is_some_and(|declared| declared > BODY_BYTES_MAX) {
            return;
        }
        let Some(_reading) = context.recorder.captures.begin_reading() else { return };
        let mut reservation = context.body_memory.reserve(limits.body_memory_bytes_max);
        send_continue_if_expected(self.session).await;
        let body_limits = request_body::BodyLimits {
            bytes_max: BODY_BYTES_MAX,
            deadline: limits.body_deadline.min(BODY_DEADLINE),
            limits,
            reservation: &mut reservation,
        };
        self.body = request_body::read(self.session, declared, body_limits).await.ok();
    }

    /// Stores the current request at its end, if the request was denied and matches the filter of an operator who
    /// captures denied requests.
    pub(super) fn capture(&self, end: &ExchangeRecord, trail: &Trail) {
        let context = self.context;
        let captures = &context.recorder.captures;
        let denials: &[Denial] = match &end.outcome {
            Outcome::Denied(denial) => std::slice::from_ref(denial),
            Outcome::Observed(_, denials) => denials,
            Outcome::Allowed(_) => return,
        };
        let (route, provider) = match end.seen.route.as_deref() {
            Some(route) => (&*route.name, route.provider_name()),
            None => ("none", "none"),
        };
        if self.origin.member().is_some() || !captures.wants(route, denials, || context.clocks.now()) {
            return;
        }
        let now = context.clocks.now();
        let Some(first) = denials.first() else { return };
        let head = head_of(self.session, self.origin.caller(&context.clocks.wall));
        let all = self.all_checks(end);
        let mut verdicts = Verdicts::of(now, head.peer, first.code(), &all, trail);
        verdicts.has_body = self.body.is_some();
        let body = match &self.body {
            Some(body) => Ok(&**body),
            None if head.has_body() => Err("left out: Callgate did not read it, or it is too large"),
            None => Ok(&b""[..]),
        };
        let route_and_captures = end.seen.route.as_deref().zip(end.seen.captures.as_ref());
        let all = self.policy.ingress.routes();
        let file = redacted_request(Request { head: &head, body, route: route_and_captures, all }, &verdicts);
        let line = file.lines().next().and_then(|line| line.strip_suffix(" HTTP/1.1")).unwrap_or_default();
        let request = CapturedRequest {
            time: now,
            request_id: self.request_id.into(),
            route: route.into(),
            provider: provider.into(),
            verdict: if matches!(end.outcome, Outcome::Observed(..)) { "observe" } else { first.verdict() },
            reason: first.code(),
            line: line.into(),
            client: end.seen.client,
            peer: head.peer,
            file: file.as_str().into(),
        };
        captures.keep(request, now);
    }

    /// Runs all checks that need neither the ledger nor the network, and returns their results. A failed check does not
    /// prevent the later checks.
    fn all_checks(&self, end: &ExchangeRecord) -> Trail {
        let mut trail = Trail::verbose();
        let route = end.seen.route.as_ref().map(|route| &*route.name);
        let Some(route) = route else { return trail };
        let head = head_of(self.session, self.origin.caller(&self.context.clocks.wall));
        let ingress = self.policy.ingress.observing(Some(route));
        let admitted = ingress.decide_head(&head, self.context.clocks.now(), &mut trail);
        if let (Ok(admitted), Some(body)) = (admitted, &self.body) {
            let _ = admitted.decide_body(&head, body, &mut trail);
        }
        trail
    }
}

//! One ingress request and its response: checks the head, reads and checks the body, delivers the callback, responds,
//! and records the request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;

use super::origin::Origin;
use super::request_log::{ExchangeRecord, Outcome, record_exchange};
use super::respond_to_handshake;
use crate::agent::Agent;
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::client::UpstreamResponse;
use crate::http::{
    Caller, HeadError, MemoryReservation, RelayError, Session, WRITE_TIMEOUT, deny, head_of, is_ambiguous,
    request_body, response, send_continue_if_expected, set_traceparent,
};
use crate::ingress::{Admitted, Decided, Denied, Permit, Seen, Turned, Verified};
use crate::observe::Span;
use crate::policy::Policy;
use crate::proxy::agent_client::{AgentClient, RequestSlot};
use crate::proxy::decode_body::decode_body;
use crate::proxy::ingress::context::IngressContext;
use crate::proxy::ingress::deliver::{Delivery, deliver, settle};
use crate::proxy::listen::ConnInfo;
use crate::proxy::runtime::boxed_future;
use crate::replica::Outcome as MemberOutcome;
use crate::store::Claimed;
use crate::token::Stamp;
use crate::trail::{Check, Trail};

/// The maximum time for which a callback waits while another request delivers the same event. Providers do not wait
/// much longer for a response.
const DUPLICATE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Serves one ingress request. If another HTTP/1 request may follow, returns the connection and the bytes that were
/// read after the request.
pub(crate) async fn serve(
    context: &IngressContext,
    mut session: Session,
    origin: Origin<'_>,
) -> Option<(Stream, BytesMut)> {
    // The policy is loaded when the request arrives, not when the connection opens, because the connection may have
    // been idle for a long time.
    let policy = context.policy.load_full();
    let in_flight = context.drain.requests.begin()?;
    origin.request_began();
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let mut trail = Trail::timed(began, instant);
    session.set_write_timeout(WRITE_TIMEOUT);
    let span = context.recorder.begin_span(&session, "callback");
    let has_ambiguous_framing = is_ambiguous(&session);
    let mut exchange = CallbackExchange {
        context,
        policy: &policy,
        session: &mut session,
        origin,
        request_id: &request_id,
        span: span.as_ref(),
        body: None,
    };
    if has_ambiguous_framing || context.drain.close_connections.load(Ordering::Relaxed) {
        exchange.session.close_after_response();
    }
    let mut end = match has_ambiguous_framing {
        true => Box::pin(exchange.deny_head()).await,
        false => exchange.decide_and_deliver(&mut trail).await,
    };
    exchange.capture(&end, &trail);
    let duration = end.ended_at.saturating_duration_since(began);
    end.from_member = origin.member().zip(context.replication.as_ref()).map(|(from, all)| all.name_of(from));
    let peer = origin.peer();
    record_exchange(&context.recorder, (Some(&session), span), peer, &request_id, &trail, &end, duration);
    let connection = session.end(end.reusable).await;
    drop(in_flight);
    connection
}

/// Denies an invalid request head and closes the connection, because after a framing error the rest of the stream is
/// untrusted.
pub(crate) async fn deny_head(context: &IngressContext, stream: Stream, conn: &ConnInfo, error: HeadError) {
    let Some(_in_flight) = context.drain.requests.begin() else { return };
    conn.request_began();
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let explain = context.policy.load().explain_denials;
    let HeadError { denial, detail, is_head_request } = error;
    // The denial is recorded before it is written, so that its duration does not include the time of a slow caller.
    let mut trail = Trail::timed(began, instant);
    trail.deny(Check::Head, denial, || detail.to_owned());
    let was_written = deny::deny_head(stream, denial, is_head_request, &request_id, explain).await;
    let end = ExchangeRecord::denied(Denied { denial, seen: Seen::default() }, 0, was_written);
    let duration = end.ended_at.saturating_duration_since(began);
    record_exchange(&context.recorder, (None, None), conn.peer, &request_id, &trail, &end, duration);
}

/// One ingress request, with the policy that was in effect when the request began.
pub(super) struct CallbackExchange<'x> {
    pub(super) context: &'x IngressContext,
    pub(super) policy: &'x Policy,
    pub(super) session: &'x mut Session,
    pub(super) origin: Origin<'x>,
    pub(super) request_id: &'x str,
    pub(super) span: Option<&'x Span>,
    /// The request body. Set only while an operator captures denied requests.
    pub(super) body: Option<Bytes>,
}

impl CallbackExchange<'_> {
    async fn decide_and_deliver(&mut self, trail: &mut Trail) -> ExchangeRecord {
        let (context, origin) = (self.context, self.origin);
        let caller = origin.caller(&context.clocks.wall);
        let head = head_of(self.session, caller);
        if origin.is_health_check(&head) {
            let status = if context.drain.close_connections.load(Ordering::Relaxed) { 503 } else { 200 };
            let was_written = Box::pin(response::health(self.session, status)).await;
            return ExchangeRecord::without_checks("health", status, was_written);
        }
        if let Some(document) = self.policy.ingress.document(&head) {
            let was_written = response::document(self.session, document).await;
            return ExchangeRecord::without_checks("document", 200, was_written);
        }
        let decided = self.policy.ingress.decide_head(&head, context.clocks.now(), trail);
        let mut admitted = match self.check_rate(decided, trail) {
            Ok(admitted) => admitted,
            Err(denied) => {
                Box::pin(self.read_body_for_capture(&denied)).await;
                return self.deny(*denied, 0).await;
            }
        };
        if admitted.route().stream {
            return Box::pin(self.pass_on(caller, admitted, trail)).await;
        }
        let read = self.read_body(&admitted).await;
        trail.resume();
        let (body, (mut reservation, _slot)) = match read {
            Ok(read) => read,
            Err(denial) => {
                trail.deny(Check::Body, denial, || denial.help().to_owned());
                return self.deny(Denied { denial, seen: admitted.into_seen() }, 0).await;
            }
        };
        self.remember_body(&body);
        let body_bytes = body.len() as u64;
        let head = head_of(self.session, caller);
        let decoded = decode_body(&mut admitted, &head, &body, &mut reservation, trail).await;
        if let Err(denial) = decoded {
            return self.deny(Denied { denial, seen: admitted.into_seen() }, body_bytes).await;
        }
        let mut end = match admitted.decide_body(&head, &body, trail) {
            Ok(Decided::Callback(verified)) => self.claim_and_deliver(caller, verified, body, trail).await,
            Ok(Decided::Handshake(handshake)) => {
                match Box::pin(respond_to_handshake::respond(context, self.policy, self.session, *handshake))
                    .await
                {
                    Ok(end) => end,
                    Err(denied) => self.deny(denied, 0).await,
                }
            }
            Ok(Decided::Observed(observed)) => Box::pin(self.deliver_observed(caller, *observed, body)).await,
            // Not expected: requests on routes with `stream: true` were passed on above, before their body was read.
            Ok(Decided::Streamed(streamed)) => {
                let denied = Denied { denial: Denial::RouteUnknown, seen: streamed.into_seen() };
                return self.deny(denied, body_bytes).await;
            }
            Err(denied) => return self.deny(*denied, body_bytes).await,
        };
        end.body_bytes = body_bytes;
        end
    }

    /// Reads the body of a request whose head passed the checks. Also returns the reserved memory and the agent's
    /// request slot. The caller must hold both until the request has ended.
    ///
    /// With several agents, each agent has a share of the limits. Requests for a slow agent use up only the share of
    /// this agent.
    async fn read_body(
        &mut self,
        admitted: &Admitted,
    ) -> Result<(Bytes, (MemoryReservation, Option<RequestSlot>)), Denial> {
        let (limits, agents) = (&self.policy.limits, self.policy.agents.len());
        let mut reservation = self.context.body_memory.reserve(limits.body_memory_bytes_max);
        let mut slot = None;
        if let Some(requests_max) = limits.requests_share(agents) {
            let share = Arc::clone(&self.context.agents.client(&admitted.route().agent).share);
            reservation = reservation.within(&share.body_memory, limits.body_memory_share(agents));
            slot = Some(share.slot(requests_max).ok_or(Denial::Overloaded)?);
        }
        send_continue_if_expected(self.session).await;
        let declared = head_of(self.session, Caller::at(self.origin.peer())).body_bytes_declared;
        let body_limits = request_body::BodyLimits {
            bytes_max: admitted.body_bytes_max().min(limits.body_memory_share(agents)),
            deadline: limits.body_deadline,
            limits,
            reservation: &mut reservation,
        };
        let body = request_body::read(self.session, declared, body_limits).await?;
        if let Err(denial) = self.origin.check_body(&body) {
            self.context.replication.iter().for_each(|replication| replication.metrics.replica_denied());
            return Err(denial);
        }
        Ok((body, (reservation, slot)))
    }

    /// Applies `limits.rate_per_address` to the result of the head checks. Counts all requests, including denied ones.
    /// Must follow the head checks, because these checks determine the client address.
    fn check_rate(
        &self,
        decided: Result<Box<Admitted>, Box<Denied>>,
        trail: &mut Trail,
    ) -> Result<Box<Admitted>, Box<Denied>> {
        let Some(rate) = self.policy.limits.rate_per_address else { return decided };
        let client = match &decided {
            Ok(admitted) => Some(admitted.client()),
            Err(denied) => denied.seen.client,
        };
        if self.context.rate_limits.allow_caller(rate, client.unwrap_or(self.origin.peer()), instant()) {
            return decided;
        }
        match decided {
            Ok(admitted) => admitted.too_many("more than `limits.rate_per_address`", trail),
            // The head checks have denied the request, too. The caller receives only the denial of the rate limit, so
            // that the caller slows down. The log shows both denials.
            Err(denied) => {
                let denial = trail.deny(Check::Rate, Denial::RateLimited, || {
                    format!("more than `limits.rate_per_address`, and {}", denied.denial)
                });
                Err(Box::new(Denied { denial, seen: denied.seen }))
            }
        }
    }

    /// Claims the event of a verified callback in the ledger, and delivers the callback. Then records in the ledger
    /// whether the agent accepted the callback, and relays the agent's response.
    async fn claim_and_deliver(
        &mut self,
        caller: Caller<'_>,
        mut verified: Box<Verified>,
        body: Bytes,
        trail: &mut Trail,
    ) -> ExchangeRecord {
        let (context, agent) = (self.context, Arc::clone(&verified.route().agent));
        if context.replication.is_some() && (verified.owner().is_some() || context.store.is_shared()) {
            match Box::pin(self.find_owner(verified, caller, &body, trail)).await {
                Ok(here) => verified = here,
                Err(end) => return *end,
            }
        }
        let wait_max = agent.patience().min(DUPLICATE_WAIT_MAX);
        let now = context.clocks.ledger_now(trail.last().unwrap_or_else(instant));
        let ask = verified.ask();
        let claimed = context.store.claim(&ask, now, wait_max).await;
        let ruling = claimed.as_ref().map(Claimed::cleared).map_err(Clone::clone);
        let matched = claimed.as_ref().ok().and_then(Claimed::interaction);
        if ask.report.unreadable {
            context.recorder.metrics.report_unreadable(ask.route);
        }
        verified.belongs_to(matched);
        let permit = match verified.permit(ruling, trail) {
            Ok(permit) => permit,
            Err(halted) => return Box::pin(self.respond_undelivered(caller, *halted, body)).await,
        };
        if permit.route().deliver.keeps() {
            return Box::pin(self.keep(caller, permit, claimed.ok(), body)).await;
        }
        let mut permit = match self.check_route_rate(permit, trail) {
            Ok(permit) => permit,
            Err(Turned::Away(seen)) => {
                return self.deny(Denied { denial: Denial::RouteBusy, seen: *seen }, 0).await;
            }
            Err(Turned::Observed(observed)) => {
                return Box::pin(self.deliver_observed(caller, *observed, body)).await;
            }
        };
        // With `matching`, the claim may have waited for the provider's id. This wait is not part of the delivery time.
        let has_waited = permit.route().follow.matching.is_some();
        let began = trail.last().filter(|_| !has_waited).unwrap_or_else(instant);
        let body = permit.take_decoded_body().map_or(body, Bytes::from);
        let body = permit.body_with_local_endpoint(&body, &context.actions_url).map_or(body, Bytes::from);
        let stamp = Stamp { id: self.request_id, now: context.clocks.now() };
        set_traceparent(self.session, self.span);
        let delivery = Delivery::callback(&permit, &head_of(self.session, caller), body, stamp);
        let client = context.agents.client(&agent);
        let delivered = deliver(&context.recorder.metrics, &client, &agent, delivery, began).await;
        let settled = self.settle(&permit, &delivered, claimed.ok()).await;
        let seen = permit.into_seen();
        let mut end = match delivered.and_then(|response| settled.map(|()| response)) {
            Ok(response) => self.relay(&client, &agent, response, seen, Outcome::Allowed("ok")).await,
            Err(denial) => self.deny(Denied { denial, seen }, 0).await,
        };
        end.delivery_duration = end.ended_at.saturating_duration_since(began);
        end
    }

    /// Records in the ledger whether the agent accepted the callback.
    async fn settle(
        &self,
        permit: &Permit,
        delivered: &Result<UpstreamResponse, Denial>,
        claimed: Option<Claimed<'_>>,
    ) -> Result<(), Denial> {
        let (context, Some(claimed)) = (self.context, claimed) else { return Ok(()) };
        let now = context.clocks.ledger_now(instant());
        match delivered {
            Ok(response) if response.is_success() => {
                settle(&context.recorder.metrics, permit, claimed, now).await
            }
            // The delivery failed. The claim is released, so that a retry of the provider can be delivered.
            _ => {
                claimed.fail(now).await;
                Ok(())
            }
        }
    }

    /// Applies the `rate` of the route. Counts only verified events that were not delivered before, so that other
    /// callers cannot use up the provider's rate.
    fn check_route_rate(&self, permit: Permit, trail: &mut Trail) -> Result<Permit, Turned> {
        let route = permit.route();
        match route.rate {
            Some(rate) if !self.context.rate_limits.allow_route(&route.name, rate) => {
                trail.deny(Check::Rate, Denial::RouteBusy, || "more than the route's `rate`".to_owned());
                Err(permit.turned_away(Denial::RouteBusy))
            }
            _ => Ok(permit),
        }
    }

    /// Relays the agent's response to the caller.
    pub(super) async fn relay(
        &mut self,
        client: &AgentClient,
        agent: &Agent,
        mut response: UpstreamResponse,
        seen: Seen,
        outcome: Outcome,
    ) -> ExchangeRecord {
        let status = response.status().as_u16();
        if let Some(route) = seen.route.as_ref().filter(|_| !response.is_success()) {
            self.context.recorder.metrics.delivery_rejected(&route.name);
        }
        let reuse = |connection| client.keep(agent.idle_timeout, connection, instant());
        match response::relay(self.session, &mut response, Bytes::new(), &self.policy.limits, reuse).await {
            Ok(()) => ExchangeRecord::responded(seen, outcome, status, true),
            Err(RelayError::Upstream(fault)) => {
                ExchangeRecord::responded(seen, Outcome::Denied(fault.agent_denial()), status, false)
            }
            // The callback was delivered, but the caller did not receive the response and will retry.
            Err(RelayError::Caller) => ExchangeRecord::responded(seen, outcome, 0, false),
        }
    }

    /// Writes a denial. The future is boxed, because otherwise the future of a permitted request would be larger.
    pub(super) async fn deny(&mut self, denied: Denied, body_bytes: u64) -> ExchangeRecord {
        boxed_future(|| self.write_denial(denied, body_bytes)).await
    }

    async fn write_denial(&mut self, denied: Denied, body_bytes: u64) -> ExchangeRecord {
        if let Some(class) = denied.seen.guarded {
            self.context.recorder.metrics.guard_refusal(class);
        }
        self.context.fetcher.want(&denied.seen);
        if self.origin.is_member() && denied.denial != Denial::ReplicaMistaken {
            self.session.set_outcome(MemberOutcome::Refused);
        }
        let declared = head_of(self.session, Caller::at(self.origin.peer())).body_bytes_declared;
        let methods = denied.seen.route.as_ref().map_or(&[] as &[_], |route| &route.path_methods);
        let explain = self.policy.explain_denials;
        let result =
            deny::deny(self.session, denied.denial, declared, methods, self.request_id, explain).await;
        ExchangeRecord {
            reusable: result.reusable,
            ..ExchangeRecord::denied(denied, body_bytes, result.was_written)
        }
    }

    /// Denies an HTTP/2 request head that two servers could interpret differently.
    async fn deny_head(&mut self) -> ExchangeRecord {
        let (denial, explain) = (Denial::RequestMalformed, self.policy.explain_denials);
        let was_written = response::write_denial(self.session, denial, &[], self.request_id, explain).await;
        ExchangeRecord {
            reusable: false,
            ..ExchangeRecord::denied(Denied { denial, seen: Seen::default() }, 0, was_written)
        }
    }
}

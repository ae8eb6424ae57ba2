//! One exchange on the ingress: head, verdict, body, verdict, delivery, answer, one log line.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;

use super::context::IngressContext;
use super::deliver::{self, Delivery, deliver, settle};
use super::handshake;
use super::record::{ExchangeRecord, Outcome, record};
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::client::UpstreamResponse;
use crate::http::{
    Broken, Caller, HeadError, Session, WRITE_TIMEOUT, body, continue_if_expected, go_on_with, head_of,
    is_ambiguous, refuse, response,
};
use crate::ingress::{Admitted, Decided, Denied, Halted, Observed, Permit, Route, Seen, Turned, Verified};
use crate::interaction::Held;
use crate::observe::Span;
use crate::policy::Policy;
use crate::proxy::listen::ConnInfo;
use crate::store::Claimed;
use crate::token::Stamp;
use crate::trail::{Check, Trail};

/// Longest wait for the delivery of the same event by another exchange: providers give up sooner or later.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// Serves a request. Of HTTP/1 it hands back the connection, with what was read behind the request, where another one
/// may follow.
pub(crate) async fn serve(
    context: &IngressContext,
    mut session: Session,
    link: &ConnInfo,
) -> Option<(Stream, BytesMut)> {
    // The policy of the moment in which there is a request: the connection may have waited for it for long.
    let policy = context.policy.load_full();
    let under_way = context.drain.requests.begin()?;
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let mut trail = Trail::timed(instant);
    session.set_write_timeout(WRITE_TIMEOUT);
    let span = context.recorder.begin_span(&session, "callback");
    let ambiguous = is_ambiguous(&session);
    let mut exchange = CallbackExchange {
        context,
        policy: &policy,
        session: &mut session,
        link,
        request_id: &request_id,
        span: span.as_ref(),
    };
    if ambiguous || context.drain.leaving.load(Ordering::Relaxed) {
        exchange.session.close_behind();
    }
    let ended = match ambiguous {
        true => Box::pin(exchange.refuse_head()).await,
        false => exchange.decide_and_deliver(&mut trail).await,
    };
    let took = ended.at.saturating_duration_since(began);
    record(&context.recorder, (Some(&session), span), link, &request_id, &trail, &ended, took);
    let kept = session.end(ended.reusable).await;
    drop(under_way);
    kept
}

/// Answers a head that is none, and closes the connection: nothing behind it can be trusted to be anything.
pub(crate) async fn refuse_head(context: &IngressContext, stream: Stream, link: &ConnInfo, error: HeadError) {
    let Some(_under_way) = context.drain.requests.begin() else { return };
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let explain = context.policy.load().explain_denials;
    let HeadError { denial, detail, bodiless } = error;
    let told = refuse::refuse_head(stream, denial, bodiless, &request_id, explain).await;
    let mut trail = Trail::timed(instant);
    trail.deny(Check::Head, denial, || detail.to_owned());
    let ended = ExchangeRecord::refused(Denied { denial, seen: Seen::default() }, 0, told);
    let took = ended.at.saturating_duration_since(began);
    record(&context.recorder, (None, None), link, &request_id, &trail, &ended, took);
}

/// One exchange: the policy of the moment, and the session it is about.
struct CallbackExchange<'x> {
    context: &'x IngressContext,
    policy: &'x Policy,
    session: &'x mut Session,
    link: &'x ConnInfo,
    request_id: &'x str,
    span: Option<&'x Span>,
}

impl CallbackExchange<'_> {
    async fn decide_and_deliver(&mut self, trail: &mut Trail) -> ExchangeRecord {
        let (context, link, limits) = (self.context, self.link, &self.policy.limits);
        let caller = link.caller();
        let head = head_of(self.session, caller);
        if let Some(document) = self.policy.ingress.document(&head) {
            let told = response::document(self.session, document).await;
            let status = if told { 200 } else { 0 };
            return ExchangeRecord::answered(Seen::default(), Outcome::Allowed("document"), status, told);
        }
        let declared = head.body_bytes_declared;
        let decided = self.policy.ingress.decide_head(&head, context.clocks.now(), trail);
        let admitted = match self.within_rate(decided, trail) {
            Ok(admitted) => admitted,
            Err(denied) => return self.refuse(*denied, 0).await,
        };
        continue_if_expected(self.session).await;
        let mut reserved = context.body_memory.reserve(limits.body_memory_bytes_max);
        let room = body::BodyLimits {
            bytes_max: admitted.body_bytes_max().min(limits.body_memory_bytes_max),
            deadline: limits.body_deadline,
            limits,
            reserved: &mut reserved,
        };
        let read = body::read(self.session, declared, room).await;
        trail.resume();
        let body = match read {
            Ok(body) => body,
            Err(denial) => {
                // What is thrown away takes no memory.
                drop(reserved);
                trail.deny(Check::Body, denial, || denial.help().to_owned());
                return self.refuse(Denied { denial, seen: admitted.into_seen() }, 0).await;
            }
        };
        let body_bytes = body.len() as u64;
        let head = head_of(self.session, caller);
        let mut ended = match admitted.decide_body(&head, &body, trail) {
            Ok(Decided::Callback(verified)) => self.ask_and_deliver(caller, verified, body, trail).await,
            Ok(Decided::Handshake(shaken)) => {
                match Box::pin(handshake::answer(context, self.policy, self.session, *shaken)).await {
                    Ok(ended) => ended,
                    Err(denied) => self.refuse(denied, 0).await,
                }
            }
            Ok(Decided::Observed(observed)) => Box::pin(self.pass_by(caller, *observed, body)).await,
            Err(denied) => return self.refuse(*denied, body_bytes).await,
        };
        ended.body_bytes = body_bytes;
        ended
    }

    /// Takes what the head led to, unless its address has called too often: that counts whatever it led to. It is asked
    /// for behind the head's checks, because they know whose address it is.
    fn within_rate(
        &self,
        decided: Result<Box<Admitted>, Box<Denied>>,
        trail: &mut Trail,
    ) -> Result<Box<Admitted>, Box<Denied>> {
        let Some(rate) = self.policy.limits.rate_per_address else { return decided };
        let client = match &decided {
            Ok(admitted) => Some(admitted.client()),
            Err(denied) => denied.seen.client,
        };
        if self.context.rate_limits.caller(rate, client.unwrap_or(self.link.peer)) {
            return decided;
        }
        match decided {
            Ok(admitted) => admitted.too_many("more than `limits.rate_per_address`", trail),
            // The caller should hear of the limit, and whoever reads the log, too.
            Err(denied) => {
                let denial = trail.deny(Check::Rate, Denial::RateLimited, || {
                    format!("more than `limits.rate_per_address`, and {}", denied.denial)
                });
                Err(Box::new(Denied { denial, seen: denied.seen }))
            }
        }
    }

    /// Delivers what the route only observes.
    async fn pass_by(&mut self, caller: Caller<'_>, observed: Observed, body: Bytes) -> ExchangeRecord {
        let (context, agent) = (self.context, &self.policy.agent);
        let began = instant();
        go_on_with(self.session, self.span);
        let delivery = Delivery::observed(&observed, &head_of(self.session, caller), body);
        let outcome = Outcome::Observed(observed.instead(), observed.denials().to_vec());
        let seen = observed.into_seen();
        context.fetcher.want(&seen);
        let mut ended = match deliver(&context.agent_pool, agent, delivery, began).await {
            Ok(answer) => self.pass_on(answer, seen, outcome).await,
            Err(denial) => self.refuse(Denied { denial, seen }, 0).await,
        };
        ended.deliver = ended.at.saturating_duration_since(began);
        ended
    }

    /// Asks the ledger, delivers, settles, and passes the agent's answer on.
    async fn ask_and_deliver(
        &mut self,
        caller: Caller<'_>,
        verified: Box<Verified>,
        body: Bytes,
        trail: &mut Trail,
    ) -> ExchangeRecord {
        let (context, agent) = (self.context, &self.policy.agent);
        let patience = (agent.connect_timeout + agent.response_timeout).min(PATIENCE_MAX);
        let now = context.clocks.ledger_now(trail.last().unwrap_or_else(instant));
        let ask = verified.ask();
        let claimed = context.store.claim(&ask, now, patience).await;
        let ruling = claimed.as_ref().map(Claimed::cleared).map_err(Clone::clone);
        if ask.report.unreadable {
            context.recorder.metrics.report_unreadable(ask.route);
        }
        let permit = match verified.permit(ruling, trail) {
            Ok(permit) => permit,
            Err(halted) => return Box::pin(self.halt(caller, *halted, body)).await,
        };
        let permit = match self.within_route_rate(permit, trail) {
            Ok(permit) => permit,
            Err(Turned::Away(seen)) => {
                return self.refuse(Denied { denial: Denial::RouteBusy, seen: *seen }, 0).await;
            }
            Err(Turned::Observed(observed)) => {
                return Box::pin(self.pass_by(caller, *observed, body)).await;
            }
        };
        let began = trail.last().unwrap_or_else(instant);
        let body = permit.rewritten(&body, &context.actions_url).map_or(body, Bytes::from);
        let stamp = Stamp { id: self.request_id, now: context.clocks.now() };
        go_on_with(self.session, self.span);
        let delivery = Delivery::callback(&permit, &head_of(self.session, caller), body, stamp);
        let delivered = deliver(&context.agent_pool, agent, delivery, began).await;
        let settled = match (&delivered, claimed) {
            (Ok(answer), Ok(claimed)) if answer.is_success() => {
                settle(&context.recorder.metrics, &permit, claimed, context.clocks.ledger_now(instant()))
                    .await
            }
            // Whatever else came of it: the claim is dropped, and the provider's retry will be delivered.
            _ => Ok(()),
        };
        let seen = permit.into_seen();
        let mut ended = match delivered.and_then(|answer| settled.map(|()| answer)) {
            Ok(answer) => self.pass_on(answer, seen, Outcome::Allowed("ok")).await,
            Err(denial) => self.refuse(Denied { denial, seen }, 0).await,
        };
        ended.deliver = ended.at.saturating_duration_since(began);
        ended
    }

    /// Takes what may be delivered, unless its route lets nothing more through now. What is not verified, or was
    /// delivered before, does not count: nobody can use up what is the provider's.
    fn within_route_rate(&self, permit: Permit, trail: &mut Trail) -> Result<Permit, Turned> {
        let route = permit.route();
        match route.rate {
            Some(rate) if !self.context.rate_limits.route(&route.name, rate) => {
                trail.deny(Check::Rate, Denial::RouteBusy, || "more than the route's `rate`".to_owned());
                Err(permit.turned_away(Denial::RouteBusy))
            }
            _ => Ok(permit),
        }
    }

    /// Answers a verified callback that is not delivered.
    async fn halt(&mut self, caller: Caller<'_>, halted: Halted, body: Bytes) -> ExchangeRecord {
        let Halted { held, turned } = halted;
        let seen = match turned {
            Turned::Away(seen) => *seen,
            Turned::Observed(observed) => return self.pass_by(caller, *observed, body).await,
        };
        let route = seen.route.as_ref().map_or("none", |route| &route.name);
        let metrics = &self.context.recorder.metrics;
        let result = match held {
            Held::Refused(refusal) => {
                return self.refuse(Denied { denial: refusal.denial, seen }, 0).await;
            }
            Held::Duplicate => {
                metrics.duplicate(route);
                "duplicate"
            }
            Held::Stale => {
                metrics.stale(route, "dropped");
                "stale"
            }
        };
        let verifier = seen.route.as_deref().and_then(Route::verifier);
        let status = verifier.map_or(200, |verifier| verifier.scheme().acknowledge);
        let told = response::acknowledge(self.session, status, result).await;
        ExchangeRecord::answered(seen, Outcome::Allowed(result), if told { status } else { 0 }, told)
    }

    /// Relays the agent's answer.
    async fn pass_on(
        &mut self,
        mut answer: UpstreamResponse,
        seen: Seen,
        outcome: Outcome,
    ) -> ExchangeRecord {
        let status = answer.status().as_u16();
        match response::relay(self.session, &mut answer, Bytes::new(), &self.policy.limits).await {
            Ok(()) => {
                let ended = ExchangeRecord::answered(seen, outcome, status, true);
                deliver::finish(&self.context.agent_pool, &self.policy.agent, answer, ended.at);
                ended
            }
            Err(Broken::Upstream(fault)) => {
                ExchangeRecord::answered(seen, Outcome::Refused(fault.of_agent()), status, false)
            }
            // The agent has it; only the caller was not there to hear so, and will try again.
            Err(Broken::Caller) => ExchangeRecord::answered(seen, outcome, 0, false),
        }
    }

    /// Answers with a denial. Boxed: it is one of several ways out, and the common one should not carry its room.
    async fn refuse(&mut self, denied: Denied, body_bytes: u64) -> ExchangeRecord {
        Box::pin(self.refuse_now(denied, body_bytes)).await
    }

    async fn refuse_now(&mut self, denied: Denied, body_bytes: u64) -> ExchangeRecord {
        if let Some(class) = denied.seen.guarded {
            self.context.recorder.metrics.guard_refusal(class);
        }
        self.context.fetcher.want(&denied.seen);
        let declared = head_of(self.session, self.link.caller()).body_bytes_declared;
        let methods = denied.seen.route.as_ref().map_or(&[] as &[_], |route| &route.methods);
        let explain = self.policy.explain_denials;
        let refused =
            refuse::refuse(self.session, denied.denial, declared, methods, self.request_id, explain).await;
        ExchangeRecord {
            reusable: refused.reusable,
            ..ExchangeRecord::refused(denied, body_bytes, refused.told)
        }
    }

    /// Answers a head that can be read in more than one way.
    async fn refuse_head(&mut self) -> ExchangeRecord {
        let (denial, explain) = (Denial::RequestMalformed, self.policy.explain_denials);
        let told = response::deny(self.session, denial, &[], self.request_id, explain).await;
        ExchangeRecord {
            reusable: false,
            ..ExchangeRecord::refused(Denied { denial, seen: Seen::default() }, 0, told)
        }
    }
}

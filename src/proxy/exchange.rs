//! One exchange on the ingress: head, verdict, body, verdict, delivery, answer, one log line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;

use super::accept::Link;
use super::agent::Pool;
use super::answer::{self, Broken};
use super::body;
use super::clock::{Clock, LedgerClock, instant};
use super::deliver::{self, Delivery, deliver, settle};
use super::egress_server;
use super::ended::{Ended, Outcome, record};
use super::handshake;
use super::head::Unusable;
use super::http1_client::Answer;
use super::provider::Providers;
use super::rates::Rates;
use super::refusals::Refusals;
use super::refuse;
use super::session::{
    self, Caller, RequestIds, Session, begin_span, continue_if_expected, go_on_with, head, is_ambiguous,
};
use super::slots::{BodyMemory, Slots};
use super::traffic::Traffic;
use crate::denial::Denial;
use crate::fetch::Fetcher;
use crate::ingress::{Admitted, Decided, Denied, Halted, Observed, Permit, Route, Seen, Turned, Verified};
use crate::interaction::Held;
use crate::observe::{AccessLogger, Metrics, Recent, Span, Traces};
use crate::policy::Policy;
use crate::store::{Claimed, Store};
use crate::token::Stamp;
use crate::trail::{Check, Trail};

/// Longest wait for a caller that does not read its answer.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the delivery of the same event by another exchange: providers give up sooner or later.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// What all exchanges share.
pub(super) struct Shared {
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) pool: Pool,
    pub(super) clock: Clock,
    /// The clock of the ledger.
    pub(super) ledger_clock: Arc<LedgerClock>,
    pub(super) metrics: Arc<Metrics>,
    /// The ledger.
    pub(super) store: Arc<Store>,
    /// What the agent's local URL of an action endpoint begins with.
    pub(super) actions_url: Box<str>,
    /// The egress listener.
    pub(super) egress_listener: egress_server::Listener,
    /// Connections to providers.
    pub(super) providers: ArcSwap<Providers>,
    /// Brings what is fetched.
    pub(super) fetcher: Fetcher,
    pub(super) access_log: Option<AccessLogger>,
    /// Where spans go.
    pub(super) traces: Option<Traces>,
    /// For the admin page.
    pub(super) recent: Option<Arc<Recent>>,
    pub(super) request_ids: RequestIds,
    /// Room for connections.
    pub(super) slots: Arc<Slots>,
    /// Room for bodies.
    pub(super) body_memory: BodyMemory,
    /// Who called how often.
    pub(super) rates: Rates,
    /// What was said of connections that were closed.
    pub(super) refusals: Refusals,
    /// Exchanges on the ingress.
    pub(super) ingress: Traffic,
    /// Notices.
    pub(super) notices: Traffic,
    /// Exchanges on the egress.
    pub(super) egress: Traffic,
    /// Connections of HTTP/2, whose answers leave after their exchanges have ended.
    pub(super) http2: Traffic,
    /// From here on each answer on the ingress is the last one of its connection.
    pub(super) leaving: AtomicBool,
}

/// Serves a request. Of HTTP/1 it hands back the connection, with what was read behind the request, where another one
/// may follow.
pub(super) async fn serve(shared: &Shared, mut session: Session, link: &Link) -> Option<(Stream, BytesMut)> {
    // The policy of the moment in which there is a request: the connection may have waited for it for long.
    let policy = shared.policy.load_full();
    let under_way = shared.ingress.begin()?;
    let began = instant();
    let request_id = shared.request_ids.next();
    let mut trail = Trail::timed(instant);
    session.set_write_timeout(WRITE_TIMEOUT);
    let span = begin_span(shared, &session, "callback");
    let ambiguous = is_ambiguous(&session);
    let mut exchange = Exchange {
        shared,
        policy: &policy,
        session: &mut session,
        link,
        request_id: &request_id,
        span: span.as_ref(),
    };
    if ambiguous || shared.leaving.load(Ordering::Relaxed) {
        exchange.session.close_behind();
    }
    let ended = match ambiguous {
        true => Box::pin(exchange.refuse_head()).await,
        false => exchange.decide_and_deliver(&mut trail).await,
    };
    let took = ended.at.saturating_duration_since(began);
    record(shared, (Some(&session), span), link, &request_id, &trail, &ended, took);
    let kept = session.end(ended.reusable).await;
    drop(under_way);
    kept
}

/// Answers a head that is none, and closes the connection: nothing behind it can be trusted to be anything.
pub(super) async fn refuse_head(shared: &Shared, stream: Stream, link: &Link, unusable: Unusable) {
    let Some(_under_way) = shared.ingress.begin() else { return };
    let began = instant();
    let request_id = shared.request_ids.next();
    let explain = shared.policy.load().explain_denials;
    let Unusable { denial, detail, bodiless } = unusable;
    let told = refuse::refuse_head(stream, denial, bodiless, &request_id, explain).await;
    let mut trail = Trail::timed(instant);
    trail.deny(Check::Head, denial, || detail.to_owned());
    let ended = Ended::refused(Denied { denial, seen: Seen::default() }, 0, told);
    let took = ended.at.saturating_duration_since(began);
    record(shared, (None, None), link, &request_id, &trail, &ended, took);
}

/// One exchange: the policy of the moment, and the session it is about.
struct Exchange<'x> {
    shared: &'x Shared,
    policy: &'x Policy,
    session: &'x mut Session,
    link: &'x Link,
    request_id: &'x str,
    span: Option<&'x Span>,
}

impl Exchange<'_> {
    async fn decide_and_deliver(&mut self, trail: &mut Trail) -> Ended {
        let (shared, link, limits) = (self.shared, self.link, &self.policy.limits);
        let caller = Caller::from_outside(link);
        let head = head(self.session, caller);
        if let Some(document) = self.policy.ingress.document(&head) {
            let told = answer::document(self.session, document).await;
            let status = if told { 200 } else { 0 };
            return Ended::answered(Seen::default(), Outcome::Allowed("document"), status, told);
        }
        let declared = head.body_bytes_declared;
        let decided = self.policy.ingress.decide_head(&head, shared.clock.now(), trail);
        let admitted = match self.within_rate(decided, trail) {
            Ok(admitted) => admitted,
            Err(denied) => return self.refuse(*denied, 0).await,
        };
        continue_if_expected(self.session).await;
        let mut reserved = shared.body_memory.reserve(limits.body_memory_bytes_max);
        let room = body::Room {
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
        let head = session::head(self.session, caller);
        let mut ended = match admitted.decide_body(&head, &body, trail) {
            Ok(Decided::Callback(verified)) => self.ask_and_deliver(caller, verified, body, trail).await,
            Ok(Decided::Handshake(shaken)) => {
                match Box::pin(handshake::answer(shared, self.policy, self.session, *shaken)).await {
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
        if self.shared.rates.caller(rate, client.unwrap_or(self.link.peer)) {
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
    async fn pass_by(&mut self, caller: Caller<'_>, observed: Observed, body: Bytes) -> Ended {
        let (shared, agent) = (self.shared, &self.policy.agent);
        let began = instant();
        go_on_with(self.session, self.span);
        let delivery = Delivery::observed(&observed, &head(self.session, caller), body);
        let outcome = Outcome::Observed(observed.instead(), observed.denials().to_vec());
        let seen = observed.into_seen();
        shared.fetcher.want(&seen);
        let mut ended = match deliver(&shared.pool, agent, delivery, began).await {
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
    ) -> Ended {
        let (shared, agent) = (self.shared, &self.policy.agent);
        let patience = (agent.connect_timeout + agent.response_timeout).min(PATIENCE_MAX);
        let now = shared.ledger_clock.now(trail.last().unwrap_or_else(instant));
        let ask = verified.ask();
        let claimed = shared.store.claim(&ask, now, patience).await;
        let ruling = claimed.as_ref().map(Claimed::cleared).map_err(Clone::clone);
        if ask.report.unreadable {
            shared.metrics.report_unreadable(ask.route);
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
        let body = permit.rewritten(&body, &shared.actions_url).map_or(body, Bytes::from);
        let stamp = Stamp { id: self.request_id, now: shared.clock.now() };
        go_on_with(self.session, self.span);
        let delivery = Delivery::callback(&permit, &head(self.session, caller), body, stamp);
        let delivered = deliver(&shared.pool, agent, delivery, began).await;
        let settled = match (&delivered, claimed) {
            (Ok(answer), Ok(claimed)) if answer.is_success() => settle(shared, &permit, claimed).await,
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
            Some(rate) if !self.shared.rates.route(&route.name, rate) => {
                trail.deny(Check::Rate, Denial::RouteBusy, || "more than the route's `rate`".to_owned());
                Err(permit.turned_away(Denial::RouteBusy))
            }
            _ => Ok(permit),
        }
    }

    /// Answers a verified callback that is not delivered.
    async fn halt(&mut self, caller: Caller<'_>, halted: Halted, body: Bytes) -> Ended {
        let Halted { held, turned } = halted;
        let seen = match turned {
            Turned::Away(seen) => *seen,
            Turned::Observed(observed) => return self.pass_by(caller, *observed, body).await,
        };
        let route = seen.route.as_ref().map_or("none", |route| &route.name);
        let metrics = &self.shared.metrics;
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
        let told = answer::acknowledge(self.session, status, result).await;
        Ended::answered(seen, Outcome::Allowed(result), if told { status } else { 0 }, told)
    }

    /// Relays the agent's answer.
    async fn pass_on(&mut self, mut answer: Answer, seen: Seen, outcome: Outcome) -> Ended {
        let status = answer.status().as_u16();
        match answer::relay(self.session, &mut answer, Bytes::new(), &self.policy.limits).await {
            Ok(()) => {
                let ended = Ended::answered(seen, outcome, status, true);
                deliver::finish(&self.shared.pool, &self.policy.agent, answer, ended.at);
                ended
            }
            Err(Broken::Upstream(fault)) => {
                Ended::answered(seen, Outcome::Refused(fault.of_agent()), status, false)
            }
            // The agent has it; only the caller was not there to hear so, and will try again.
            Err(Broken::Caller) => Ended::answered(seen, outcome, 0, false),
        }
    }

    /// Answers with a denial. Boxed: it is one of several ways out, and the common one should not carry its room.
    async fn refuse(&mut self, denied: Denied, body_bytes: u64) -> Ended {
        Box::pin(self.refuse_now(denied, body_bytes)).await
    }

    async fn refuse_now(&mut self, denied: Denied, body_bytes: u64) -> Ended {
        if let Some(class) = denied.seen.guarded {
            self.shared.metrics.guard_refusal(class);
        }
        self.shared.fetcher.want(&denied.seen);
        let declared = head(self.session, Caller::from_outside(self.link)).body_bytes_declared;
        let methods = denied.seen.route.as_ref().map_or(&[] as &[_], |route| &route.methods);
        let explain = self.policy.explain_denials;
        let refused =
            refuse::refuse(self.session, denied.denial, declared, methods, self.request_id, explain).await;
        Ended { reusable: refused.reusable, ..Ended::refused(denied, body_bytes, refused.told) }
    }

    /// Answers a head that can be read in more than one way.
    async fn refuse_head(&mut self) -> Ended {
        let (denial, explain) = (Denial::RequestMalformed, self.policy.explain_denials);
        let told = answer::deny(self.session, denial, &[], self.request_id, explain).await;
        Ended { reusable: false, ..Ended::refused(Denied { denial, seen: Seen::default() }, 0, told) }
    }
}

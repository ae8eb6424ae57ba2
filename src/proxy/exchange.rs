//! One exchange on the ingress: head, verdict, body, verdict, delivery, answer, one log line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use pingora::ErrorType;
use pingora::apps::ReusedHttpStream;
use pingora::protocols::http::ServerSession;
use tokio::time::timeout;

use super::agent::Pool;
use super::answer::{self, Broken};
use super::body;
use super::clock::{Clock, LedgerClock, instant};
use super::deliver::{self, Delivery, deliver};
use super::fetch::Fetcher;
use super::http1::Answer;
use super::provider::Providers;
use super::refuse;
use super::session::{
    self, Caller, RequestIds, continue_if_expected, hand_back, head, known_method, lacks_host, micros, peer,
};
use super::traffic::Traffic;
use crate::denial::Denial;
use crate::ingress::{Decided, Denied, Halted, Permit, Route, Seen, Verified};
use crate::interaction::Held;
use crate::observe::{AccessLogger, Entry, Metrics, redact_path};
use crate::policy::Policy;
use crate::signature::{Keys, Reply, Verifier};
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
    /// Connections to providers.
    pub(super) providers: Providers,
    /// Brings what is fetched.
    pub(super) fetcher: Fetcher,
    pub(super) access_log: Option<AccessLogger>,
    pub(super) request_ids: RequestIds,
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

/// How an exchange ended.
struct Ended {
    seen: Seen,
    /// `ok`, `duplicate`, `stale`, `handshake` or `document`; or why not.
    outcome: Result<&'static str, Denial>,
    status: u16,
    body_bytes: u64,
    deliver: Duration,
    /// Whether the connection is in a state to take another request.
    reusable: bool,
    /// When the answer had been written.
    at: Instant,
}

impl Ended {
    /// Answered with `status`; 0: the caller was not there to hear it.
    fn answered(seen: Seen, outcome: Result<&'static str, Denial>, status: u16, reusable: bool) -> Self {
        Self { seen, outcome, status, body_bytes: 0, deliver: Duration::ZERO, reusable, at: instant() }
    }

    /// Refused; `told` says whether the caller could be told.
    fn refused(denied: Denied, body_bytes: u64, told: bool) -> Self {
        Self {
            seen: denied.seen,
            outcome: Err(denied.denial),
            status: if told { denied.denial.status() } else { 0 },
            body_bytes,
            deliver: Duration::ZERO,
            reusable: told,
            at: instant(),
        }
    }
}

/// Serves the next request of a connection. `None` closes it.
pub(super) async fn serve(shared: &Shared, mut session: ServerSession) -> Option<ReusedHttpStream> {
    let first = session.take_connection_user_context().is_none();
    let patience = shared.policy.load().limits.idle_timeout;
    let read = timeout(patience, session.read_request()).await;
    // The policy of the moment in which there is a request: the connection may have waited for it for long.
    let policy = shared.policy.load_full();
    let under_way = shared.ingress.begin()?;
    let began = instant();
    let request_id = shared.request_ids.next();
    let mut trail = Trail::timed(instant);
    session.set_write_timeout(Some(WRITE_TIMEOUT));
    let plain = session.digest().is_some_and(|digest| digest.ssl_digest.is_none());
    let no_host = matches!(read, Ok(Ok(true))) && lacks_host(&session);
    let mut exchange = Exchange { shared, policy: &policy, session: &mut session, request_id: &request_id };
    let ended = match read {
        Ok(Ok(true)) if no_host => exchange.refuse_head(Denial::RequestMalformed).await,
        Ok(Ok(true)) => {
            if shared.leaving.load(Ordering::Relaxed) {
                exchange.session.set_keepalive(None);
            }
            exchange.decide_and_deliver(&mut trail).await
        }
        Ok(Err(error)) if matches!(error.etype(), ErrorType::InvalidHTTPHeader) => {
            exchange.refuse_head(Denial::RequestMalformed).await
        }
        // A later head that does not come is a kept connection that idles, and so is a TLS one without any.
        Err(_) if first && plain => exchange.refuse_head(Denial::HeadTimeout).await,
        _ => return None,
    };
    let took = ended.at.saturating_duration_since(began);
    record(shared, &session, &request_id, &trail, &ended, took);
    let kept = hand_back(session, ended.reusable).await;
    drop(under_way);
    kept
}

/// One exchange: the policy of the moment, and the session it is about.
struct Exchange<'x> {
    shared: &'x Shared,
    policy: &'x Policy,
    session: &'x mut ServerSession,
    request_id: &'x str,
}

impl Exchange<'_> {
    async fn decide_and_deliver(&mut self, trail: &mut Trail) -> Ended {
        let caller = Caller::of(self.session);
        let head = head(self.session, caller);
        if let Some(document) = self.policy.ingress.document(&head) {
            let told = answer::document(self.session, document).await;
            return Ended::answered(Seen::default(), Ok("document"), if told { 200 } else { 0 }, told);
        }
        let declared = head.body_bytes_declared;
        let admitted = match self.policy.ingress.decide_head(&head, self.shared.clock.now(), trail) {
            Ok(admitted) => admitted,
            Err(denied) => return self.refuse(*denied, 0).await,
        };
        continue_if_expected(self.session).await;
        let deadline = self.policy.limits.body_deadline;
        let read = body::read(self.session, declared, admitted.body_bytes_max(), deadline).await;
        trail.resume();
        let body = match read {
            Ok(body) => body,
            Err(denial) => {
                trail.deny(Check::Body, denial, || denial.help().to_owned());
                return self.refuse(Denied { denial, seen: admitted.into_seen() }, 0).await;
            }
        };
        let body_bytes = body.len() as u64;
        let head = session::head(self.session, caller);
        let mut ended = match admitted.decide_body(&head, &body, trail) {
            Ok(Decided::Callback(verified)) => self.ask_and_deliver(caller, verified, body, trail).await,
            Ok(Decided::Handshake(shaken)) => Box::pin(self.shake(*shaken)).await,
            Err(denied) => return self.refuse(*denied, body_bytes).await,
        };
        ended.body_bytes = body_bytes;
        ended
    }

    /// Asks the ledger, delivers, settles, and passes the agent's answer on.
    async fn ask_and_deliver(
        &mut self,
        caller: Caller,
        verified: Verified,
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
            Err(halted) => return self.halt(*halted).await,
        };
        let began = trail.last().unwrap_or_else(instant);
        let body = permit.rewritten(&body, &shared.actions_url).map_or(body, Bytes::from);
        let stamp = Stamp { id: self.request_id, now: shared.clock.now() };
        let delivery = Delivery::callback(&permit, &head(self.session, caller), body, stamp);
        let delivered = deliver(&shared.pool, agent, delivery, began).await;
        let settled = match (&delivered, claimed) {
            (Ok(answer), Ok(claimed)) if answer.is_success() => settle(shared, &permit, claimed).await,
            // Whatever else came of it: the claim is dropped, and the provider's retry will be delivered.
            _ => Ok(()),
        };
        let seen = permit.into_seen();
        let mut ended = match delivered.and_then(|answer| settled.map(|()| answer)) {
            Ok(answer) => self.pass_on(answer, seen).await,
            Err(denial) => self.refuse(Denied { denial, seen }, 0).await,
        };
        ended.deliver = ended.at.saturating_duration_since(began);
        ended
    }

    /// Answers a provider's handshake.
    async fn shake(&mut self, (reply, seen): (Reply, Seen)) -> Ended {
        let route = seen.route.as_deref();
        let name = route.map_or("none", |route| &route.name);
        let verifier = route.and_then(Route::verifier);
        if let (Some(secret), Some(Keys::Learned(feed))) = (&reply.learned, verifier.map(Verifier::keys))
            && let Err(error) = self.shared.fetcher.learn(*feed, secret).await
        {
            log::error!("the secret handed over by {name} could not be kept: {error}");
            let denial = Denial::StoreUnavailable;
            return self.refuse(Denied { denial, seen }, 0).await;
        }
        if reply.learned.is_some() {
            let client = seen.client.map_or_else(String::new, |client| client.to_string());
            log::warn!("{client} handed over the secret of the route {name}");
        }
        if let Some(url) = &reply.fetch {
            self.shared.fetcher.confirm(url);
        }
        self.shared.metrics.handshake(name, &reply.name);
        let told = answer::reply(self.session, &reply).await;
        Ended::answered(seen, Ok("handshake"), if told { reply.status } else { 0 }, told)
    }

    /// Answers a verified callback that is not delivered.
    async fn halt(&mut self, halted: Halted) -> Ended {
        let Halted { held, seen } = halted;
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
        Ended::answered(seen, Ok(result), if told { status } else { 0 }, told)
    }

    /// Relays the agent's answer.
    async fn pass_on(&mut self, mut answer: Answer, seen: Seen) -> Ended {
        let status = answer.status();
        match answer::relay(self.session, &mut answer, Vec::new()).await {
            Ok(()) => {
                let ended = Ended::answered(seen, Ok("ok"), status, true);
                deliver::finish(&self.shared.pool, &self.policy.agent, answer, ended.at).await;
                ended
            }
            Err(Broken::Upstream(fault)) => Ended::answered(seen, Err(fault.of_agent()), status, false),
            // The agent has it; only the caller was not there to hear so, and will try again.
            Err(Broken::Caller) => Ended::answered(seen, Ok("ok"), 0, false),
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
        if let Some(url) = &denied.seen.wanted {
            self.shared.fetcher.want(url);
        }
        let declared = head(self.session, Caller::of(self.session)).body_bytes_declared;
        let methods = denied.seen.route.as_ref().map_or(&[] as &[_], |route| &route.methods);
        let explain = self.policy.explain_denials;
        let refused =
            refuse::refuse(self.session, denied.denial, declared, methods, self.request_id, explain).await;
        Ended { reusable: refused.reusable, ..Ended::refused(denied, body_bytes, refused.told) }
    }

    /// Answers a head that is none: nothing behind it can be trusted to be anything, so the connection ends.
    async fn refuse_head(&mut self, denial: Denial) -> Ended {
        self.session.set_keepalive(None);
        let explain = self.policy.explain_denials;
        let told = answer::deny(self.session, denial, &[], self.request_id, explain).await;
        Ended { reusable: false, ..Ended::refused(Denied { denial, seen: Seen::default() }, 0, told) }
    }
}

/// The agent took the callback: that is safe before the provider is told.
async fn settle(shared: &Shared, permit: &Permit, claimed: Claimed<'_>) -> Result<(), Denial> {
    if claimed.is_stale() {
        shared.metrics.stale(&permit.route().name, "delivered");
    }
    let event_id = permit.event_id().and_then(|id| id.to_str().ok());
    claimed
        .settle(permit.report(), event_id, shared.ledger_clock.now(instant()))
        .await
        .map_err(|refusal| refusal.denial)
}

/// Counts and logs one exchange.
fn record(
    shared: &Shared,
    session: &ServerSession,
    request_id: &str,
    trail: &Trail,
    ended: &Ended,
    took: Duration,
) {
    let route = ended.seen.route.as_deref();
    let (name, provider) = route.map_or(("none", "none"), |route| (&*route.name, route.provider_name()));
    let (verdict, reason) = match ended.outcome {
        Ok(reason) => ("allow", reason),
        Err(denial) => (denial.verdict(), denial.code()),
    };
    shared.metrics.request(name, provider, verdict, reason, trail.nanos());
    if !ended.deliver.is_zero() {
        shared.metrics.delivery(name, ended.deliver.as_secs_f64());
    }
    let Some(log) = &shared.access_log else { return };
    // Without a single check there was no head that could be read.
    let request = trail.steps().next().map(|_| session.req_header());
    let path = match (&ended.seen.captures, request) {
        (Some(captures), _) => captures.redacted_path(),
        (None, Some(_)) => redact_path(head(session, Caller::of(session)).raw_path()),
        (None, None) => "-".to_owned(),
    };
    let entry = Entry {
        time: shared.clock.now(),
        request_id,
        route: name,
        provider,
        verdict,
        reason,
        status: ended.status,
        method: request.map_or("-", |request| known_method(request.method.as_str())),
        path: &path,
        client: ended.seen.client,
        peer: peer(session),
        interaction: ended.seen.interaction.as_deref(),
        body_bytes: ended.body_bytes,
        duration_us: micros(took),
        deliver_us: micros(ended.deliver),
        trail,
    };
    if !log.log(&entry.line()) {
        shared.metrics.log_line_lost();
    }
}

//! One exchange on the ingress: head, verdict, body, verdict, delivery, answer, one log line.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Version;
use http::header::{EXPECT, HOST};
use pingora::ErrorType;
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::agent::Pool;
use super::answer::{self, Broken};
use super::body;
use super::clock::{Clock, instant};
use super::deliver::{self, deliver};
use crate::denial::Denial;
use crate::ingress::{Denied, Seen};
use crate::observe::{AccessLogger, Entry, Metrics, redact_path};
use crate::policy::Policy;
use crate::request::RequestHead;
use crate::source::LOOPBACK;
use crate::trail::{Check, Trail};

/// Longest wait for a caller that does not read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A refused body up to this size is read to its end, so that the connection can be kept.
const DRAIN_BYTES_MAX: u64 = 64 << 10;
/// How long the rest of a refused body may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
/// How much of a larger refused body is thrown away before the connection is closed.
const LINGER_BYTES_MAX: usize = 2 << 20;

/// What all exchanges share.
pub(super) struct Shared {
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) pool: Pool,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access_log: Option<AccessLogger>,
    pub(super) request_ids: RequestIds,
    /// Exchanges that have begun and not ended.
    pub(super) in_flight: AtomicUsize,
    /// From here on no exchange begins.
    pub(super) stopped: AtomicBool,
}

/// Makes the ids by which a caller's complaint is found in the log.
pub(super) struct RequestIds {
    prefix: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut prefix = [0; 4];
        // Ids need to be told apart between restarts, not to be secret.
        let _ = getrandom::fill(&mut prefix);
        Self { prefix: u32::from_le_bytes(prefix), next: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        let number =
            (u64::from(self.prefix) << 32) | (self.next.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff);
        data_encoding::HEXLOWER.encode(&number.to_be_bytes())
    }
}

/// Counts an exchange for as long as it lives.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Marks a connection that has served a request.
struct Served;

/// How an exchange ended.
struct Ended {
    seen: Seen,
    outcome: Result<(), Denial>,
    status: u16,
    body_bytes: u64,
    deliver: Duration,
    /// Whether the connection is in a state to take another request.
    reusable: bool,
    /// When the answer had been written.
    at: Instant,
}

impl Ended {
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
pub(super) async fn serve(
    shared: &Shared,
    mut session: ServerSession,
    stopping: &ShutdownWatch,
) -> Option<ReusedHttpStream> {
    let policy = shared.policy.load_full();
    let first = session.take_connection_user_context().is_none();
    let read = timeout(policy.limits.idle_timeout, session.read_request()).await;
    // Counted before the look at `stopped`: whoever stops waits for the count after setting it.
    let in_flight = InFlight::new(&shared.in_flight);
    if shared.stopped.load(Ordering::SeqCst) {
        return None;
    }
    let began = instant();
    let request_id = shared.request_ids.next();
    let mut trail = Trail::timed(instant);
    session.set_write_timeout(Some(WRITE_TIMEOUT));
    let ended = match read {
        Ok(Ok(true)) if lacks_host(&session) => {
            refuse_head(&policy, &mut session, &request_id, Denial::RequestMalformed).await
        }
        Ok(Ok(true)) => {
            if *stopping.borrow() {
                session.set_keepalive(None);
            }
            decide_and_deliver(shared, &policy, &mut session, &request_id, &mut trail).await
        }
        Ok(Err(error)) if matches!(error.etype(), ErrorType::InvalidHTTPHeader) => {
            refuse_head(&policy, &mut session, &request_id, Denial::RequestMalformed).await
        }
        // A later head that does not come is a kept connection that idles, and so is a TLS one without any.
        Err(_) if first && session.digest().is_some_and(|digest| digest.ssl_digest.is_none()) => {
            refuse_head(&policy, &mut session, &request_id, Denial::HeadTimeout).await
        }
        _ => return None,
    };
    let took = ended.at.saturating_duration_since(began);
    record(shared, &session, &request_id, &trail, &ended, took);
    drop(in_flight);
    if !ended.reusable {
        session.shutdown().await;
        return None;
    }
    let mut settings = HttpPersistentSettings::for_session(&session);
    settings.set_user_context(Box::new(Served));
    let stream = session.finish().await.ok().flatten()?;
    Some(ReusedHttpStream::from_reusable_stream(stream, settings))
}

async fn decide_and_deliver(
    shared: &Shared,
    policy: &Policy,
    session: &mut ServerSession,
    request_id: &str,
    trail: &mut Trail,
) -> Ended {
    let now = shared.clock.now();
    let caller = Caller::of(session);
    let head = head(session, caller);
    let declared = head.body_bytes_declared;
    let admitted = match policy.ingress.decide_head(&head, now, trail) {
        Ok(admitted) => admitted,
        Err(denied) => return refuse(policy, session, request_id, *denied, 0).await,
    };
    continue_if_expected(session).await;
    let read = body::read(session, declared, admitted.body_bytes_max(), policy.limits.body_deadline).await;
    trail.resume();
    let body = match read {
        Ok(body) => body,
        Err(denial) => {
            trail.deny(Check::Body, denial, || denial.help().to_owned());
            let denied = Denied { denial, seen: admitted.into_seen() };
            return refuse(policy, session, request_id, denied, 0).await;
        }
    };
    let body_bytes = body.len() as u64;
    let head = self::head(session, caller);
    let permit = match admitted.decide_body(&head, &body, trail) {
        Ok(permit) => permit,
        Err(denied) => return refuse(policy, session, request_id, *denied, body_bytes).await,
    };
    let began = trail.last().unwrap_or_else(instant);
    let delivered = deliver(&shared.pool, &policy.agent, &permit, &head, body, began).await;
    let seen = permit.into_seen();
    let mut ended = match delivered {
        Ok(answer) => pass_on(shared, policy, session, answer, seen).await,
        Err(denial) => refuse(policy, session, request_id, Denied { denial, seen }, body_bytes).await,
    };
    ended.body_bytes = body_bytes;
    ended.deliver = ended.at.saturating_duration_since(began);
    ended
}

/// Relays the agent's answer.
async fn pass_on(
    shared: &Shared,
    policy: &Policy,
    session: &mut ServerSession,
    mut answer: deliver::Answer,
    seen: Seen,
) -> Ended {
    let status = answer.head().map_or(0, |head| head.status.as_u16());
    let relayed = answer::relay(session, &mut answer).await;
    let at = instant();
    let (outcome, status, reusable) = match relayed {
        Ok(()) => {
            answer.finish(&shared.pool, &policy.agent, at).await;
            (Ok(()), status, true)
        }
        Err(Broken::Agent(denial)) => (Err(denial), status, false),
        // The agent has it; only the caller was not there to hear so, and will try again.
        Err(Broken::Caller) => (Ok(()), 0, false),
    };
    Ended { seen, outcome, status, body_bytes: 0, deliver: Duration::ZERO, reusable, at }
}

/// Answers with a denial, and sees to the body that nobody will read: a short one is read to its end, so
/// that the connection stays usable, any other one ends the connection.
async fn refuse(
    policy: &Policy,
    session: &mut ServerSession,
    request_id: &str,
    denied: Denied,
    body_bytes: u64,
) -> Ended {
    let unread = !session.is_body_done();
    let expects = session.get_header(EXPECT).is_some();
    let declared = head(session, Caller::of(session)).body_bytes_declared;
    let short = declared.is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
    let broken = matches!(denied.denial, Denial::BodyIncomplete | Denial::BodyTimeout);
    // Where a body broke, nobody knows where the next request begins, whatever the parser says.
    let keep = !broken && (!unread || (short && !expects));
    if let ServerSession::H1(h1) = session {
        h1.set_close_on_response_before_downstream_finish(!keep);
        h1.set_total_drain_timeout(Some(DRAIN_DEADLINE));
    }
    if !keep {
        session.set_keepalive(None);
    }
    let route = denied.seen.route.clone();
    let told =
        answer::deny(session, denied.denial, route.as_deref(), request_id, policy.explain_denials).await;
    if unread && !keep && !expects && !broken && !session.is_http2() {
        body::discard(session, LINGER_BYTES_MAX, DRAIN_DEADLINE).await;
    }
    let ended = Ended::refused(denied, body_bytes, told);
    Ended { reusable: ended.reusable && (keep || session.is_http2()), ..ended }
}

/// Answers a head that is none: nothing behind it can be trusted to be anything, so the connection ends.
async fn refuse_head(
    policy: &Policy,
    session: &mut ServerSession,
    request_id: &str,
    denial: Denial,
) -> Ended {
    session.set_keepalive(None);
    let told = answer::deny(session, denial, None, request_id, policy.explain_denials).await;
    Ended { reusable: false, ..Ended::refused(Denied { denial, seen: Seen::default() }, 0, told) }
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
        Ok(()) => ("allow", "ok"),
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
    let logged = log.log(&Entry {
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
    });
    if !logged {
        shared.metrics.log_line_lost();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A method is text of the caller's choosing: only the ones that exist are logged.
fn known_method(method: &str) -> &str {
    match method {
        "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE" => method,
        _ => "other",
    }
}

/// Tells a caller that waits for it to go on (RFC 9110 section 10.1.1).
async fn continue_if_expected(session: &mut ServerSession) {
    let expects =
        session.get_header(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects && let ServerSession::H1(h1) = session {
        // A caller that is gone is noticed when its body is read.
        let _ = h1.write_continue_response().await;
    }
}

/// HTTP/1.1 requests name their host (RFC 9112 section 3.2); pingora leaves that to us.
fn lacks_host(session: &ServerSession) -> bool {
    let request = session.req_header();
    request.version == Version::HTTP_11 && !request.headers.contains_key(HOST)
}

fn peer(session: &ServerSession) -> IpAddr {
    session.client_addr().and_then(|address| address.as_inet()).map_or(LOOPBACK, |address| address.ip())
}

/// What the session tells of a request besides its head.
#[derive(Clone, Copy)]
struct Caller {
    peer: IpAddr,
    fragment: bool,
}

impl Caller {
    fn of(session: &ServerSession) -> Self {
        Self { peer: peer(session), fragment: has_fragment(session) }
    }
}

fn head(session: &ServerSession, caller: Caller) -> RequestHead<'_> {
    let request = session.req_header();
    let raw = std::str::from_utf8(request.raw_path()).unwrap_or_default();
    let target = if caller.fragment { "" } else { raw };
    RequestHead::new(request.method.as_str(), target, &request.headers, caller.peer)
}

/// Whether the request target holds a `#`: the URI library cuts it off silently, and a target that was
/// repaired is not the one that was signed.
fn has_fragment(session: &ServerSession) -> bool {
    let ServerSession::H1(h1) = session else { return false };
    let raw = h1.get_headers_raw_bytes();
    let line = raw.iter().skip_while(|b| matches!(**b, b'\r' | b'\n')).take_while(|b| **b != b'\n');
    line.into_iter().any(|b| *b == b'#')
}

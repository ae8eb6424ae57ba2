//! The egress listener: connections of the agent, room for them and for bodies, and one log line per request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::accept;
use super::clock::instant;
use super::egress::{Ended, Exchange};
use super::exchange::{Shared, WRITE_TIMEOUT};
use super::head::Unusable;
use super::refuse;
use super::requests::{Next, Requests};
use super::session::{Caller, Session, begin_span, go_on_with, known_method, micros};
use super::slots::{BodyMemory, Reserved, Slots};
use crate::config::EgressListener;
use crate::observe::{EgressEntry, Span};

/// The egress listener. What it holds is held apart from what callers of the ingress have, so that neither side can use up
/// what is the other's.
pub(super) struct Listener {
    /// A reload replaces it. `None`: there is no such listener.
    pub(super) settings: ArcSwapOption<EgressListener>,
    slots: Arc<Slots>,
    body_memory: BodyMemory,
}

impl Listener {
    pub(super) fn new(settings: Option<EgressListener>) -> Self {
        Self {
            settings: ArcSwapOption::new(settings.map(Arc::new)),
            slots: Arc::default(),
            body_memory: BodyMemory::default(),
        }
    }

    /// Most connections at one time.
    pub(super) fn connections_max(&self) -> usize {
        self.settings.load().as_ref().map_or(0, |settings| settings.connections_max)
    }

    /// Most bytes of all bodies that are held at one time.
    pub(super) fn body_memory_bytes_max(&self) -> u64 {
        self.settings.load().as_ref().map_or(0, |settings| settings.body_memory_bytes_max)
    }

    /// Nothing so far, of the memory for bodies.
    pub(super) fn reserve(&self) -> Reserved {
        self.body_memory.reserve(self.body_memory_bytes_max())
    }
}

/// What the log, the metrics and the span tell of a request, as far as it got.
pub(super) struct Told {
    pub(super) rule: Box<str>,
    /// `-`: it cannot be told.
    pub(super) path: String,
    pub(super) detail: Option<String>,
    pub(super) interaction: Option<String>,
    pub(super) body_bytes: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self { rule: "none".into(), path: "-".to_owned(), detail: None, interaction: None, body_bytes: 0 }
    }
}

/// Accepts until it is told to stop.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, mut stopping: ShutdownWatch) {
    while let Some((stream, peer)) = accept::next(&listener, &mut stopping).await {
        tokio::spawn(converse(Arc::clone(&shared), stream, peer, stopping.clone()));
    }
}

/// Serves a connection until it ends.
async fn converse(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, stopping: ShutdownWatch) {
    let listener = &shared.egress_listener;
    let connections_max = listener.connections_max();
    let Some(_slot) = listener.slots.take(connections_max) else {
        if shared.refusals.is_first("egress_full", instant()) {
            log::warn!(
                "a connection from {peer} to the egress was closed: there are {connections_max} (`listen.egress.connections_max`); others like it are closed without a word"
            );
        }
        return;
    };
    let mut requests = Requests::new(stream, peer, stopping);
    loop {
        let limits = || shared.policy.load().limits;
        match requests.next(limits).await {
            Some(Next::Request(session)) => {
                // Boxed: an idle connection should not carry the room of an exchange.
                match Box::pin(serve(&shared, session, Caller::at(peer.ip()))).await {
                    Some((stream, behind)) => requests.take_back(stream, behind),
                    None => return,
                }
            }
            Some(Next::Unusable(stream, unusable)) => {
                return Box::pin(refuse_head(&shared, stream, unusable)).await;
            }
            None => return,
        }
    }
}

/// Serves a request. Hands back the connection, with what was read behind the request, where another one may follow.
async fn serve(shared: &Shared, mut session: Session, caller: Caller<'static>) -> Option<(Stream, BytesMut)> {
    // The policy of the moment in which there is a request: the connection may have waited for it for long.
    let policy = shared.policy.load_full();
    let under_way = shared.egress.begin()?;
    let began = instant();
    let request_id = shared.request_ids.next();
    session.set_write_timeout(WRITE_TIMEOUT);
    let span = begin_span(shared, &session, "request");
    go_on_with(&mut session, span.as_ref());
    let mut exchange = Exchange {
        shared,
        policy: &policy,
        session: &mut session,
        caller,
        request_id: &request_id,
        memory: shared.egress_listener.reserve(),
        told: Told::default(),
    };
    let ended = exchange.run().await;
    let told = exchange.told;
    record(shared, Some(&session), &request_id, &told, &ended, began, span);
    let kept = session.end(ended.reusable).await;
    drop(under_way);
    kept
}

/// Answers a head that is none, and closes the connection: nothing behind it can be trusted to be anything.
async fn refuse_head(shared: &Shared, stream: Stream, unusable: Unusable) {
    let Some(_under_way) = shared.egress.begin() else { return };
    let began = instant();
    let request_id = shared.request_ids.next();
    let Unusable { denial, detail, bodiless } = unusable;
    let heard = refuse::refuse_head(stream, denial, bodiless, &request_id, true).await;
    let status = if heard { denial.status() } else { 0 };
    let told = Told { detail: Some(detail.to_owned()), ..Told::default() };
    let ended = Ended { outcome: Err(denial), status, reusable: false };
    record(shared, None, &request_id, &told, &ended, began, None);
}

/// Counts and logs a request.
fn record(
    shared: &Shared,
    session: Option<&Session>,
    request_id: &str,
    told: &Told,
    ended: &Ended,
    began: Instant,
    span: Option<Span>,
) {
    let took = instant().saturating_duration_since(began);
    let (verdict, reason) = match ended.outcome {
        Ok(reason) => ("allow", reason),
        Err(denial) => (denial.verdict(), denial.code()),
    };
    shared.metrics.egress(&told.rule, verdict, reason, took.as_secs_f64());
    if shared.access_log.is_none() && span.is_none() {
        return;
    }
    let entry = EgressEntry {
        time: shared.clock.now(),
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
    if let Some(log) = &shared.access_log
        && !log.log(&entry.line())
    {
        shared.metrics.log_line_lost();
    }
    if let Some(span) = span {
        span.end_egress(&entry);
    }
}

//! A small HTTP service for one of our own listeners: a whole request in, a finished answer out.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::denial::Denial;
use crate::http::{
    BodyMemory, Caller, FAREWELL, HeadError, Next, RequestLoop, Session, body, continue_if_expected, head_of,
    refuse, within, write_answer_head,
};
use crate::policy::Limits;
use crate::proxy::listen::{ConnectionLimits, ConnectionSlot, accept};
use crate::proxy::runtime::Drain;

/// A request to one of our own listeners.
#[derive(Clone, Debug)]
pub struct AdminRequest {
    /// The method.
    pub method: String,
    /// The path, as sent.
    pub path: String,
    /// The query, as sent; empty without one.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole; `None`: it is too large.
    pub body: Option<Bytes>,
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
}

/// A finished answer.
#[derive(Clone, Debug)]
pub struct AdminResponse {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// The methods that are allowed, of a 405.
    pub allow: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl AdminResponse {
    /// An answer with nothing special about it.
    pub fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, allow: "", headers: Vec::new() }
    }

    /// There is nothing.
    pub fn not_found() -> Self {
        Self::new(404, "text/plain", String::new())
    }
}

/// How long a connection may wait for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a request may take in all, its answer included.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// Largest body, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// How long what is under way may go on once nothing more is accepted.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What a caller may take. Those who are on this host have a share of their own, which nobody else can use up: the
/// listener may be open to a whole cluster.
struct CallerLimits {
    limits: Limits,
    slots: Arc<ConnectionLimits>,
    memory: BodyMemory,
    /// Whether it was said that there is no room.
    told: AtomicBool,
}

impl CallerLimits {
    fn new(connections_max: usize, connections_per_address_max: usize) -> Self {
        let limits = Limits {
            body_memory_bytes_max: 4 << 20,
            connections_max,
            connections_per_address_max,
            head_bytes_max: 16 << 10,
            head_deadline: Duration::from_secs(10),
            idle_timeout: IDLE_TIMEOUT,
            ..Limits::default()
        };
        Self { limits, slots: Arc::default(), memory: BodyMemory::default(), told: AtomicBool::new(false) }
    }

    fn take(&self, peer: IpAddr) -> Option<ConnectionSlot> {
        let mut slot = self.slots.take(self.limits.connections_max)?;
        slot.count_exactly(peer.to_canonical(), self.limits.connections_per_address_max).then_some(slot)
    }
}

/// A listener's answers.
struct AdminServer<F> {
    respond: F,
    here: CallerLimits,
    elsewhere: CallerLimits,
    traffic: Drain,
}

/// Serves `respond` until it is told to stop.
pub async fn serve<F, A>(listener: TcpListener, respond: F, mut stopping: ShutdownWatch)
where
    F: Fn(AdminRequest) -> A + Send + Sync + 'static,
    A: Future<Output = AdminResponse> + Send + 'static,
{
    let (here, elsewhere) = (CallerLimits::new(256, 256), CallerLimits::new(64, 16));
    let desk = Arc::new(AdminServer { respond, here, elsewhere, traffic: Drain::default() });
    while let Some((stream, peer)) = accept::next(&listener, &mut stopping).await {
        let (desk, stopping) = (Arc::clone(&desk), stopping.clone());
        tokio::spawn(async move { desk.welcome(stream, peer, stopping).await });
    }
    drop(listener);
    let _ = timeout(LAST_ANSWERS, desk.traffic.ended()).await;
}

impl<F, A> AdminServer<F>
where
    F: Fn(AdminRequest) -> A + Send + Sync + 'static,
    A: Future<Output = AdminResponse> + Send + 'static,
{
    async fn welcome(&self, stream: TcpStream, peer: SocketAddr, stopping: ShutdownWatch) {
        let is_here = peer.ip().to_canonical().is_loopback();
        let share = if is_here { &self.here } else { &self.elsewhere };
        let Some(_slot) = share.take(peer.ip()) else {
            if !share.told.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "the admin listener closed a connection from {}: it has as many as it may; others like it are closed without a word",
                    peer.ip()
                );
            }
            return;
        };
        let mut requests = RequestLoop::new(stream, peer, stopping);
        loop {
            let session = match requests.next(|| share.limits).await {
                Some(Next::Request(session)) => session,
                Some(Next::HeadError(stream, unusable)) => return turn_away(stream, &unusable).await,
                None => return,
            };
            let Some(_under_way) = self.traffic.begin() else { return };
            // A caller that does not take its answer does not keep its place.
            let answered = within(EXCHANGE_DEADLINE, Box::pin(self.answer(session, peer.ip(), share))).await;
            let Some((stream, behind)) = answered.flatten() else { return };
            requests.take_back(stream, behind);
        }
    }

    /// Answers a request. Hands back the connection where another one may follow.
    async fn answer(
        &self,
        mut session: Session,
        peer: IpAddr,
        share: &CallerLimits,
    ) -> Option<(Stream, BytesMut)> {
        continue_if_expected(&mut session).await;
        let mut reserved = share.memory.reserve(share.limits.body_memory_bytes_max);
        let room = body::BodyLimits {
            bytes_max: BODY_BYTES_MAX,
            deadline: BODY_DEADLINE,
            limits: &share.limits,
            reserved: &mut reserved,
        };
        let body = match body::read(&mut session, None, room).await {
            Ok(body) => Some(body),
            Err(Denial::BodyTooLarge) => {
                session.close_behind();
                None
            }
            Err(denial) => {
                session.close_behind();
                let refusal = AdminResponse::new(denial.status(), "text/plain; charset=utf-8", String::new());
                session.write_head(response_head(&refusal).ok()?).await.ok()?;
                return session.end(true).await;
            }
        };
        let head = head_of(&session, Caller::at(peer));
        let request = AdminRequest {
            method: head.method.to_owned(),
            path: head.raw_path().to_owned(),
            query: head.raw_query().unwrap_or_default().to_owned(),
            headers: head.headers.clone(),
            body,
            peer,
        };
        let response = (self.respond)(request).await;
        session.write_head(response_head(&response).ok()?).await.ok()?;
        session.write_body(Bytes::from(response.body), true).await.ok()?;
        session.end(true).await
    }
}

/// Answers a malformed head with a status alone, and closes the connection once the rest of what the caller sent was
/// discarded: a reset would take the answer with it.
async fn turn_away(mut stream: Stream, unusable: &HeadError) {
    let mut answer = Vec::new();
    let nothing = [("content-length", b"0".as_slice())];
    write_answer_head(&mut answer, unusable.denial.status(), nothing, false);
    within(FAREWELL, async {
        let _ = stream.write_all(&answer).await;
        refuse::linger(&mut stream).await;
    })
    .await;
}

fn response_head(response: &AdminResponse) -> pingora::Result<ResponseHeader> {
    let mut header = ResponseHeader::build_no_case(response.status, Some(5))?;
    header.insert_header(CONTENT_TYPE, response.content_type)?;
    if response.status != 204 {
        header.insert_header(CONTENT_LENGTH, response.body.len())?;
    }
    header.insert_header(CACHE_CONTROL, "no-store")?;
    if response.status == 401 {
        header.insert_header(WWW_AUTHENTICATE, "Bearer realm=\"callgate\"")?;
    }
    if response.status == 405 {
        header.insert_header(ALLOW, response.allow)?;
    }
    for (name, value) in &response.headers {
        header.insert_header(name, value)?;
    }
    Ok(header)
}

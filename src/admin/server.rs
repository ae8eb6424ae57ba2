//! The HTTP server of the admin listener and of the admission webhook. Passes complete requests to a function and
//! writes the responses.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::certificate::ServedCertificate;
use crate::denial::Denial;
use crate::http::response::retry_after_secs;
use crate::http::{
    BodyMemory, BufferedIo, CLOSE_TIMEOUT, Caller, HeadError, NextRequest, RequestLoop, Session, head_of,
    lingering_close, request_body, send_continue_if_expected, with_timeout, write_response_head,
};
use crate::policy::Limits;
use crate::proxy::listen::{ConnectionLimits, ConnectionSlot, accept};
use crate::proxy::runtime::Drain;

/// A request to the admin listener.
#[derive(Clone, Debug)]
pub struct AdminRequest {
    /// The method.
    pub method: String,
    /// The path as received, without decoding.
    pub path: String,
    /// The query as received, without decoding. Empty if there is no query.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body. `None` if the body exceeds the size limit.
    pub body: Option<Bytes>,
    /// The IP address of the peer.
    pub peer: IpAddr,
}

impl AdminRequest {
    /// Returns the body of a request whose media type is JSON. A web page can send this media type to another origin
    /// only after a CORS preflight, which Callgate does not allow.
    ///
    /// # Errors
    /// Returns the status of the response and an explanation if the media type is not JSON or the body is too large.
    pub fn json(&self) -> Result<&Bytes, (u16, &'static str)> {
        let media_type = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err((415, "the body must be application/json"));
        }
        self.body.as_ref().ok_or((413, "the body is too large"))
    }
}

/// The response to a request to the admin listener.
#[derive(Clone, Debug)]
pub struct AdminResponse {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// The value of the `Allow` header for a response with status 405. Otherwise empty.
    pub allow: &'static str,
    /// Additional headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The outcome of a successful action, for the event log.
    pub outcome: &'static str,
}

impl AdminResponse {
    /// Creates a response without additional headers.
    pub fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, allow: "", headers: Vec::new(), outcome: "ok" }
    }

    /// Creates a 404 response.
    pub fn not_found() -> Self {
        Self::new(404, "text/plain", String::new())
    }
}

/// The maximum idle time of a connection to the admin listener.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The value of `Retry-After` in a response with status 503, in seconds.
const RETRY_AFTER_SECS: u32 = 5;
/// The deadline for reading a request body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// The deadline for a request, including its response.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// The maximum size of a request body, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// The maximum memory in bytes for all request bodies of callers on this host. The same limit applies separately to the
/// request bodies of all other callers.
const BODIES_BYTES_MAX: u64 = 4 << 20;
/// The deadline for a TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The maximum time to wait for running requests when the listener stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits for one of two groups of callers of the admin listener: the callers on this host, and all other callers.
/// The groups have separate limits, so that callers on other hosts cannot use up the limits of this host.
struct CallerLimits {
    limits: Limits,
    slots: Arc<ConnectionLimits>,
    memory: BodyMemory,
    /// Whether a connection was closed because of the limits. Only the first such connection is logged.
    has_logged: AtomicBool,
}

impl CallerLimits {
    fn new(connections_max: usize, connections_per_address_max: usize, body_memory_bytes_max: u64) -> Self {
        let limits = Limits {
            body_memory_bytes_max,
            connections_max,
            connections_per_address_max,
            head_bytes_max: 16 << 10,
            head_deadline: Duration::from_secs(10),
            idle_timeout: IDLE_TIMEOUT,
            ..Limits::default()
        };
        Self {
            limits,
            slots: Arc::default(),
            memory: BodyMemory::default(),
            has_logged: AtomicBool::new(false),
        }
    }

    fn take(&self, peer: IpAddr) -> Option<ConnectionSlot> {
        let mut slot = self.slots.acquire(self.limits.connections_max)?;
        slot.count_exact_address(peer.to_canonical(), self.limits.connections_per_address_max).then_some(slot)
    }
}

/// The server of the admin listener or of the admission webhook.
struct AdminServer<F> {
    respond: F,
    /// The server certificate. `None` if the server accepts plain HTTP.
    certificate: Option<Arc<ServedCertificate>>,
    body_bytes_max: u64,
    local: CallerLimits,
    remote: CallerLimits,
    in_flight: Drain,
}

/// Serves plain HTTP requests with the function `respond` until `stopping` changes.
pub async fn serve<F, A>(listener: TcpListener, respond: F, stopping: ShutdownWatch)
where
    F: Fn(AdminRequest) -> A + Send + Sync + 'static,
    A: Future<Output = AdminResponse> + Send + 'static,
{
    let local = CallerLimits::new(256, 256, BODIES_BYTES_MAX);
    let remote = CallerLimits::new(64, 16, BODIES_BYTES_MAX);
    let (certificate, body_bytes_max, in_flight) = (None, BODY_BYTES_MAX, Drain::default());
    AdminServer { respond, certificate, body_bytes_max, local, remote, in_flight }
        .accept(listener, stopping)
        .await;
}

/// Serves HTTPS requests with the function `respond` until `stopping` changes. A request body has at most
/// `body_bytes_max` bytes. The callers on this host can open `connections_max` connections, and their request bodies
/// have at most `bodies_bytes_max` bytes in total. The same limits apply separately to all other callers.
pub async fn serve_tls<F, A>(
    listener: TcpListener,
    certificate: Arc<ServedCertificate>,
    (connections_max, body_bytes_max, bodies_bytes_max): (usize, u64, u64),
    respond: F,
    stopping: ShutdownWatch,
) where
    F: Fn(AdminRequest) -> A + Send + Sync + 'static,
    A: Future<Output = AdminResponse> + Send + 'static,
{
    let limits = || CallerLimits::new(connections_max, connections_max, bodies_bytes_max);
    let (local, remote, in_flight) = (limits(), limits(), Drain::default());
    let certificate = Some(certificate);
    AdminServer { respond, certificate, body_bytes_max, local, remote, in_flight }
        .accept(listener, stopping)
        .await;
}

impl<F, A> AdminServer<F>
where
    F: Fn(AdminRequest) -> A + Send + Sync + 'static,
    A: Future<Output = AdminResponse> + Send + 'static,
{
    async fn accept(self, listener: TcpListener, mut stopping: ShutdownWatch) {
        let server = Arc::new(self);
        while let Some((stream, peer)) = accept::next(&listener, &mut stopping).await {
            let (server, stopping) = (Arc::clone(&server), stopping.clone());
            tokio::spawn(async move { server.serve_connection(stream, peer, stopping).await });
        }
        drop(listener);
        let _ = timeout(DRAIN_TIMEOUT, server.in_flight.wait_until_empty()).await;
    }

    /// Performs the TLS handshake if the server has a certificate. Returns `None` if the handshake failed.
    async fn establish(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        stopping: ShutdownWatch,
    ) -> Option<RequestLoop> {
        let Some(certificate) = &self.certificate else {
            return Some(RequestLoop::new(stream, peer, stopping));
        };
        let tls = certificate.current.load_full();
        let handshake = tls.acceptor.tls_handshake(BufferedIo::new(stream, peer));
        let stream = Box::pin(with_timeout(HANDSHAKE_DEADLINE, handshake)).await?.ok()?;
        Some(RequestLoop::over(Box::new(stream), stopping))
    }

    async fn serve_connection(&self, stream: TcpStream, peer: SocketAddr, stopping: ShutdownWatch) {
        let is_local = peer.ip().to_canonical().is_loopback();
        let caller_limits = if is_local { &self.local } else { &self.remote };
        let Some(_slot) = caller_limits.take(peer.ip()) else {
            if !caller_limits.has_logged.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "the admin listener closed a connection from {}: too many connections are open; further connections that are closed for this reason are not logged",
                    peer.ip()
                );
            }
            return;
        };
        let Some(mut requests) = self.establish(stream, peer, stopping).await else { return };
        loop {
            let session = match requests.next(|| caller_limits.limits).await {
                Some(NextRequest::Request(session)) => session,
                Some(NextRequest::HeadError(stream, error)) => return deny_head(stream, &error).await,
                None => return,
            };
            let Some(_request) = self.in_flight.begin() else { return };
            // The deadline also ends requests whose callers do not read the response.
            let served =
                with_timeout(EXCHANGE_DEADLINE, Box::pin(self.handle(session, peer.ip(), caller_limits)))
                    .await;
            let Some((stream, leftover)) = served.flatten() else { return };
            requests.take_back(stream, leftover);
        }
    }

    /// Serves one request. Returns the connection and its unread bytes if another request can follow on the connection.
    async fn handle(
        &self,
        mut session: Session,
        peer: IpAddr,
        caller_limits: &CallerLimits,
    ) -> Option<(Stream, BytesMut)> {
        send_continue_if_expected(&mut session).await;
        let mut reservation = caller_limits.memory.reserve(caller_limits.limits.body_memory_bytes_max);
        let body_limits = request_body::BodyLimits {
            bytes_max: self.body_bytes_max,
            deadline: BODY_DEADLINE,
            limits: &caller_limits.limits,
            reservation: &mut reservation,
        };
        let body = match request_body::read(&mut session, None, body_limits).await {
            Ok(body) => Some(body),
            Err(Denial::BodyTooLarge) => {
                session.close_after_response();
                None
            }
            Err(denial) => {
                session.close_after_response();
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

/// Responds to an invalid request head with a status only, then closes the connection. Discards the bytes that the
/// caller still sends, because unread bytes would cause a TCP reset, and the caller could lose the response.
async fn deny_head(mut stream: Stream, error: &HeadError) {
    let mut response = Vec::new();
    let again = retry_after_secs(error.denial).map(|seconds| seconds.to_string());
    let again = again.iter().map(|seconds| ("retry-after", seconds.as_bytes()));
    let headers = [("content-length", b"0".as_slice())].into_iter().chain(again);
    write_response_head(&mut response, error.denial.status(), headers, false);
    with_timeout(CLOSE_TIMEOUT, async {
        let _ = stream.write_all(&response).await;
        lingering_close::close(&mut stream).await;
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
    if response.status == 503 {
        // The headers in `response.headers`, which are added below, can replace this value.
        header.insert_header(RETRY_AFTER, RETRY_AFTER_SECS)?;
    }
    for (name, value) in &response.headers {
        header.insert_header(name, value)?;
    }
    Ok(header)
}

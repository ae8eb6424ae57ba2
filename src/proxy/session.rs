//! What every exchange needs of a request and its connection, whichever way it came and whoever is at the other end.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::accept::Link;
use super::exchange::Shared;
use super::http1_server::Http1;
use crate::observe::Span;
use crate::request::{ClientCertificate, RequestHead};

/// The header of W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

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

    pub(super) fn next(&self) -> String {
        let number =
            (u64::from(self.prefix) << 32) | (self.next.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff);
        data_encoding::HEXLOWER.encode(&number.to_be_bytes())
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A method is text of the caller's choosing: only the ones that exist are logged.
pub(super) fn known_method(method: &str) -> &str {
    match method {
        "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE" => method,
        _ => "other",
    }
}

/// A request, and where its answer goes.
pub(super) enum Session {
    /// HTTP/1, on every listener.
    Http1(Box<Http1>),
    /// HTTP/2 from outside, which pingora reads and writes.
    Http2(Box<ServerSession>),
}

impl From<ServerSession> for Session {
    fn from(session: ServerSession) -> Self {
        Self::Http2(Box::new(session))
    }
}

impl Session {
    pub(super) fn method(&self) -> &Method {
        match self {
            Self::Http1(http1) => &http1.request().method,
            Self::Http2(session) => &session.req_header().method,
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        match self {
            Self::Http1(http1) => &http1.request().headers,
            Self::Http2(session) => &session.req_header().headers,
        }
    }

    pub(super) fn version(&self) -> Version {
        match self {
            Self::Http1(http1) => http1.request().version,
            Self::Http2(session) => session.req_header().version,
        }
    }

    /// The target as it was sent.
    fn target(&self) -> &str {
        match self {
            Self::Http1(http1) => http1.target(),
            Self::Http2(session) => std::str::from_utf8(session.req_header().raw_path()).unwrap_or_default(),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The connection of HTTP/1 ends with this answer.
    pub(super) fn close_behind(&mut self) {
        match self {
            Self::Http1(http1) => http1.close_behind(),
            // A connection of HTTP/2 ends by a frame of its own (GOAWAY).
            Self::Http2(_) => {}
        }
    }

    /// How long each write may take.
    pub(super) fn set_write_timeout(&mut self, patience: Duration) {
        match self {
            Self::Http1(http1) => http1.set_write_timeout(patience),
            Self::Http2(session) => session.set_write_timeout(Some(patience)),
        }
    }

    /// Whether no body comes. On HTTP/2 one may come where the head says that there is none.
    pub(super) fn has_no_body(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(_) => false,
        }
    }

    /// Whether the body is read to its end.
    pub(super) fn is_body_done(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(session) => session.is_body_done(),
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn read_body(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Http1(http1) => http1.read_body().await,
            Self::Http2(session) => session.read_request_body().await.map_err(io::Error::other),
        }
    }

    /// Reads the next piece of the body behind what is in `body`. Returns how many bytes came: none at the end.
    pub(super) async fn read_body_into(&mut self, body: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Http1(http1) => http1.read_body_into(body).await,
            Self::Http2(session) => {
                while let Some(piece) = session.read_request_body().await.map_err(io::Error::other)? {
                    // One that is empty is not the end.
                    if !piece.is_empty() {
                        body.extend_from_slice(&piece);
                        return Ok(piece.len());
                    }
                }
                Ok(0)
            }
        }
    }

    /// Begins the answer; it may leave with its body.
    pub(super) async fn write_head(&mut self, header: ResponseHeader) -> io::Result<()> {
        match self {
            Self::Http1(http1) => {
                http1.write_head(&header);
                Ok(())
            }
            Self::Http2(session) => {
                session.write_response_header(Box::new(header)).await.map_err(io::Error::other)
            }
        }
    }

    /// Writes a piece of the answer's body, the last one where this is its `end`.
    pub(super) async fn write_body(&mut self, piece: Bytes, end: bool) -> io::Result<()> {
        match self {
            Self::Http1(http1) => http1.write_body(&piece, end).await,
            Self::Http2(session) => session.write_response_body(piece, end).await.map_err(io::Error::other),
        }
    }

    /// Ends the exchange. Hands back a connection of HTTP/1, with what was read behind the request, where another one may
    /// follow; closes it otherwise.
    pub(super) async fn end(self, reusable: bool) -> Option<(Stream, BytesMut)> {
        match self {
            Self::Http1(http1) if reusable => http1.finish().await,
            Self::Http1(mut http1) => {
                http1.shutdown().await;
                None
            }
            Self::Http2(mut session) => {
                match reusable {
                    true => drop(session.finish().await),
                    false => session.shutdown().await,
                }
                None
            }
        }
    }

    /// A refusal is answered: the rest of the body is not waited for unless the connection is to be kept, and then not
    /// for longer than this.
    pub(super) fn refuses(&mut self, keep: bool, patience: Duration) {
        if let Self::Http1(http1) = self
            && keep
        {
            http1.drain_behind();
        }
        if !keep {
            self.close_behind();
        }
        // Whoever was refused is not waited for: on HTTP/2 its window may never open.
        self.set_write_timeout(patience);
    }
}

/// Begins the span of a request where there are spans.
pub(super) fn begin_span(shared: &Shared, session: &Session, name: &'static str) -> Option<Span> {
    let traces = shared.traces.as_ref()?;
    let came = session.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    Some(traces.begin(name, came))
}

/// Puts a span in place of the one that the request came with: what goes on from here belongs to it. Not before everything
/// is verified, since the header may be under a signature.
pub(super) fn go_on_with(session: &mut Session, span: Option<&Span>) {
    let Some(span) = span else { return };
    match session {
        Session::Http1(http1) => {
            if let Ok(value) = HeaderValue::from_str(&span.traceparent()) {
                http1.headers_mut().insert(TRACEPARENT, value);
            }
        }
        Session::Http2(session) => {
            // What is made of hexadecimal digits is always a header.
            let _ = session.req_header_mut().insert_header(TRACEPARENT, span.traceparent());
        }
    }
}

/// Tells a caller that waits for it to go on (RFC 9110 section 10.1.1).
pub(super) async fn continue_if_expected(session: &mut Session) {
    let value = session.headers().get(EXPECT);
    let expects = value.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects || session.version() != Version::HTTP_11 || session.is_body_done() {
        return;
    }
    // A caller that is gone is noticed when its body is read.
    if let Session::Http1(http1) = session {
        let _ = http1.write_continue().await;
    }
}

/// Whether a head of HTTP/2 can be read in more than one way; one of HTTP/1 was looked at before it was parsed.
pub(super) fn is_ambiguous(session: &Session) -> bool {
    let headers = session.headers();
    let doubled = || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    session.is_http2() && (doubled() || headers.contains_key(TRANSFER_ENCODING))
}

/// What is known of a request besides its head.
#[derive(Clone, Copy)]
pub(super) struct Caller<'c> {
    peer: IpAddr,
    certificate: Option<&'c ClientCertificate>,
}

impl<'c> Caller<'c> {
    /// Whoever is at this address.
    pub(super) fn at(peer: IpAddr) -> Self {
        Self { peer, certificate: None }
    }

    /// Who calls from outside.
    pub(super) fn from_outside(link: &'c Link) -> Self {
        Self { peer: link.peer, certificate: link.certificate() }
    }
}

pub(super) fn head<'h>(session: &'h Session, caller: Caller<'h>) -> RequestHead<'h> {
    RequestHead::new(session.method().as_str(), session.target(), session.headers(), caller.peer)
        .with_certificate(caller.certificate)
}

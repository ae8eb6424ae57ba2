//! What every exchange needs of a request and its connection, whichever way it came and whoever is at the other end.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::server::Http1;
use crate::observe::Span;
use crate::request::{ClientCertificate, RequestHead};

/// The header of W3C Trace Context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request, and where its answer goes.
pub(crate) enum Session {
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
    pub(crate) fn method(&self) -> &Method {
        match self {
            Self::Http1(http1) => &http1.request().method,
            Self::Http2(session) => &session.req_header().method,
        }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        match self {
            Self::Http1(http1) => &http1.request().headers,
            Self::Http2(session) => &session.req_header().headers,
        }
    }

    pub(crate) fn version(&self) -> Version {
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

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The connection of HTTP/1 ends with this answer.
    pub(crate) fn close_behind(&mut self) {
        match self {
            Self::Http1(http1) => http1.close_behind(),
            // A connection of HTTP/2 ends by a frame of its own (GOAWAY).
            Self::Http2(_) => {}
        }
    }

    /// How long each write may take.
    pub(crate) fn set_write_timeout(&mut self, patience: Duration) {
        match self {
            Self::Http1(http1) => http1.set_write_timeout(patience),
            Self::Http2(session) => session.set_write_timeout(Some(patience)),
        }
    }

    /// Whether no body comes. On HTTP/2 one may come where the head says that there is none.
    pub(crate) fn has_no_body(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(_) => false,
        }
    }

    /// Whether the body is read to its end.
    pub(crate) fn is_body_done(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(session) => session.is_body_done(),
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn read_body(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Http1(http1) => http1.read_body().await,
            Self::Http2(session) => session.read_request_body().await.map_err(io::Error::other),
        }
    }

    /// Reads the next piece of the body behind what is in `body`. Returns how many bytes came: none at the end.
    pub(crate) async fn read_body_into(&mut self, body: &mut BytesMut) -> io::Result<usize> {
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
    pub(crate) async fn write_head(&mut self, header: ResponseHeader) -> io::Result<()> {
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
    pub(crate) async fn write_body(&mut self, piece: Bytes, end: bool) -> io::Result<()> {
        match self {
            Self::Http1(http1) => http1.write_body(&piece, end).await,
            Self::Http2(session) => session.write_response_body(piece, end).await.map_err(io::Error::other),
        }
    }

    /// Ends the exchange. Hands back a connection of HTTP/1, with what was read behind the request, where another one may
    /// follow; closes it otherwise.
    pub(crate) async fn end(self, reusable: bool) -> Option<(Stream, BytesMut)> {
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
    pub(crate) fn refuses(&mut self, keep: bool, patience: Duration) {
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

/// Puts a span in place of the one that the request came with: what goes on from here belongs to it. Not before everything
/// is verified, since the header may be under a signature.
pub(crate) fn go_on_with(session: &mut Session, span: Option<&Span>) {
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
pub(crate) async fn continue_if_expected(session: &mut Session) {
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
pub(crate) fn is_ambiguous(session: &Session) -> bool {
    let headers = session.headers();
    let doubled = || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    session.is_http2() && (doubled() || headers.contains_key(TRANSFER_ENCODING))
}

/// What is known of a request besides its head.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'c> {
    peer: IpAddr,
    certificate: Option<&'c ClientCertificate>,
}

impl<'c> Caller<'c> {
    /// Whoever is at this address.
    pub(crate) fn at(peer: IpAddr) -> Self {
        Self { peer, certificate: None }
    }

    /// The same caller, who proved to be the owner of a client certificate.
    pub(crate) fn with_certificate(self, certificate: Option<&'c ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }
}

pub(crate) fn head_of<'h>(session: &'h Session, caller: Caller<'h>) -> RequestHead<'h> {
    RequestHead::new(session.method().as_str(), session.target(), session.headers(), caller.peer)
        .with_certificate(caller.certificate)
}

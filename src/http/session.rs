//! The common interface to a request and its connection. It is the same for HTTP/1 and HTTP/2, and for every listener.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::http1_session::Http1Session;
use crate::framing::{Trailers, is_authority};
use crate::observe::Span;
use crate::replica::{Outcome, ResponseProof};
use crate::request::{ClientCertificate, RequestHead};

/// The `traceparent` header of W3C Trace Context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request, and the connection or the HTTP/2 stream for its response.
pub(crate) enum Session {
    /// An HTTP/1 request, on any listener.
    Http1(Box<Http1Session>),
    /// An HTTP/2 request on an ingress listener. pingora reads the request and writes the response.
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

    /// Returns the request target as received.
    pub(crate) fn target(&self) -> &str {
        match self {
            Self::Http1(http1) => http1.target(),
            Self::Http2(session) => std::str::from_utf8(session.req_header().raw_path()).unwrap_or_default(),
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Adds the header `Callgate-Replica` to the response. With this header, the Callgate process that sent the request
    /// verifies the response. Must be called before the head is written.
    pub(crate) fn prove(&mut self, proof: ResponseProof) {
        if let Self::Http1(http1) = self {
            http1.prove(proof);
        }
    }

    /// Sets the [`Outcome`] in the response header `Callgate-Replica`. Has no effect if the response does not have this
    /// header.
    pub(crate) fn set_outcome(&mut self, outcome: Outcome) {
        if let Self::Http1(http1) = self {
            http1.set_outcome(outcome);
        }
    }

    /// Makes an HTTP/1 session close its connection after the response.
    pub(crate) fn close_after_response(&mut self) {
        match self {
            Self::Http1(http1) => http1.close_after_response(),
            // An HTTP/2 connection ends with a GOAWAY frame, which the connection task sends.
            Self::Http2(_) => {}
        }
    }

    /// Sets the timeout for each write of the response.
    pub(crate) fn set_write_timeout(&mut self, timeout: Duration) {
        match self {
            Self::Http1(http1) => http1.set_write_timeout(timeout),
            Self::Http2(session) => session.set_write_timeout(Some(timeout)),
        }
    }

    /// Reports whether the request is known to have no body. On HTTP/2, this is unknown until the end of the stream.
    pub(crate) fn has_no_body(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(_) => false,
        }
    }

    /// Reports whether the whole request body has been read.
    pub(crate) fn is_body_done(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(session) => session.is_body_done(),
        }
    }

    /// Enables storing the trailers of a chunked HTTP/1 request body. Must be called before the body is read.
    pub(crate) fn keep_trailers(&mut self) {
        if let Self::Http1(http1) = self {
            http1.keep_trailers();
        }
    }

    /// Returns the trailers of the request body, or `None` if trailers are ignored. They are complete only at the end
    /// of the body.
    pub(crate) fn trailers(&self) -> Option<&Trailers> {
        match self {
            Self::Http1(http1) => http1.trailers(),
            Self::Http2(_) => None,
        }
    }

    /// Reads the next part of the request body. Returns `None` at the end of the body.
    pub(crate) async fn read_body(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Http1(http1) => http1.read_body().await,
            Self::Http2(session) => session.read_request_body().await.map_err(io::Error::other),
        }
    }

    /// Reads the next part of the request body and appends it to `body`. Returns the number of appended bytes, which is
    /// 0 at the end of the body.
    pub(crate) async fn read_body_into(&mut self, body: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Http1(http1) => http1.read_body_into(body).await,
            Self::Http2(session) => {
                while let Some(data) = session.read_request_body().await.map_err(io::Error::other)? {
                    // An empty DATA frame is not the end of the body.
                    if !data.is_empty() {
                        body.extend_from_slice(&data);
                        return Ok(data.len());
                    }
                }
                Ok(0)
            }
        }
    }

    /// Returns the output of `future`. Returns `None` if the caller closes the connection or cancels the HTTP/2 stream
    /// first.
    ///
    /// A caller that closes only its sending direction is treated as if it had closed the connection, because Callgate
    /// cannot distinguish the two cases. While the body of an HTTP/1 request is unread, Callgate does not notice the
    /// end of the connection.
    pub(crate) async fn unless_closed<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let closed = async {
            match self {
                Self::Http1(http1) => http1.closed().await,
                // `true` means that no more data is expected, so that this call only waits for the end of the stream.
                // `is_body_done` would be wrong here, because it is false for a body that has ended with an error.
                Self::Http2(session) => drop(session.read_body_or_idle(true).await),
            }
        };
        tokio::select! {
            biased;
            output = future => Some(output),
            () = closed => None,
        }
    }

    /// Writes the head of the response. On HTTP/1, the head is buffered until a part of the body is written.
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

    /// Sends the head of the response immediately, although no part of the body is available yet.
    pub(crate) async fn flush_head(&mut self) -> io::Result<()> {
        match self {
            Self::Http1(http1) => http1.flush_head().await,
            // On HTTP/2, the head was not buffered.
            Self::Http2(_) => Ok(()),
        }
    }

    /// Ends the response body with trailers, one per line with CRLF. Only a chunked HTTP/1 body has trailers.
    pub(crate) async fn end_with_trailers(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::Http1(http1) => http1.end_with_trailers(trailers).await,
            Self::Http2(_) => self.write_body(Bytes::new(), true).await,
        }
    }

    /// Writes a part of the response body. `end` is true for the last part.
    pub(crate) async fn write_body(&mut self, data: Bytes, end: bool) -> io::Result<()> {
        match self {
            Self::Http1(http1) => http1.write_body(&data, end).await,
            Self::Http2(session) => session.write_response_body(data, end).await.map_err(io::Error::other),
        }
    }

    /// Ends the session. If `reusable` is true and another request may follow on the HTTP/1 connection, returns the
    /// connection and the bytes that were read after the request. Otherwise closes the HTTP/1 connection or ends the
    /// HTTP/2 stream, and returns `None`.
    pub(crate) async fn end(self, reusable: bool) -> Option<(Stream, BytesMut)> {
        match self {
            Self::Http1(http1) if reusable => http1.finish().await,
            Self::Http1(mut http1) => {
                http1.shutdown().await;
                None
            }
            Self::Http2(mut session) => {
                match reusable {
                    true => drop(Box::pin(session.finish()).await),
                    false => Box::pin(session.shutdown()).await,
                }
                None
            }
        }
    }

    /// Returns the HTTP/1 connection and the bytes that were read after the request, so that another protocol can use
    /// the connection. Returns `None` for HTTP/2.
    pub(crate) fn into_io(self) -> Option<(Stream, BytesMut)> {
        match self {
            Self::Http1(http1) => Some((http1.stream, http1.read_buffer)),
            Self::Http2(_) => None,
        }
    }

    /// Prepares the session for writing a denial. If `keep_alive` is true, an unread HTTP/1 body is discarded after the
    /// response. Otherwise the HTTP/1 connection is closed after the response. `timeout` limits each write.
    pub(crate) fn prepare_denial(&mut self, keep_alive: bool, timeout: Duration) {
        if let Self::Http1(http1) = self
            && keep_alive
        {
            http1.drain_after_response();
        }
        if !keep_alive {
            self.close_after_response();
        }
        // The timeout limits the time that is spent on a denied caller. Without it, a write on HTTP/2 could wait
        // forever for a caller that does not open its flow-control window.
        self.set_write_timeout(timeout);
    }
}

/// Replaces the `traceparent` header of the request, so that the spans of the agent or the provider become children of
/// Callgate's span. Must be called after the signature check, because a signature may cover the header.
pub(crate) fn set_traceparent(session: &mut Session, span: Option<&Span>) {
    let Some(span) = span else { return };
    match session {
        Session::Http1(http1) => {
            if let Ok(value) = HeaderValue::from_str(&span.traceparent()) {
                http1.headers_mut().insert(TRACEPARENT, value);
            }
        }
        Session::Http2(session) => {
            // The value consists of hexadecimal digits and hyphens, so it is a valid header value.
            let _ = session.req_header_mut().insert_header(TRACEPARENT, span.traceparent());
        }
    }
}

/// Writes `100 Continue` if the caller waits for this response before it sends the body (RFC 9110 section 10.1.1).
pub(crate) async fn send_continue_if_expected(session: &mut Session) {
    let value = session.headers().get(EXPECT);
    let is_expected = value.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !is_expected || session.version() != Version::HTTP_11 || session.is_body_done() {
        return;
    }
    // An error is ignored, because the next read of the body reports it again.
    if let Session::Http1(http1) = session {
        let _ = http1.write_continue().await;
    }
}

/// Reports whether two servers could interpret an HTTP/2 head differently. The possible causes are its framing headers,
/// its hosts, and white space around its header values. Returns false for HTTP/1, because the heads of HTTP/1 requests
/// were validated before they were parsed.
pub(crate) fn is_ambiguous(session: &Session) -> bool {
    let Session::Http2(session) = session else { return false };
    let head = session.req_header();
    let headers = &head.headers;
    let has_duplicate_length = || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    // White space around a value is forbidden (RFC 9113 section 8.2.1).
    let is_padded = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    has_duplicate_length()
        || headers.contains_key(TRANSFER_ENCODING)
        || !has_one_host(head.uri.authority().map(Authority::as_str), headers)
        || headers.values().any(is_padded)
}

/// Reports whether an HTTP/2 head contains exactly one valid host: in `:authority`, in one `Host` header, or in both
/// with the same value (RFC 9113 section 8.3.1). `authority` is the value of `:authority`.
fn has_one_host(authority: Option<&str>, headers: &HeaderMap) -> bool {
    let mut hosts =
        headers.get_all(HOST).iter().map(HeaderValue::as_bytes).chain(authority.map(str::as_bytes));
    hosts.next().is_some_and(|first| is_authority(first) && hosts.all(|other| other == first))
        && headers.get_all(HOST).iter().nth(1).is_none()
}

/// The properties of a caller's connection: the address, the client certificate, and whether the connection uses TLS.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'c> {
    peer: IpAddr,
    certificate: Option<&'c ClientCertificate>,
    is_tls: bool,
}

impl<'c> Caller<'c> {
    /// Creates a caller with this address. It has no client certificate and does not use TLS.
    pub(crate) fn at(peer: IpAddr) -> Self {
        Self { peer, certificate: None, is_tls: false }
    }

    /// Adds the verified client certificate of the caller.
    pub(crate) fn with_certificate(self, certificate: Option<&'c ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    /// Sets whether the connection uses TLS.
    pub(crate) fn with_tls(self, is_tls: bool) -> Self {
        Self { is_tls, ..self }
    }
}

pub(crate) fn head_of<'h>(session: &'h Session, caller: Caller<'h>) -> RequestHead<'h> {
    RequestHead::new(session.method().as_str(), session.target(), session.headers(), caller.peer)
        .with_certificate(caller.certificate)
        .with_tls(caller.is_tls)
}

//! What every exchange needs of a server's session, whoever is at the other end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderName, Version};
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;

use super::accept::Link;
use super::exchange::Shared;
use crate::observe::Span;
use crate::request::{ClientCertificate, RequestHead};
use crate::source::LOOPBACK;

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

/// Begins the span of a request where there are spans.
pub(super) fn begin_span(shared: &Shared, session: &ServerSession, name: &'static str) -> Option<Span> {
    let came = session.get_header(TRACEPARENT).and_then(|value| value.to_str().ok());
    shared.traces.as_ref().map(|traces| traces.begin(name, came))
}

/// Puts a span in place of the one that the request came with: what goes on from here belongs to it. Not before everything
/// is verified, since the header may be under a signature.
pub(super) fn go_on_with(session: &mut ServerSession, span: Option<&Span>) {
    if let Some(span) = span {
        // What is made of hexadecimal digits is always a header.
        let _ = session.req_header_mut().insert_header(TRACEPARENT, span.traceparent());
    }
}

/// Tells a caller that waits for it to go on (RFC 9110 section 10.1.1).
pub(super) async fn continue_if_expected(session: &mut ServerSession) {
    let expects =
        session.get_header(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects && let ServerSession::H1(h1) = session {
        // A caller that is gone is noticed when its body is read.
        let _ = h1.write_continue_response().await;
    }
}

/// Whether a head of HTTP/2 can be read in more than one way; one of HTTP/1 was looked at before it was parsed.
pub(super) fn is_ambiguous(session: &ServerSession) -> bool {
    let headers = &session.req_header().headers;
    let doubled = || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    session.is_http2() && (doubled() || headers.contains_key(TRANSFER_ENCODING))
}

/// HTTP/1.1 requests name their host (RFC 9112 section 3.2); pingora leaves that to us.
pub(super) fn lacks_host(session: &ServerSession) -> bool {
    let request = session.req_header();
    request.version == Version::HTTP_11 && !request.headers.contains_key(HOST)
}

pub(super) fn peer(session: &ServerSession) -> IpAddr {
    session.client_addr().and_then(|address| address.as_inet()).map_or(LOOPBACK, |address| address.ip())
}

/// Ends an exchange: hands the connection back for another request, or closes it.
pub(super) async fn hand_back(mut session: ServerSession, reusable: bool) -> Option<ReusedHttpStream> {
    if !reusable {
        session.shutdown().await;
        return None;
    }
    let settings = HttpPersistentSettings::for_session(&session);
    let stream = session.finish().await.ok().flatten()?;
    Some(ReusedHttpStream::from_reusable_stream(stream, settings))
}

/// What is known of a request besides its head.
#[derive(Clone, Copy)]
pub(super) struct Caller<'c> {
    peer: IpAddr,
    certificate: Option<&'c ClientCertificate>,
    fragment: bool,
}

impl<'c> Caller<'c> {
    /// The agent, or whoever else is at the other end.
    pub(super) fn of(session: &ServerSession) -> Self {
        Self { peer: peer(session), certificate: None, fragment: has_fragment(session) }
    }

    /// Who calls from outside.
    pub(super) fn from_outside(link: &'c Link) -> Self {
        let certificate = link.certificate();
        // A target with a fragment was refused by its bytes.
        Self { peer: link.peer, certificate, fragment: false }
    }
}

pub(super) fn head<'h>(session: &'h ServerSession, caller: Caller<'h>) -> RequestHead<'h> {
    let request = session.req_header();
    let raw = std::str::from_utf8(request.raw_path()).unwrap_or_default();
    let target = if caller.fragment { "" } else { raw };
    RequestHead::new(request.method.as_str(), target, &request.headers, caller.peer)
        .with_certificate(caller.certificate)
}

/// Whether the request target holds a `#`: the URI library cuts it off silently, and a target that was
/// repaired is not the one that was signed.
fn has_fragment(session: &ServerSession) -> bool {
    let ServerSession::H1(h1) = session else { return false };
    let raw = h1.get_headers_raw_bytes();
    let line = raw.iter().skip_while(|b| matches!(**b, b'\r' | b'\n')).take_while(|b| **b != b'\n');
    line.into_iter().any(|b| *b == b'#')
}

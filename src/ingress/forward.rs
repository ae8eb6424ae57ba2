//! Writes the request to the agent: the internal path, the headers of the caller that are passed on, and the headers
//! that Callgate adds.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, COOKIE, HOST, HeaderName, HeaderValue};
use percent_encoding::percent_decode;

use super::decide::Admitted;
use super::observed::Observed;
use super::passed_headers::is_always_removed;
use super::permit::{Permit, Verified};
use super::route::{Route, TokenRule};
use super::streamed::Streamed;
use crate::framing::is_callgate_header;
use crate::path::{TOKEN_CAPTURE, without_parameter};
use crate::replica::REPLICA;
use crate::request::{BODY_DIGESTS, HOP_BY_HOP, RequestHead, headers_of_one_hop, write_line as line};
use crate::source::write_address;
use crate::token::{Asserted, Stamp, UNTRUSTED};

/// Returns the query without three kinds of parameters: the secret parameters of the route, parameters with the name
/// `callback_token`, and parameters that contain the verified token. Returns `None` if no parameter is left.
pub(super) fn query<'q>(route: &Route, token: Option<&[u8]>, query: &'q str) -> Option<Cow<'q, str>> {
    let mut rest = without_parameter(query, TOKEN_CAPTURE)?;
    for name in route.secret_parameters() {
        rest = Cow::Owned(without_parameter(&rest, name)?.into_owned());
    }
    if token.is_some_and(|token| holds(rest.as_bytes(), token)) {
        let clean = |pair: &&str| !token.is_some_and(|token| holds(pair.as_bytes(), token));
        rest = Cow::Owned(rest.split('&').filter(clean).collect::<Vec<_>>().join("&"));
    }
    if rest.is_empty() { None } else { Some(rest) }
}

/// Reports whether a header describes the body as the provider sent it. Such a header is wrong after the body was
/// decoded.
fn describes_encoded_body(name: &HeaderName) -> bool {
    *name == CONTENT_ENCODING || BODY_DIGESTS.contains(name)
}

/// Reports whether `text` contains `token`, in plain form, percent-encoded, or with `+` in place of spaces.
fn holds(text: &[u8], token: &[u8]) -> bool {
    // Decoding never makes a text longer.
    if text.len() < token.len() {
        return false;
    }
    let contains = |text: &[u8]| text.windows(token.len().max(1)).any(|window| window == token);
    let is_encoded = text.contains(&b'%') || text.contains(&b'+');
    let decoded = |text: &[u8]| percent_decode(text).collect::<Vec<_>>();
    let spaced = || text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect::<Vec<_>>();
    contains(text) || is_encoded && (contains(&decoded(text)) || contains(&decoded(&spaced())))
}

/// Reports whether a header is hop-by-hop because the caller's `Connection` header lists its name. Returns false for a
/// header that the provider signed, because a proxy or an attacker must not be able to remove it.
fn is_of_one_hop(route: &Route, name: &HeaderName, listed: &[HeaderName]) -> bool {
    let signed = || route.verifier().is_some_and(|verifier| verifier.scheme().signs_header(name));
    listed.contains(name) && !signed()
}

/// Reports whether a header of the caller reaches the agent in observe mode. Only hop-by-hop headers and `Callgate-*`
/// headers are removed. All other headers stay, because the agent still runs its own checks on them.
fn passes_as_ever(route: &Route, name: &HeaderName, listed: &[HeaderName]) -> bool {
    !is_callgate_header(name.as_str()) && !HOP_BY_HOP.contains(name) && !is_of_one_hop(route, name, listed)
}

/// The length of the body in a request to the agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyLength {
    /// The body has this length in bytes.
    Known(u64),
    /// The body is sent in chunks, because its length is not known.
    Chunked,
}

impl BodyLength {
    /// Returns the length in bytes, or `None` if the body is sent in chunks.
    pub fn known(self) -> Option<u64> {
        match self {
            Self::Known(bytes) => Some(bytes),
            Self::Chunked => None,
        }
    }
}

/// Writes the head of an HTTP/1.1 request to the agent: the request line, `Host`, the headers of the caller for which
/// `passes` returns true, the headers that `identify` adds, the length of the body, and the blank line.
fn write_request(
    (target, authority): (&str, &str),
    head: &RequestHead<'_>,
    length: BodyLength,
    passes: impl Fn(&HeaderName, &HeaderValue, &[HeaderName]) -> bool,
    identify: impl FnOnce(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    line(out, "host", authority.as_bytes());
    let listed = headers_of_one_hop(head.headers);
    for (name, value) in head.headers {
        if *name != COOKIE && passes(name, value, &listed) {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    // HTTP/2 allows several `Cookie` headers in a request. HTTP/1.1 allows only one, so the values are joined (RFC 9113
    // section 8.2.3).
    let cookies = head.headers.get_all(COOKIE).iter().filter(|value| passes(&COOKIE, value, &listed));
    let cookies: Vec<_> = cookies.map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        line(out, "cookie", &cookies.join(&b"; "[..]));
    }
    identify(out);
    match length {
        BodyLength::Chunked => line(out, "transfer-encoding", b"chunked"),
        BodyLength::Known(0) if matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "DELETE") => {}
        BodyLength::Known(bytes) => {
            line(out, "content-length", itoa::Buffer::new().format(bytes).as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

impl Observed {
    /// Writes the head of the HTTP/1.1 request that delivers the observed request to the agent, including the blank
    /// line. The token and the signature headers are passed on, because the agent still checks them. Callgate adds only
    /// the headers `Callgate-Content` and `Callgate-Observed`.
    pub fn write_head(&self, head: &RequestHead<'_>, body: &[u8], out: &mut Vec<u8>) {
        let to = (self.target(), self.admitted.edge.host(&self.route().agent));
        let passes = |name: &HeaderName, _: &HeaderValue, listed: &[HeaderName]| {
            passes_as_ever(self.route(), name, listed)
        };
        let identify = |out: &mut Vec<u8>| {
            line(out, "callgate-content", UNTRUSTED.as_bytes());
            line(out, "callgate-observed", self.instead().as_bytes());
        };
        write_request(to, head, BodyLength::Known(body.len() as u64), passes, identify, out);
    }
}

impl Permit {
    /// Writes the head of the HTTP/1.1 request that delivers the callback to the agent, including the blank line.
    /// `head` must be the head of the permitted request. `body` is the body that the caller of this function writes
    /// after this head.
    pub fn write_head(&self, head: &RequestHead<'_>, body: &[u8], stamp: Stamp<'_>, out: &mut Vec<u8>) {
        let message = Asserted {
            method: head.method,
            target: self.target(),
            body: Some(body),
            interaction: self.interaction(),
            event_id: self.event_id().and_then(|id| id.to_str().ok()),
            question: self.question(),
            notice: None,
            is_untrusted: true,
            stamp,
        };
        let identify = |out: &mut Vec<u8>| {
            self.identify(out);
            // In observe mode, Callgate does not replace the caller's `X-Forwarded-*` headers, because the agent still
            // checks them.
            if !self.route().observes() {
                let agent = &self.route().agent;
                self.edge().write_forwarded_headers(agent, Some(head.is_tls), Some(self.client()), out);
            }
            self.route().assert(&message, out);
        };
        let to = (self.target(), self.edge().host(&self.route().agent));
        let length = BodyLength::Known(body.len() as u64);
        let passes =
            |name: &HeaderName, value: &HeaderValue, listed: &[HeaderName]| self.passes(name, value, listed);
        write_request(to, head, length, passes, identify, out);
    }

    /// Reports whether a header of the caller reaches the agent.
    fn passes(&self, name: &HeaderName, value: &HeaderValue, listed: &[HeaderName]) -> bool {
        let is_of_encoded_body =
            !self.route().observes() && self.delivers_decoded() && describes_encoded_body(name);
        let is_of_other_body = self.replaces_endpoint() && BODY_DIGESTS.contains(name);
        !is_of_encoded_body && !is_of_other_body && self.admitted().passes(name, value, listed)
    }

    /// Calls `visit` for each header of the caller that reaches the agent.
    pub(super) fn passed_headers(
        &self,
        head: &RequestHead<'_>,
        mut visit: impl FnMut(&HeaderName, &HeaderValue),
    ) {
        let listed = headers_of_one_hop(head.headers);
        for (name, value) in head.headers {
            if self.passes(name, value, &listed) {
                visit(name, value);
            }
        }
    }

    fn identify(&self, out: &mut Vec<u8>) {
        self.admitted().identify(out);
        line(out, "callgate-content", UNTRUSTED.as_bytes());
        if let Some(interaction) = self.interaction() {
            line(out, "callgate-interaction", interaction.as_bytes());
        }
        if let Some(id) = self.event_id() {
            line(out, "callgate-event-id", id.as_bytes());
        }
        if let Some(number) = self.question() {
            line(out, "callgate-question", itoa::Buffer::new().format(number).as_bytes());
        }
        if self.owner_is_gone() {
            line(out, "callgate-owner", b"gone");
        }
        self.admitted().write_client_address(out);
    }
}

impl Verified {
    /// Returns the head of the HTTP/1.1 request that hands this callback over to another Callgate process, including
    /// the blank line. The request contains all headers of the caller except hop-by-hop headers. `proof` is the header
    /// value by which the other process authenticates this process.
    pub fn write_for_member(&self, head: &RequestHead<'_>, body: &[u8], proof: &str) -> Vec<u8> {
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let passes = |name: &HeaderName, _: &HeaderValue, listed: &[HeaderName]| {
            *name != REPLICA && !HOP_BY_HOP.contains(name) && !is_of_one_hop(self.route(), name, listed)
        };
        let mut out = Vec::with_capacity(1024 + body.len().min(16 << 10));
        let prove = |out: &mut Vec<u8>| line(out, REPLICA.as_str(), proof.as_bytes());
        let length = BodyLength::Known(body.len() as u64);
        write_request((head.target, host), head, length, passes, prove, &mut out);
        out
    }
}

impl Streamed {
    /// Writes the head of the HTTP/1.1 request that delivers the streamed request to the agent, including the blank
    /// line. `head` must be the head that was checked. The caller of this function writes a body of the given length
    /// after this head.
    pub fn write_head(
        &self,
        head: &RequestHead<'_>,
        length: BodyLength,
        stamp: Stamp<'_>,
        out: &mut Vec<u8>,
    ) {
        let message = Asserted {
            method: head.method,
            target: self.target(),
            body: None,
            interaction: None,
            event_id: None,
            question: None,
            notice: None,
            is_untrusted: false,
            stamp,
        };
        let (route, edge) = (self.route(), &self.admitted.edge);
        let identify = |out: &mut Vec<u8>| {
            self.admitted.identify(out);
            self.admitted.write_client_address(out);
            edge.write_forwarded_headers(&route.agent, Some(head.is_tls), Some(self.client()), out);
            route.assert(&message, out);
        };
        let passes = |name: &HeaderName, value: &HeaderValue, listed: &[HeaderName]| {
            self.admitted.passes(name, value, listed)
        };
        write_request((self.target(), edge.host(&route.agent)), head, length, passes, identify, out);
    }
}

impl Admitted {
    /// Reports whether a header of the caller reaches the agent.
    fn passes(&self, name: &HeaderName, value: &HeaderValue, listed: &[HeaderName]) -> bool {
        let route = &*self.route;
        if route.observes() {
            return passes_as_ever(route, name, listed);
        }
        let token = || {
            route.token.iter().flat_map(TokenRule::headers).any(|header| header == name)
                || self.token().is_some_and(|token| holds(value.as_bytes(), token))
        };
        !is_always_removed(name)
            && self.edge.client_address.as_ref().is_none_or(|rule| rule.header.name() != *name)
            && route.passed_headers.as_ref().is_none_or(|allowed| allowed.contains(name))
            && !is_of_one_hop(route, name, listed)
            && !token()
    }

    /// Writes the headers `Callgate-Route` and `Callgate-Provider`.
    fn identify(&self, out: &mut Vec<u8>) {
        line(out, "callgate-route", self.route.name.as_bytes());
        if let Some(provider) = &self.route.provider {
            line(out, "callgate-provider", provider.name.as_bytes());
        }
    }

    fn write_client_address(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"callgate-client-address: ");
        write_address(out, self.client);
        out.extend_from_slice(b"\r\n");
    }
}

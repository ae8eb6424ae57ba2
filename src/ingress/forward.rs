//! What the agent sees of a permitted request: the internal path, the headers that are left, and ours.

use std::borrow::Cow;
use std::io::Write;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::decide::Permit;
use super::route::{QueryRule, TokenRule};
use crate::path::{TOKEN_CAPTURE, without_parameter};
use crate::request::RequestHead;

/// Headers of one connection (RFC 9110 section 7.6.1) and of the framing, which is made anew.
const HOP_BY_HOP: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

impl Permit {
    /// The internal request target: the path from the captures, and the query without the token.
    pub fn target(&self, head: &RequestHead<'_>) -> String {
        let route = self.route();
        // The configuration made sure that every capture of `forward` is one of the route's path.
        let mut target =
            route.forward.fill(|name| self.captures().value(name)).unwrap_or_else(|| "/".to_owned());
        let query = match route.query {
            QueryRule::Drop => None,
            QueryRule::Pass => head.raw_query().and_then(|query| self.without_tokens(query)),
        };
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        target
    }

    /// The query without the route's token, and without anything that goes by our token's name.
    fn without_tokens<'q>(&self, query: &'q str) -> Option<Cow<'q, str>> {
        let mut rest = without_parameter(query, TOKEN_CAPTURE)?;
        for name in self.route().token.iter().flat_map(TokenRule::parameters) {
            rest = Cow::Owned(without_parameter(&rest, name)?.into_owned());
        }
        Some(rest)
    }

    /// Writes the head of the HTTP/1.1 request for the agent, blank line included. `head` is the head that
    /// was permitted, `body_bytes` the length of the body that will follow.
    pub fn write_head(&self, head: &RequestHead<'_>, body_bytes: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(head.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target(head).as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        line(out, "host", self.authority().as_bytes());
        let listed = connection_options(head.headers);
        for (name, value) in head.headers {
            if *name != COOKIE && self.passes(name, &listed) {
                line(out, name.as_str(), value.as_bytes());
            }
        }
        cookies(out, head.headers);
        self.identify(out);
        if body_bytes > 0 || !matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "DELETE") {
            // Writing to a vector cannot fail.
            let _ = write!(out, "content-length: {body_bytes}\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn passes(&self, name: &HeaderName, listed: &[&str]) -> bool {
        let text = name.as_str();
        let spoofable = text.starts_with("callgate-")
            || text.starts_with("x-forwarded-")
            || text == "x-real-ip"
            || *name == FORWARDED
            || self.address_header().is_some_and(|header| header == name)
            // Gateways of the CGI family read `callgate_route` as `callgate-route`.
            || text.contains('_');
        let token = || self.route().token.iter().flat_map(TokenRule::headers).any(|header| header == name);
        !spoofable
            && !HOP_BY_HOP.contains(name)
            && !listed.iter().any(|option| option.eq_ignore_ascii_case(text))
            && !token()
    }

    fn identify(&self, out: &mut Vec<u8>) {
        line(out, "callgate-route", self.route().name.as_bytes());
        if let Some(provider) = &self.route().provider {
            line(out, "callgate-provider", provider.name.as_bytes());
        }
        if let Some(interaction) = self.interaction() {
            line(out, "callgate-interaction", interaction.as_bytes());
        }
        if let Some(id) = self.event_id() {
            line(out, "callgate-event-id", id.as_bytes());
        }
        let _ = write!(out, "callgate-client-address: {}\r\n", self.client());
    }
}

/// One header line. A value that would break the framing is left out: no parser in front lets one through,
/// and none is trusted to.
fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// HTTP/2 may split the cookie header; HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().map(|value| value.as_bytes()).collect();
    if !cookies.is_empty() {
        line(out, "cookie", &cookies.join(&b"; "[..]));
    }
}

/// The headers that the caller's `Connection` declares to be of one hop.
fn connection_options(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|option| !option.is_empty()).collect()
}

//! The head of a request as the core sees it: borrowed, neutral, free of any server's types.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// Headers of one connection (RFC 9110 section 7.6.1) and of the framing, which is made anew.
pub const HOP_BY_HOP: [HeaderName; 12] = [
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

/// The head of a request that came in.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The request target in origin form, as sent: raw path and query.
    pub target: &'a str,
    /// All headers, in order per name.
    pub headers: &'a HeaderMap,
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
    /// `Content-Length`, where the framing declares one.
    pub body_bytes_declared: Option<u64>,
    /// What the caller proved to be when the connection was made; `None`: it did not.
    pub certificate: Option<&'a ClientCertificate>,
}

/// A client certificate that a trusted authority issued, and whose key the caller has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientCertificate {
    /// The DNS names and URIs among its alternative names (RFC 5280 section 4.2.1.6).
    pub names: Vec<Box<str>>,
}

impl<'a> RequestHead<'a> {
    /// The head of a request whose target is `target` as sent, in origin or absolute form.
    pub fn new(method: &'a str, target: &'a str, headers: &'a HeaderMap, peer: IpAddr) -> Self {
        Self {
            method,
            target: origin_form(target),
            headers,
            peer,
            body_bytes_declared: declared(headers),
            certificate: None,
        }
    }

    /// The same, from a caller that proved to be somebody.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<&'a ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    /// The raw path: the target up to the first `?`.
    pub fn raw_path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The raw query: what follows the first `?`.
    pub fn raw_query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Whether the body is said to be a form (application/x-www-form-urlencoded).
    pub fn is_form(&self) -> bool {
        let media = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }

    /// The one value of a header that decides about access.
    pub fn single(&self, name: &HeaderName) -> Single<'a> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Single::Missing,
            (Some(value), None) => Single::One(value),
            (Some(_), Some(_)) => Single::Several,
        }
    }
}

/// How often a header occurs that may occur once.
#[derive(Clone, Copy, Debug)]
pub enum Single<'a> {
    /// Not at all.
    Missing,
    /// Once, as it should.
    One(&'a HeaderValue),
    /// More than once: which one a reader would take is anyone's guess, so nobody takes any.
    Several,
}

/// The header names that `Connection` declares to be of one hop (RFC 9110 section 7.6.1), as written.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let options = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    options
        .filter_map(|option| std::str::from_utf8(option.trim_ascii()).ok())
        .filter(|option| !option.is_empty())
}

/// Whether another message may follow on a connection behind one with these headers (RFC 9112 section 9.3).
pub fn lasts(version: Version, headers: &HeaderMap) -> bool {
    let (mut close, mut keep) = (false, version == Version::HTTP_11);
    for option in connection_options(headers) {
        close |= option.eq_ignore_ascii_case("close");
        keep |= option.eq_ignore_ascii_case("keep-alive");
    }
    keep && !close
}

/// One header line. A value that would break the framing is left out: no parser in front lets one through,
/// and none is trusted to.
pub fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The absolute form (RFC 9112 section 3.2.2) cut to its path and query; anything else as it is.
fn origin_form(target: &str) -> &str {
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    match absolute {
        None => target,
        Some(rest) => match rest.find(['/', '?', '#']).and_then(|end| rest.get(end..)) {
            None => "/",
            Some(path) if path.starts_with('/') => path,
            // A query right behind the authority: there is no path, and a front that sees `/` must not be
            // outwitted by slashes in the query. Such a target has no canonical path.
            Some(query) => query,
        },
    }
}

/// `Content-Length`, where the framing goes by it. Doubled and misspelt ones are refused by whoever parsed
/// the head.
fn declared(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

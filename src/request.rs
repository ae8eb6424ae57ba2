//! The head of an HTTP request, as a type that borrows its data and does not depend on the HTTP server. The grammar of
//! HTTP/1 is in the module `framing`.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// Headers that Callgate does not forward: hop-by-hop headers (RFC 9110 section 7.6.1), and headers that Callgate
/// handles itself, such as `Expect`, `Host` and `Content-Length`. [`is_hop_by_hop_of_response`] describes the two
/// exceptions in responses.
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

/// Headers with a digest of the body as it was sent. RFC 9530 computes the digest over the encoded body, so the digest
/// is wrong once Callgate decodes or changes the body.
pub const BODY_DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Reports whether Callgate removes this header from a response. `Content-Length` is relayed, because the body of a
/// response keeps its length. `Trailer`, which announces trailers, is relayed if `relays_trailers` is true, because
/// then the trailers are relayed, too.
pub fn is_hop_by_hop_of_response(name: &HeaderName, relays_trailers: bool) -> bool {
    HOP_BY_HOP.contains(name) && *name != CONTENT_LENGTH && !(*name == TRAILER && relays_trailers)
}

/// The head of a received HTTP request: method, target, headers, and facts about the connection.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method of the request, as received.
    pub method: &'a str,
    /// The request target in origin form: the path and the query, still percent-encoded. A target in absolute form is
    /// reduced to its path and query.
    pub target: &'a str,
    /// All headers of the request. The values of a repeated header keep their order.
    pub headers: &'a HeaderMap,
    /// The IP address of the program at the other end of the connection: a client or a proxy.
    pub peer: IpAddr,
    /// The value of the header `Content-Length`. `None` if the header is missing, or if the body is chunked.
    pub body_bytes_declared: Option<u64>,
    /// The verified client certificate of the TLS connection. `None` if the client sent no certificate.
    pub certificate: Option<&'a ClientCertificate>,
    /// Whether the request arrived over TLS at the listener.
    pub is_tls: bool,
}

/// A client certificate that a trusted authority issued. The TLS handshake proved that the client has the private key
/// of the certificate.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientCertificate {
    /// The DNS names and URIs in the subject alternative names of the certificate (RFC 5280 section 4.2.1.6).
    pub names: Vec<Box<str>>,
}

impl<'a> RequestHead<'a> {
    /// Creates a request head. `target` is the request target as received, in origin form or absolute form.
    pub fn new(method: &'a str, target: &'a str, headers: &'a HeaderMap, peer: IpAddr) -> Self {
        Self {
            method,
            target: origin_form(target),
            headers,
            peer,
            body_bytes_declared: declared(headers),
            certificate: None,
            is_tls: false,
        }
    }

    /// Returns this request head with the client certificate of its connection.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<&'a ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    /// Returns this request head with the field `is_tls` set to the argument.
    #[must_use]
    pub fn with_tls(self, is_tls: bool) -> Self {
        Self { is_tls, ..self }
    }

    /// Returns the raw path: the part of the request target before the first `?`.
    pub fn raw_path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Returns the raw query: the part of the request target after the first `?`. Returns `None` if the target has no
    /// `?`.
    pub fn raw_query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Reports whether the `Content-Type` of the request is `application/x-www-form-urlencoded`.
    pub fn is_form(&self) -> bool {
        let media = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }

    /// Reports whether the `Content-Type` of the request is JSON.
    pub fn is_json(&self) -> bool {
        is_json(self.headers)
    }

    /// Reports whether the request has a body: a `Content-Length` above zero, or a `Transfer-Encoding`.
    pub fn has_body(&self) -> bool {
        self.headers.contains_key(TRANSFER_ENCODING)
            || self.body_bytes_declared.is_some_and(|declared| declared > 0)
    }

    /// Reports whether the request asks for the WebSocket protocol (RFC 6455 section 4.1): a GET with `Upgrade:
    /// websocket`, `Connection: upgrade`, and no body.
    pub fn asks_for_websocket(&self) -> bool {
        self.method == "GET" && !self.has_body() && is_websocket(self.headers)
    }

    /// Reports whether the sender of the request accepts trailers: `TE: trailers` (RFC 9110 section 10.1.4).
    pub fn accepts_trailers(&self) -> bool {
        let codings =
            self.headers.get_all(TE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
        codings.into_iter().any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    }

    /// Looks up a header that must not be repeated, because an access check reads it.
    pub fn single(&self, name: &HeaderName) -> Single<'a> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Single::Missing,
            (Some(value), None) => Single::One(value),
            (Some(_), Some(_)) => Single::Several,
        }
    }
}

/// The result of [`RequestHead::single`], which looks up a header that must not be repeated.
#[derive(Clone, Copy, Debug)]
pub enum Single<'a> {
    /// The header does not occur.
    Missing,
    /// The header occurs once.
    One(&'a HeaderValue),
    /// The header occurs more than once. HTTP implementations differ in which value they use, so Callgate uses no
    /// value.
    Several,
}

/// Reports whether the headers of a message ask for the WebSocket protocol, or confirm the switch to it.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let is_one = protocols.next().is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_one
        && protocols.next().is_none()
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// Reports whether the `Content-Type` of a message is JSON: its media type ends with `/json` or `+json`.
pub fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// Reports whether the `Content-Type` of a message is `text/event-stream`, a stream of server-sent events.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// Returns the options in the header `Connection` as written. Most of them are the names of hop-by-hop headers (RFC
/// 9110 section 7.6.1).
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let options = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    options
        .filter_map(|option| std::str::from_utf8(option.trim_ascii()).ok())
        .filter(|option| !option.is_empty())
}

/// Returns the names of the headers that `Connection` lists as hop-by-hop, each once. Leaves out names that no header
/// of the message has, so the result is not longer than the list of headers.
pub fn headers_of_one_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    let options =
        connection_options(headers).filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok());
    let mut listed: Vec<_> = options.filter(|name| headers.contains_key(name)).collect();
    listed.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    listed.dedup();
    listed
}

/// Reports whether the connection stays open after an HTTP message with these headers (RFC 9112 section 9.3).
pub fn lasts(version: Version, headers: &HeaderMap) -> bool {
    let (mut close, mut keep) = (false, version == Version::HTTP_11);
    for option in connection_options(headers) {
        close |= option.eq_ignore_ascii_case("close");
        keep |= option.eq_ignore_ascii_case("keep-alive");
    }
    keep && !close
}

/// Appends one header line to `out`. Skips a value that contains CR, LF or NUL, because it would break the framing. The
/// parsers already deny these values. This second check prevents an injected header if a parser has a bug.
pub fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Reduces a request target in absolute form (RFC 9112 section 3.2.2) to its path and query. Returns any other target
/// unchanged.
fn origin_form(target: &str) -> &str {
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    match absolute {
        None => target,
        Some(rest) => match rest.find(['/', '?', '#']).and_then(|end| rest.get(end..)) {
            None => "/",
            Some(path) if path.starts_with('/') => path,
            // The target has a query, but no path. It is returned without a leading slash, so it has no canonical
            // path and is denied. If it became `/`, slashes in the query could mislead a proxy in front of Callgate.
            Some(query) => query,
        },
    }
}

/// Returns the value of the header `Content-Length`. Returns `None` if the header is missing, or if the body is
/// chunked. The parser of the head has already denied repeated and malformed lengths.
fn declared(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_connection_is_read() {
        let mut headers = HeaderMap::new();
        for name in ["x-first", "x-last", "x-other", "cookie"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        let many = format!("X-First, close,{}, X-LAST, x-first", "a, ,b;c,".repeat(500));
        headers.append(CONNECTION, HeaderValue::from_str(&many).unwrap());
        headers.append(CONNECTION, HeaderValue::from_static("cookie,x-missing,connection"));
        let listed = headers_of_one_hop(&headers);
        assert_eq!(listed, ["connection", "cookie", "x-first", "x-last"]);
    }
}

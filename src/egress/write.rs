//! Writes requests to providers: the agent's requests with the inserted callback, and the agent's answers to questions.

use std::borrow::Cow;

use http::header::{ACCEPT_ENCODING, TRAILER, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Version};

use super::inject::{self, Inject};
use super::place::{Insertion, InsertionPlace};
use super::rule::Rule;
use super::shape::Callback;
use crate::denial::{Denial, Refusal};
use crate::framing::{is_callgate_header, is_same_header};
use crate::guard::Url;
use crate::path::{Captures, with_parameter, without_parameter};
use crate::request::{HOP_BY_HOP, RequestHead, headers_of_one_hop, write_line};
use crate::secret::Secret;

/// A request to the provider that is ready to be sent.
#[derive(Debug)]
pub struct Outgoing<'b> {
    /// The URL at the provider to which the request is sent.
    pub url: Url,
    /// The head of the HTTP/1.1 request, including the blank line.
    pub head: Vec<u8>,
    /// The body of the request.
    pub body: Cow<'b, [u8]>,
}

/// The head of a request to the provider. The request gets no callback, and its body is sent unchanged.
#[derive(Debug)]
pub struct Unchanged {
    /// The URL at the provider to which the request is sent.
    pub url: Url,
    /// The head of the HTTP/1.1 request, including the blank line.
    pub head: Vec<u8>,
    /// Whether the body is sent with the chunked transfer coding.
    pub is_chunked: bool,
    /// Whether the head asks for an upgrade to WebSocket, so that the response can have status 101.
    pub is_upgrade: bool,
}

impl Rule {
    /// Returns the complete request to the provider. If `callback` is `Some`, the request contains the callback.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the callback cannot be inserted. [`Rule::plan`] returns the same error for this
    /// request, before the callback is minted.
    pub fn request<'b>(
        &self,
        head: &RequestHead<'_>,
        body: &'b [u8],
        captures: &Captures,
        callback: Option<&Callback<'_>>,
    ) -> Result<Outgoing<'b>, Refusal> {
        let mut parameters = Vec::new();
        let mut sent = Cow::Borrowed(body);
        let mut extra = Vec::new();
        if let (Some((_, request)), Some(callback)) = (self.callback_request(head, body), callback) {
            sent = inject::body(request, head, body, callback)?;
            for Insertion { place, shape } in request.wanted(head, body) {
                match place {
                    InsertionPlace::Header(name) => extra.push((name, shape.plain(callback))),
                    InsertionPlace::Query(name) => parameters.push((&**name, shape.plain(callback))),
                    InsertionPlace::Body(_) | InsertionPlace::Form(_) => {}
                }
            }
        }
        let target = self.target(head, captures, &parameters)?;
        let url = self.target.url.with_target(&target);
        let unpacked =
            self.injection(head).is_some_and(Inject::reads_response) || self.card_place(head, body).is_some();
        let skip = |name: &HeaderName| {
            // The response must not be compressed if Callgate reads the provider's task id from it, or replaces
            // URLs of an agent card in it.
            (unpacked && *name == ACCEPT_ENCODING) || replaces(extra.iter().map(|(extra, _)| *extra), name)
        };
        let mut out = Vec::with_capacity(1024);
        begin(&mut out, head, &url, &self.headers, skip);
        for (name, value) in &extra {
            write_line(&mut out, name.as_str(), value.as_bytes());
        }
        end(&mut out, head.method, &self.headers, sent.len() as u64);
        Ok(Outgoing { url, head: out, body: sent })
    }

    /// Returns the head of a request that Callgate sends to the provider without a callback. The body has the same
    /// framing as in the agent's request, so that it can be sent while it arrives. `version` is the HTTP version of the
    /// agent's request. Only an HTTP/1.1 request can ask for an upgrade (RFC 9110 section 7.8).
    ///
    /// # Errors
    /// Returns a [`Refusal`] if a path capture has no valid value for the target.
    pub fn unchanged(
        &self,
        head: &RequestHead<'_>,
        version: Version,
        captures: &Captures,
    ) -> Result<Unchanged, Refusal> {
        let url = self.target.url.with_target(&self.target(head, captures, &[])?);
        let mut out = Vec::with_capacity(1024);
        // If Callgate replaces URLs in the response, the response must not be compressed.
        let unpacked = self.card_place(head, b"").is_some();
        begin(&mut out, head, &url, &self.headers, |name| unpacked && *name == ACCEPT_ENCODING);
        let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);
        let is_upgrade = version == Version::HTTP_11 && head.asks_for_websocket();
        if is_upgrade {
            write_line(&mut out, "connection", b"upgrade");
            write_line(&mut out, "upgrade", b"websocket");
        } else if head.accepts_trailers() {
            write_line(&mut out, "connection", b"te");
            write_line(&mut out, "te", b"trailers");
        }
        if is_chunked {
            for names in head.headers.get_all(TRAILER) {
                write_line(&mut out, "trailer", names.as_bytes());
            }
            write_configured(&mut out, &self.headers);
            out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        } else {
            end(&mut out, head.method, &self.headers, head.body_bytes_declared.unwrap_or(0));
        }
        Ok(Unchanged { url, head: out, is_chunked, is_upgrade })
    }

    /// Returns the path and the query of the request to the provider. The path is the path of the rule's target. The
    /// query consists of the query of the target, the query of the agent's request, and the parameters `inserted`. An
    /// inserted parameter replaces a parameter of the agent with the same name.
    fn target(
        &self,
        head: &RequestHead<'_>,
        captures: &Captures,
        inserted: &[(&str, String)],
    ) -> Result<String, Refusal> {
        let unusable = || {
            Refusal::new(Denial::ParameterUnusable, "a capture has no valid value for the path of the target")
        };
        // The provider receives the remainder of the path as the agent wrote it. The canonical path that passed all
        // checks has the same meaning, but the agent may have signed the path as written.
        let value = |name: &str| match self.path.remainder() {
            Some(remainder) if remainder == name => self.path.raw_remainder(head.raw_path()),
            _ => captures.value(name),
        };
        let mut target = match &self.target.path {
            _ if self.is_by_url => head.raw_path().to_owned(),
            Some(template) => template.fill_as_written(value).ok_or_else(unusable)?,
            None => self.target.url.target().to_owned(),
        };
        let mut query = head.raw_query().map(Cow::Borrowed).filter(|query| !query.is_empty());
        for (name, _) in inserted {
            query = query
                .and_then(|query| without_parameter(&query, name).map(|rest| Cow::Owned(rest.into_owned())));
        }
        if let Some(query) = query {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&query);
        }
        for (name, value) in inserted {
            target = with_parameter(&target, name, value);
        }
        Ok(target)
    }
}

/// Returns the head of the request that contains the agent's answer to a question. The configured headers and the
/// signature headers replace headers of the agent with the same names.
pub fn answer_head(
    head: &RequestHead<'_>,
    url: &Url,
    headers: &[(HeaderName, Secret)],
    signature: &[(HeaderName, HeaderValue)],
    body_bytes: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    begin(&mut out, head, url, headers, |name| replaces(signature.iter().map(|(signed, _)| signed), name));
    for (name, value) in signature {
        write_line(&mut out, name.as_str(), value.as_bytes());
    }
    end(&mut out, head.method, headers, body_bytes as u64);
    out
}

/// Reports whether one of the headers in `ours` replaces the agent's header `name`. Another spelling of the name, for
/// example `x_api_key` for `x-api-key`, is replaced as well.
fn replaces<'n>(mut ours: impl Iterator<Item = &'n HeaderName>, name: &HeaderName) -> bool {
    ours.any(|ours| is_same_header(ours.as_str(), name.as_str()))
}

/// Writes the request line, `Host`, and the headers of the agent's request. Leaves out hop-by-hop headers, `Callgate-*`
/// headers, headers that `ours` replaces, and headers for which `skip` returns true.
fn begin(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    url: &Url,
    ours: &[(HeaderName, Secret)],
    skip: impl Fn(&HeaderName) -> bool,
) {
    out.extend_from_slice(format!("{} {} HTTP/1.1\r\n", head.method, url.target()).as_bytes());
    write_line(out, "host", url.authority().as_bytes());
    let listed = headers_of_one_hop(head.headers);
    for (name, value) in head.headers {
        let dropped = HOP_BY_HOP.contains(name)
            || listed.contains(name)
            || is_callgate_header(name.as_str())
            || replaces(ours.iter().map(|(ours, _)| ours), name)
            || skip(name);
        if !dropped {
            write_line(out, name.as_str(), value.as_bytes());
        }
    }
}

/// Writes the configured headers, `Content-Length`, and the blank line at the end of the head.
fn end(out: &mut Vec<u8>, method: &str, headers: &[(HeaderName, Secret)], body_bytes: u64) {
    write_configured(out, headers);
    if body_bytes > 0 || !matches!(method, "GET" | "HEAD" | "OPTIONS" | "DELETE") {
        write_line(out, "content-length", body_bytes.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_configured(out: &mut Vec<u8>, headers: &[(HeaderName, Secret)]) {
    for (name, value) in headers {
        write_line(out, name.as_str(), value.expose());
    }
}

//! Writes responses to callers: relayed responses of the agent or a provider, Callgate's own responses, and denials as
//! problem+json (RFC 9457).

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;

use super::session::Session;
use super::timeouts::{TransferTimer, poll_once};
use crate::denial::Denial;
use crate::http::client::ResponseFault;
use crate::http::client::{Connection, UpstreamResponse};
use crate::ingress::Document;
use crate::policy::Limits;
use crate::random::random;
use crate::replica::REPLICA;
use crate::request::{headers_of_one_hop, is_hop_by_hop_of_response};
use crate::signature::HandshakeReply;

/// The initial capacity of the buffer for the problem details of a denial, in bytes.
const PROBLEM_BYTES: usize = 192;

/// Writes the response for a denial. If `explain` is true, the body contains the code of the denial. Returns whether
/// the response was written.
pub(crate) async fn write_denial(
    session: &mut Session,
    denial: Denial,
    methods: &[Method],
    request_id: &str,
    explain: bool,
) -> bool {
    let body = problem(denial, request_id, explain);
    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
    let (length, allow) = (body.len().to_string(), methods.join(", "));
    let again = retry_after_secs(denial).map(|seconds| seconds.to_string());
    let lines = problem_lines(denial, &length, again.as_deref(), &allow);
    match session {
        Session::Http1(http1) => {
            let lines = lines.map(|(name, value)| (name, value.as_bytes()));
            http1.respond(denial.status(), lines, &body).await.is_ok()
        }
        Session::Http2(_) => {
            let header = || -> pingora::Result<ResponseHeader> {
                let mut header = ResponseHeader::build_no_case(denial.status(), Some(8))?;
                for (name, value) in lines {
                    header.insert_header(name, value)?;
                }
                Ok(header)
            };
            let Ok(header) = header() else { return false };
            write(session, header, body.into()).await
        }
    }
}

/// Writes a complete response. Leaves out the body if the request method is HEAD, because pingora would send the body
/// on HTTP/2. Returns whether the response was written.
async fn write(session: &mut Session, header: ResponseHeader, body: Bytes) -> bool {
    let body = if session.method() == Method::HEAD { Bytes::new() } else { body };
    session.write_head(header).await.is_ok() && session.write_body(body, true).await.is_ok()
}

/// Returns the problem details of a denial as JSON (RFC 9457), with the code of the denial if `explain` is true. None
/// of the inserted texts needs escaping in JSON.
pub(crate) fn problem(denial: Denial, request_id: &str, explain: bool) -> Vec<u8> {
    let mut status = itoa::Buffer::new();
    let (reason, end) = if explain { ("\",\"reason\":\"", denial.code()) } else { ("", "") };
    let mut body = Vec::with_capacity(PROBLEM_BYTES);
    for part in [
        "{\"type\":\"about:blank\",\"title\":\"",
        denial.title(),
        "\",\"status\":",
        status.format(denial.status()),
        ",\"request_id\":\"",
        request_id,
        reason,
        end,
        "\"}",
    ] {
        body.extend_from_slice(part.as_bytes());
    }
    body
}

/// Returns the number of seconds for the header `Retry-After`, or `None` if the denial has no such header. A failure of
/// the store affects all callers at the same time. In this case the number is random, so that the callers do not all
/// retry at once.
pub fn retry_after_secs(denial: Denial) -> Option<u32> {
    match denial.retry_after_secs() {
        Some(most) if denial == Denial::StoreUnavailable => {
            Some(random::<1>().map_or(most, |[drawn]| 1 + u32::from(drawn) % most))
        }
        seconds => seconds,
    }
}

/// Returns the header lines of a denial. `length` is the length of the body, `again` is the value of `Retry-After`, and
/// `allow` lists the allowed methods.
fn problem_lines<'l>(
    denial: Denial,
    length: &'l str,
    again: Option<&'l str>,
    allow: &'l str,
) -> impl Iterator<Item = (&'static str, &'l str)> {
    let challenge = match denial.status() {
        401 => Some(("www-authenticate", "Bearer realm=\"callgate\"")),
        407 => Some(("proxy-authenticate", "Basic realm=\"callgate\"")),
        _ => None,
    };
    let lines = [
        Some(("content-type", "application/problem+json")),
        Some(("content-length", length)),
        Some(("cache-control", "no-store")),
        again.map(|seconds| ("retry-after", seconds)),
        challenge,
        (denial == Denial::MethodNotAllowed).then_some(("allow", allow)),
    ];
    lines.into_iter().flatten()
}

/// The side that is responsible for a failure while a response was relayed.
pub(crate) enum RelayError {
    /// The response of the agent or the provider is incomplete or malformed.
    Upstream(ResponseFault),
    /// The caller closed the connection or was too slow. The agent or the provider has already received the request.
    Caller,
}

/// Acknowledges a callback that is not delivered, for example a duplicate. The JSON body is `{"result": …}`, unless
/// `status` is 204. Returns whether the response was written.
pub(crate) async fn acknowledge(session: &mut Session, status: u16, result: &'static str) -> bool {
    let body = if status == 204 { String::new() } else { format!("{{\"result\":\"{result}\"}}") };
    json(session, status, body, "no-store").await
}

/// Writes a public JSON document as response. Returns whether the response was written.
pub(crate) async fn document(session: &mut Session, document: &Document) -> bool {
    json(session, 200, document.body.clone(), "max-age=300").await
}

/// Writes the response to a health check. The body is `ok` if `status` is 200, and `stopping` otherwise. Returns
/// whether the response was written.
pub(crate) async fn health(session: &mut Session, status: u16) -> bool {
    let body: &'static str = if status == 200 { "ok\n" } else { "stopping\n" };
    let header = || -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build_no_case(status, Some(3))?;
        header.insert_header(CONTENT_TYPE, "text/plain")?;
        header.insert_header(CONTENT_LENGTH, body.len())?;
        header.insert_header(CACHE_CONTROL, "no-store")?;
        Ok(header)
    };
    let Ok(header) = header() else { return false };
    write(session, header, Bytes::from_static(body.as_bytes())).await
}

/// Writes the JSON response to a request that another Callgate process sent to the replica listener. Returns whether
/// the response was written.
pub(crate) async fn member_answer(session: &mut Session, status: u16, body: Vec<u8>) -> bool {
    let body = if status == 204 { Vec::new() } else { body };
    let header = || -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build_no_case(status, Some(3))?;
        if status != 204 {
            header.insert_header(CONTENT_TYPE, "application/json")?;
            header.insert_header(CONTENT_LENGTH, body.len())?;
        }
        header.insert_header(CACHE_CONTROL, "no-store")?;
        Ok(header)
    };
    let Ok(header) = header() else { return false };
    write(session, header, body.into()).await
}

/// Writes a JSON response of Callgate itself. The response has no body if `status` is 204. Returns whether the response
/// was written.
pub(crate) async fn own_json(session: &mut Session, status: u16, body: String) -> bool {
    json(session, status, body, "no-store").await
}

async fn json(session: &mut Session, status: u16, body: String, cache: &'static str) -> bool {
    let header = || -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build_no_case(status, Some(3))?;
        if status != 204 {
            header.insert_header(CONTENT_TYPE, "application/json")?;
            header.insert_header(CONTENT_LENGTH, body.len())?;
        }
        header.insert_header(CACHE_CONTROL, cache)?;
        Ok(header)
    };
    let Ok(header) = header() else { return false };
    write(session, header, body.into()).await
}

/// Writes the response to a provider's handshake. Its headers keep a browser from interpreting the body as a page or
/// script. Returns whether the response was written.
pub(crate) async fn reply(session: &mut Session, reply: &HandshakeReply) -> bool {
    let header = || -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build_no_case(reply.status, Some(8))?;
        header.insert_header(CACHE_CONTROL, "no-store")?;
        header.insert_header("x-content-type-options", "nosniff")?;
        if let Some(media_type) = reply.media_type {
            header.insert_header(CONTENT_TYPE, media_type)?;
        }
        if reply.status != 204 {
            header.insert_header(CONTENT_LENGTH, reply.body.len())?;
        }
        for (name, value) in &reply.headers {
            header.insert_header(name.clone(), value.clone())?;
        }
        Ok(header)
    };
    let Ok(header) = header() else { return false };
    write(session, header, reply.body.clone().into()).await
}

/// Relays a response of the agent or a provider to the caller while the response arrives. `body_start` is the part of
/// the response body that was already read. If the connection to the agent or the provider is reusable, it is passed to
/// `reuse`. This happens before the end of the response is written, so that the caller's next request can use the
/// connection.
pub(crate) async fn relay(
    session: &mut Session,
    response: &mut UpstreamResponse,
    body_start: Bytes,
    limits: &Limits,
    reuse: impl FnMut(Connection),
) -> Result<(), RelayError> {
    relay_observed(session, response, body_start, limits, reuse, |_| {}).await
}

/// Relays a response as [`relay`] does. `observe` is called with each part of the body before the caller receives it.
pub(crate) async fn relay_observed(
    session: &mut Session,
    response: &mut UpstreamResponse,
    body_start: Bytes,
    limits: &Limits,
    mut reuse: impl FnMut(Connection),
    mut observe: impl FnMut(&[u8]),
) -> Result<(), RelayError> {
    // Without `Content-Length` in the response of the agent or the provider, the length of the body is unknown until
    // its end. HTTP/1.1 callers then get a chunked body. For HTTP/1.0 callers, the body ends at the end of the
    // connection.
    let chunks = session.version() == Version::HTTP_11 && session.method() != Method::HEAD;
    let header = relayed_header(response, chunks);
    let header = header.map_err(|_| RelayError::Upstream(ResponseFault::Garbled))?;
    session.write_head(header).await.map_err(|_| RelayError::Caller)?;
    let mut body_start = Some(body_start).filter(|body_start| !body_start.is_empty());
    // There is no total deadline, but the caller must read at the minimum transfer rate.
    let (mut timer, mut bytes) = (TransferTimer::new(limits, Duration::MAX), 0);
    loop {
        let data = match body_start.take() {
            Some(data) => Some(data),
            None => next_part(session, response, bytes == 0).await?,
        };
        match data {
            Some(data) => {
                observe(&data);
                let end = response.is_complete();
                if end {
                    response.take_connection().into_iter().for_each(&mut reuse);
                }
                bytes += data.len() as u64;
                let trailers = if end { response.trailers() } else { Vec::new() };
                let is_last = end && trailers.is_empty();
                let written = timer.step(bytes, session.write_body(data, is_last)).await;
                written.and_then(Result::ok).ok_or(RelayError::Caller)?;
                if end && !is_last {
                    return session.end_with_trailers(&trailers).await.map_err(|_| RelayError::Caller);
                }
                if end {
                    return Ok(());
                }
            }
            None => {
                response.take_connection().into_iter().for_each(&mut reuse);
                let trailers = response.trailers();
                return session.end_with_trailers(&trailers).await.map_err(|_| RelayError::Caller);
            }
        }
    }
}

/// Reads the next part of the body of a response. If the first part is not available yet, the head is written before
/// the wait, because the head of an event stream can arrive long before the first event.
///
/// # Errors
/// Returns [`RelayError::Caller`] if the caller closes its connection before the next part arrives.
async fn next_part(
    session: &mut Session,
    response: &mut UpstreamResponse,
    is_first: bool,
) -> Result<Option<Bytes>, RelayError> {
    if is_first {
        if let Some(data) = poll_once(pin!(response.read_body())).await {
            return data.map_err(RelayError::Upstream);
        }
        session.flush_head().await.map_err(|_| RelayError::Caller)?;
    }
    let read = session.unless_closed(response.read_body()).await;
    read.ok_or(RelayError::Caller)?.map_err(RelayError::Upstream)
}

fn relayed_header(response: &UpstreamResponse, chunks: bool) -> pingora::Result<ResponseHeader> {
    let (status, headers) = (response.status(), response.headers());
    let mut header = ResponseHeader::build_no_case(status, Some(headers.len() + 2))?;
    let listed = headers_of_one_hop(headers);
    let has_trailers = chunks && response.keeps_trailers() && !headers.contains_key(CONTENT_LENGTH);
    for (name, value) in headers {
        // Only Callgate itself writes the header `Callgate-Replica`, which proves that a Callgate process wrote the
        // response. This header is never relayed from an agent or a provider.
        if !is_hop_by_hop_of_response(name, has_trailers) && !listed.contains(name) && *name != REPLICA {
            header.append_header(name.clone(), value.clone())?;
        }
    }
    let has_no_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if status == StatusCode::NO_CONTENT {
        header.remove_header(&CONTENT_LENGTH);
    }
    if !has_no_body && chunks && !header.headers.contains_key(CONTENT_LENGTH) {
        header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_details_are_json() {
        for explain in [false, true] {
            for denial in Denial::ALL {
                let read: serde_json::Value =
                    serde_json::from_slice(&problem(*denial, "0af1", explain)).unwrap();
                let members = read.as_object().unwrap();
                assert_eq!(members["type"], "about:blank");
                assert_eq!(members["title"], denial.title());
                assert_eq!(members["status"], denial.status());
                assert_eq!(members["request_id"], "0af1");
                assert_eq!(
                    members.get("reason").and_then(|reason| reason.as_str()),
                    explain.then(|| denial.code())
                );
                assert_eq!(members.len(), 4 + usize::from(explain));
            }
        }
    }
}

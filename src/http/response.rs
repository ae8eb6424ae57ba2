//! Answers to a caller: the upstream's, passed on, and our own denials as problem+json (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use serde::Serialize;

use super::session::Session;
use super::timeouts::Pace;
use crate::denial::Denial;
use crate::http::client::ResponseFault;
use crate::http::client::UpstreamResponse;
use crate::ingress::Document;
use crate::policy::Limits;
use crate::request::connection_options;
use crate::signature::HandshakeReply;

/// Headers of one hop in an answer.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade"];

/// The document a refused caller gets.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Answers with a denial. Returns whether the caller could be told.
pub(crate) async fn deny(
    session: &mut Session,
    denial: Denial,
    methods: &[Method],
    request_id: &str,
    explain: bool,
) -> bool {
    let body = problem(denial, request_id, explain);
    let Ok(header) = problem_header(denial, methods, body.len()) else { return false };
    write(session, header, body.into()).await
}

/// Writes a whole answer; to HEAD without its body, which HTTP/2 would send. Returns whether the caller could be told.
async fn write(session: &mut Session, header: ResponseHeader, body: Bytes) -> bool {
    let body = if session.method() == Method::HEAD { Bytes::new() } else { body };
    session.write_head(header).await.is_ok() && session.write_body(body, true).await.is_ok()
}

/// The document a refused caller gets.
pub(crate) fn problem(denial: Denial, request_id: &str, explain: bool) -> Vec<u8> {
    let problem = Problem {
        r#type: "about:blank",
        title: denial.title(),
        status: denial.status(),
        request_id,
        reason: explain.then(|| denial.code()),
    };
    serde_json::to_vec(&problem).unwrap_or_default()
}

fn problem_header(denial: Denial, methods: &[Method], body_bytes: usize) -> pingora::Result<ResponseHeader> {
    let mut header = ResponseHeader::build_no_case(denial.status(), Some(8))?;
    header.insert_header(CONTENT_TYPE, "application/problem+json")?;
    header.insert_header(CONTENT_LENGTH, body_bytes)?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    if let Some(seconds) = denial.retry_after_secs() {
        header.insert_header(RETRY_AFTER, seconds)?;
    }
    if denial.status() == 401 {
        header.insert_header(WWW_AUTHENTICATE, "Bearer realm=\"callgate\"")?;
    }
    if denial == Denial::MethodNotAllowed {
        let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
        header.insert_header(ALLOW, methods.join(", "))?;
    }
    Ok(header)
}

/// Why an answer did not get through whole.
pub(crate) enum Broken {
    /// The side that answers.
    Upstream(ResponseFault),
    /// The caller's side; the request was delivered all the same.
    Caller,
}

/// Acknowledges a callback that needs no delivering; `result` says why. Returns whether the caller could be told.
pub(crate) async fn acknowledge(session: &mut Session, status: u16, result: &'static str) -> bool {
    let body = if status == 204 { String::new() } else { format!("{{\"result\":\"{result}\"}}") };
    json(session, status, body, "no-store").await
}

/// Answers with a document that anybody may read. Returns whether the caller could be told.
pub(crate) async fn document(session: &mut Session, document: &Document) -> bool {
    json(session, 200, document.body.clone(), "max-age=300").await
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

/// Answers a handshake: as data, never as something that a browser would run. Returns whether the caller could be
/// told.
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

/// Passes an answer on as it comes; `gathered` is what was read of its body before.
pub(crate) async fn relay(
    session: &mut Session,
    answer: &mut UpstreamResponse,
    gathered: Bytes,
    limits: &Limits,
) -> Result<(), Broken> {
    // A length the agent did not give is not known before its end: HTTP/1.1 callers get chunks, HTTP/1.0
    // callers the end of the connection.
    let chunks = session.version() == Version::HTTP_11 && session.method() != Method::HEAD;
    let header = relayed_header(answer.status(), answer.headers(), chunks);
    let header = header.map_err(|_| Broken::Upstream(ResponseFault::Garbled))?;
    session.write_head(header).await.map_err(|_| Broken::Caller)?;
    let mut gathered = Some(gathered).filter(|gathered| !gathered.is_empty());
    // A caller may take its time, but not for as long as it likes.
    let (mut pace, mut bytes) = (Pace::new(limits, Duration::MAX), 0);
    loop {
        let piece = match gathered.take() {
            Some(piece) => Some(piece),
            None => answer.piece().await.map_err(Broken::Upstream)?,
        };
        match piece {
            Some(piece) => {
                let end = answer.is_complete();
                bytes += piece.len() as u64;
                let written = pace.step(bytes, session.write_body(piece, end)).await;
                written.and_then(Result::ok).ok_or(Broken::Caller)?;
                if end {
                    return Ok(());
                }
            }
            None => return session.write_body(Bytes::new(), true).await.map_err(|_| Broken::Caller),
        }
    }
}

fn relayed_header(status: StatusCode, headers: &HeaderMap, chunks: bool) -> pingora::Result<ResponseHeader> {
    let mut header = ResponseHeader::build_no_case(status, Some(headers.len() + 2))?;
    let options: Vec<_> = connection_options(headers).collect();
    let listed = |name: &HeaderName| options.iter().any(|option| option.eq_ignore_ascii_case(name.as_str()));
    for (name, value) in headers {
        if *name != TRANSFER_ENCODING && !HOP_BY_HOP.contains(&name.as_str()) && !listed(name) {
            header.append_header(name.clone(), value.clone())?;
        }
    }
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if status == StatusCode::NO_CONTENT {
        header.remove_header(&CONTENT_LENGTH);
    }
    if !bodiless && chunks && !header.headers.contains_key(CONTENT_LENGTH) {
        header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(header)
}

//! A small HTTP service for one of our own listeners: a whole request in, a finished answer out.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::body;
use super::session::{continue_if_expected, hand_back, peer};
use super::slots::BodyMemory;
use crate::denial::Denial;
use crate::policy::Limits;

/// A request to one of our own listeners.
#[derive(Clone, Debug)]
pub struct PlainRequest {
    /// The method.
    pub method: String,
    /// The path, as sent.
    pub path: String,
    /// The query, as sent; empty without one.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole; `None`: it is too large.
    pub body: Option<Bytes>,
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
}

/// A finished answer.
#[derive(Clone, Debug)]
pub struct PlainResponse {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// The methods that are allowed, of a 405.
    pub allow: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl PlainResponse {
    /// An answer with nothing special about it.
    pub fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, allow: "", headers: Vec::new() }
    }

    /// There is nothing.
    pub fn not_found() -> Self {
        Self::new(404, "text/plain", String::new())
    }
}

/// How long a connection may wait for its next request, or send one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Largest body, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// Serves `respond`.
pub(super) struct PlainApp<F> {
    pub(super) respond: F,
}

#[async_trait]
impl<F, A> HttpServerApp for PlainApp<F>
where
    F: Fn(PlainRequest) -> A + Send + Sync + 'static,
    A: Future<Output = PlainResponse> + Send + 'static,
{
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !matches!(timeout(IDLE_TIMEOUT, session.read_request()).await, Ok(Ok(true))) {
            return None;
        }
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        session.set_write_timeout(Some(IDLE_TIMEOUT));
        continue_if_expected(&mut session).await;
        let (limits, memory) = (Limits::default(), BodyMemory::default());
        let mut reserved = memory.reserve(BODY_BYTES_MAX);
        let room = body::Room {
            bytes_max: BODY_BYTES_MAX,
            deadline: BODY_DEADLINE,
            limits: &limits,
            reserved: &mut reserved,
        };
        let body = match body::read(&mut session, None, room).await {
            Ok(body) => Some(body),
            Err(Denial::BodyTooLarge) => {
                session.set_keepalive(None);
                None
            }
            Err(_) => return None,
        };
        let head = session.req_header();
        let request = PlainRequest {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers.clone(),
            body,
            peer: peer(&session),
        };
        let response = (self.respond)(request).await;
        session.write_response_header(Box::new(head_of(&response).ok()?)).await.ok()?;
        session.write_response_body(Bytes::from(response.body), true).await.ok()?;
        hand_back(session, true).await
    }
}

fn head_of(response: &PlainResponse) -> pingora::Result<ResponseHeader> {
    let mut header = ResponseHeader::build(response.status, Some(5))?;
    header.insert_header(CONTENT_TYPE, response.content_type)?;
    if response.status != 204 {
        header.insert_header(CONTENT_LENGTH, response.body.len())?;
    }
    header.insert_header(CACHE_CONTROL, "no-store")?;
    if response.status == 401 {
        header.insert_header(WWW_AUTHENTICATE, "Bearer realm=\"callgate\"")?;
    }
    if response.status == 405 {
        header.insert_header(ALLOW, response.allow)?;
    }
    for (name, value) in &response.headers {
        header.insert_header(name, value)?;
    }
    Ok(header)
}

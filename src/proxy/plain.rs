//! A small HTTP service for one of our own listeners: a request in, a finished answer out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

/// A request to one of our own listeners.
#[derive(Clone, Debug)]
pub struct PlainRequest {
    /// The method.
    pub method: String,
    /// The path, as sent.
    pub path: String,
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
}

/// How long a connection may wait for its next request, or send one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves `respond`.
pub(super) struct PlainApp<F> {
    pub(super) respond: F,
}

#[async_trait]
impl<F> HttpServerApp for PlainApp<F>
where
    F: Fn(&PlainRequest) -> PlainResponse + Send + Sync + 'static,
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
        let method = session.req_header().method.as_str().to_owned();
        let target = session.req_header().uri.path();
        let request = PlainRequest { method, path: target.to_owned() };
        let response = (self.respond)(&request);
        let mut header = ResponseHeader::build(response.status, Some(5)).ok()?;
        header.insert_header(CONTENT_TYPE, response.content_type).ok()?;
        header.insert_header(CONTENT_LENGTH, response.body.len()).ok()?;
        header.insert_header(CACHE_CONTROL, "no-store").ok()?;
        session.write_response_header(Box::new(header)).await.ok()?;
        session.write_response_body(Bytes::from(response.body), true).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

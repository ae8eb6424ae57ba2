//! Delivering: everything that reaches the agent goes through here, as one finished message, and takes a
//! [`Permit`]. A request whose bytes may have reached the agent is never sent a second time.

use std::time::Instant;

use bytes::{Buf, Bytes};
use http::Method;
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession as AgentSession;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::agent::Pool;
use crate::denial::Denial;
use crate::ingress::Permit;
use crate::policy::Agent;
use crate::request::RequestHead;

/// Up to this size the body is copied behind the head, which costs less than a second buffer in the write.
const ONE_BUFFER_BYTES_MAX: usize = 16 << 10;

/// The agent's answer: its head is read, its body is still to come.
pub(super) struct Answer {
    session: AgentSession,
    /// Whether the answer has a body at all: not to HEAD.
    has_body: bool,
}

/// Hands a permitted callback to the agent and reads the head of its answer.
///
/// # Errors
/// `agent_unreachable` (nothing was sent), `agent_timeout`, `agent_reset`, `agent_garbled` (it may have
/// been).
pub(super) async fn deliver(
    pool: &Pool,
    agent: &Agent,
    permit: &Permit,
    head: &RequestHead<'_>,
    body: Bytes,
    now: Instant,
) -> Result<Answer, Denial> {
    let mut message = Vec::with_capacity(1024 + body.len().min(ONE_BUFFER_BYTES_MAX));
    permit.write_head(head, body.len(), &mut message);
    let stream = pool.connection(agent, now).await?;
    let answered = timeout(agent.response_timeout, converse(stream, message, body)).await;
    let mut session = answered.unwrap_or(Err(Denial::AgentTimeout))?;
    session.read_timeout = Some(agent.response_timeout);
    Ok(Answer { session, has_body: head.method != Method::HEAD.as_str() })
}

/// Writes the request and reads the head of the answer. An agent may answer and close before it has read
/// everything; such an answer still counts, so a failed write is followed by a look at what came back.
async fn converse(mut stream: Stream, message: Vec<u8>, body: Bytes) -> Result<AgentSession, Denial> {
    let _ = send(&mut stream, message, body).await;
    let mut session = AgentSession::new(stream);
    final_head(&mut session).await?;
    Ok(session)
}

async fn send(stream: &mut Stream, mut message: Vec<u8>, body: Bytes) -> std::io::Result<()> {
    if body.len() <= ONE_BUFFER_BYTES_MAX {
        message.extend_from_slice(&body);
        stream.write_all(&message).await?;
    } else {
        stream.write_all_buf(&mut Bytes::from(message).chain(body)).await?;
    }
    stream.flush().await
}

/// Reads heads until one is final. A switch of protocols was never asked for.
async fn final_head(session: &mut AgentSession) -> Result<(), Denial> {
    loop {
        session.read_response().await.map_err(|error| fault(error.etype()))?;
        match session.get_status().map(|status| status.as_u16()) {
            Some(200..=599) => return Ok(()),
            Some(100 | 102..=199) => {}
            _ => return Err(Denial::AgentGarbled),
        }
    }
}

fn fault(error: &ErrorType) -> Denial {
    match error {
        ErrorType::ReadTimedout => Denial::AgentTimeout,
        ErrorType::InvalidHTTPHeader => Denial::AgentGarbled,
        _ => Denial::AgentReset,
    }
}

impl Answer {
    /// The head of the answer.
    pub(super) fn head(&self) -> Option<&ResponseHeader> {
        self.session.resp_header()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// `agent_timeout`, `agent_reset`, `agent_garbled`: the answer stays incomplete.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Denial> {
        if !self.has_body {
            return Ok(None);
        }
        self.session.read_body_bytes().await.map_err(|error| fault(error.etype()))
    }

    /// Whether the last piece was the last.
    pub(super) fn is_complete(&mut self) -> bool {
        !self.has_body || self.session.is_body_done()
    }

    /// Gives the connection back, if it can be used again.
    pub(super) async fn finish(mut self, pool: &Pool, agent: &Agent, now: Instant) {
        if self.has_body {
            self.session.respect_keepalive();
            if let Some(stream) = self.session.reuse().await {
                pool.keep(agent, stream, now);
            }
        }
    }
}

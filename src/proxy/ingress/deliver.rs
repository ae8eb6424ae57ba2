//! Delivers requests to the agent. All requests to the agent pass through this module.
//!
//! Callbacks and notices are complete messages. A [`Delivery`] can be created only from a [`Permit`], from a stored
//! callback ([`Kept`], which was created from a permit), from a [`Notice`], or from an [`Observed`] request on a route
//! in observe mode. On a route with `stream: true`, a [`Streamed`] request is sent while it arrives. A request that may
//! have reached the agent is never sent a second time.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::agent::Agent;
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::client::{
    Message, ResponseFault, StreamFault, Upload, UpstreamResponse, exchange, exchange_streamed,
};
use crate::http::{Caller, Session, head_of};
use crate::ingress::{Attempt, BodyLength, Kept, Notice, Observed, Permit, Streamed};
use crate::observe::{AGENT_ACCEPTED, AGENT_REJECTED, Metrics};
use crate::policy::Limits;
use crate::proxy::agent_client::AgentClient;
use crate::request::RequestHead;
use crate::store::Claimed;
use crate::time::Timestamp;
use crate::token::Stamp;

/// The initial capacity for the head of a message to the agent, in bytes.
const HEAD_BYTES: usize = 1024;
/// The maximum initial capacity for a body after the head of a message, in bytes.
const BODY_BYTES: usize = 16 << 10;

/// A message that Callgate is allowed to deliver to the agent.
pub(crate) struct Delivery {
    message: Message,
}

impl Delivery {
    /// Creates the message to the agent from a permitted callback.
    pub(crate) fn callback(permit: &Permit, head: &RequestHead<'_>, body: Bytes, stamp: Stamp<'_>) -> Self {
        let mut head_bytes = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        permit.write_head(head, &body, stamp, &mut head_bytes);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message::new(head_bytes, body, expects_body) }
    }

    /// Creates the message to the agent from a request on a route in observe mode.
    pub(crate) fn observed(observed: &Observed, head: &RequestHead<'_>, body: Bytes) -> Self {
        let mut head_bytes = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        observed.write_head(head, &body, &mut head_bytes);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message::new(head_bytes, body, expects_body) }
    }

    /// Creates the message to the agent from a callback that is stored in the inbox.
    pub(crate) fn kept(kept: &Kept, attempt: &Attempt<'_>, body: Bytes) -> Self {
        let head = kept.write_head(attempt, &body);
        Self { message: Message::new(head, body, true) }
    }

    /// Creates the message of a notice to the agent. Returns `None` if the route of the interaction sends no notices.
    pub(crate) fn notice(notice: &Notice<'_>) -> Option<Self> {
        let (head, body) = notice.write()?;
        Some(Self { message: Message::new(head, body.into(), true) })
    }
}

/// Sends a message to the agent and reads the head of the response.
///
/// # Errors
/// Returns `agent_unreachable` if nothing was sent. After `agent_timeout`, `agent_reset`, `agent_garbled` and
/// `agent_redirected`, the agent may have received the message.
pub(crate) async fn deliver(
    metrics: &Metrics,
    client: &AgentClient,
    agent: &Agent,
    delivery: Delivery,
    now: Instant,
) -> Result<UpstreamResponse, Denial> {
    let delivered = send(client, agent, delivery, now).await;
    let result = match &delivered {
        Ok(response) if response.is_success() => AGENT_ACCEPTED,
        Ok(_) => AGENT_REJECTED,
        Err(denial) => denial.code(),
    };
    metrics.agent_request(&agent.name, result);
    delivered
}

async fn send(
    client: &AgentClient,
    agent: &Agent,
    delivery: Delivery,
    now: Instant,
) -> Result<UpstreamResponse, Denial> {
    let connection = client.connection(agent, now).await?;
    let sent = exchange(connection, delivery.message, agent.response_timeout).await;
    let response = sent.map_err(|fault| fault.agent_denial())?;
    match is_redirect(response.status()) {
        true => Err(Denial::AgentRedirected),
        false => Ok(response),
    }
}

/// Sends a request to the agent while the body arrives from the caller, and reads the head of the response. Returns a
/// redirect like any other response, because the caller uses the agent's own API. Returns `None` if the caller closed
/// its connection. Also returns the number of body bytes that were received from the caller.
///
/// # Errors
/// Returns [`StreamFault::Body`] if the caller's body failed, and [`StreamFault::Response`] if the agent failed.
pub(crate) async fn deliver_streaming(
    metrics: &Metrics,
    client: &AgentClient,
    streamed: &Streamed,
    (session, caller): (&mut Session, Caller<'_>),
    stamp: Stamp<'_>,
    limits: &Limits,
) -> (Result<Option<UpstreamResponse>, StreamFault>, u64) {
    let agent = &streamed.route().agent;
    let (answered, bytes) = match client.connection(agent, instant()).await {
        Err(_) => (Err(StreamFault::Response(ResponseFault::Unreachable)), 0),
        Ok(connection) => {
            let (head, length) = streamed_head(streamed, session, caller, stamp);
            let (expects_body, timeout) = (session.method() != Method::HEAD, agent.response_timeout);
            if length == BodyLength::Known(0) {
                let message = Message::new(head, Bytes::new(), expects_body);
                let response = session.unless_closed(exchange(connection, message, timeout)).await;
                (response.transpose().map_err(StreamFault::Response), 0)
            } else {
                let mut upload = Upload {
                    session,
                    length: length.known(),
                    bytes_max: streamed.body_bytes_max(),
                    limits,
                    deadline: limits.body_deadline,
                    skip_trailer: &|_| true,
                    bytes: 0,
                };
                let answered = exchange_streamed(connection, head, &mut upload, expects_body, timeout).await;
                (answered, upload.bytes)
            }
        }
    };
    match &answered {
        Ok(Some(response)) if response.is_success() => metrics.agent_request(&agent.name, AGENT_ACCEPTED),
        Ok(Some(_)) => metrics.agent_request(&agent.name, AGENT_REJECTED),
        Err(StreamFault::Response(fault)) => {
            metrics.agent_request(&agent.name, fault.agent_denial().code());
        }
        // The caller caused the end of the request, so the metrics count no result of the agent.
        Ok(None) | Err(StreamFault::Body(_)) => {}
    }
    (answered, bytes)
}

/// Returns the head of the streamed request to the agent, and the length of its body.
fn streamed_head(
    streamed: &Streamed,
    session: &mut Session,
    caller: Caller<'_>,
    stamp: Stamp<'_>,
) -> (Vec<u8>, BodyLength) {
    let has_no_body = session.is_body_done();
    let head = head_of(session, caller);
    let length = match head.body_bytes_declared {
        _ if has_no_body => BodyLength::Known(0),
        Some(bytes) => BodyLength::Known(bytes),
        None => BodyLength::Chunked,
    };
    let mut head_bytes = Vec::with_capacity(HEAD_BYTES);
    streamed.write_head(&head, length, stamp, &mut head_bytes);
    (head_bytes, length)
}

/// Reports whether a status asks the caller to send the request to another URL. Returns false for 304, because 304 is
/// the response to a conditional request.
fn is_redirect(status: StatusCode) -> bool {
    status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

/// Records in the ledger that the agent accepted a callback, and waits until this result is durable. The provider must
/// not receive the response earlier.
///
/// # Errors
/// Returns the denial of the store if the result could not be saved.
pub(crate) async fn settle(
    metrics: &Metrics,
    permit: &Permit,
    claimed: Claimed<'_>,
    now: Timestamp,
) -> Result<(), Denial> {
    if claimed.is_stale() {
        metrics.stale(&permit.route().name, "delivered");
    }
    let event_id = permit.event_id().and_then(|id| id.to_str().ok());
    claimed.settle(permit.report(), event_id, now).await.map_err(|refusal| refusal.denial)
}

//! Delivers requests to the agent. All requests to the agent pass through this module as complete messages. A
//! [`Delivery`] can be created only from a [`Permit`], a [`Notice`], or, on a route in observe mode, an [`Observed`]. A
//! request that may have reached the agent is never sent a second time.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::agent_client::AgentClient;
use crate::agent::Agent;
use crate::denial::Denial;
use crate::http::client::{Message, UpstreamResponse, exchange};
use crate::ingress::{Notice, Observed, Permit};
use crate::observe::{AGENT_ACCEPTED, AGENT_REJECTED, Metrics};
use crate::request::RequestHead;
use crate::store::Claimed;
use crate::time::Timestamp;
use crate::token::Stamp;

/// Capacity that is reserved for the head of a message, in bytes.
const HEAD_BYTES: usize = 1024;
/// Maximum capacity that is reserved for a body after the head, in bytes.
const BODY_BYTES: usize = 16 << 10;

/// A message that Callgate is allowed to deliver.
pub(crate) struct Delivery {
    message: Message,
}

impl Delivery {
    /// Creates the message of a permitted callback.
    pub(crate) fn callback(permit: &Permit, head: &RequestHead<'_>, body: Bytes, stamp: Stamp<'_>) -> Self {
        let mut head_bytes = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        permit.write_head(head, &body, stamp, &mut head_bytes);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message::new(head_bytes, body, expects_body) }
    }

    /// Creates the request that the agent receives for a caller's request on a route in observe mode.
    pub(crate) fn observed(observed: &Observed, head: &RequestHead<'_>, body: Bytes) -> Self {
        let mut head_bytes = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        observed.write_head(head, &body, &mut head_bytes);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message::new(head_bytes, body, expects_body) }
    }

    /// Creates the message of a notice. Returns `None` if the route of the interaction is not configured to send
    /// notices.
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

/// Reports whether a status asks the caller to send its request elsewhere. The status 304 does not: it is the response
/// to a conditional request.
fn is_redirect(status: StatusCode) -> bool {
    status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

/// Records that the agent accepted the callback. The provider receives the response only after this record is saved.
///
/// # Errors
/// Returns the denial of the store if it could not save the record.
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

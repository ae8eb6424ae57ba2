//! Delivering: everything that reaches the agent goes through here, as one finished message. A [`Delivery`] is made
//! from a [`Permit`] or from a [`Notice`], on a route that only observes from an [`Observed`], and from nothing else. A
//! request whose bytes may have reached the agent is never sent a second time.

use std::time::Instant;

use bytes::Bytes;
use http::Method;

use super::agent_pool::{self, AgentPool};
use crate::denial::Denial;
use crate::http::client::{Message, UpstreamResponse, exchange};
use crate::ingress::{Notice, Observed, Permit};
use crate::observe::Metrics;
use crate::policy::Agent;
use crate::request::RequestHead;
use crate::store::Claimed;
use crate::time::Timestamp;
use crate::token::Stamp;

/// Space reserved for the head of a message.
const HEAD_BYTES: usize = 1024;
/// Space reserved for a body behind it.
const BODY_BYTES: usize = 16 << 10;

/// Something that may be handed to the agent.
pub(crate) struct Delivery {
    message: Message,
}

impl Delivery {
    /// A permitted callback.
    pub(crate) fn callback(permit: &Permit, head: &RequestHead<'_>, body: Bytes, stamp: Stamp<'_>) -> Self {
        let mut written = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        permit.write_head(head, &body, stamp, &mut written);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message { head: written, body, expects_body } }
    }

    /// What a route lets through that only observes.
    pub(crate) fn observed(observed: &Observed, head: &RequestHead<'_>, body: Bytes) -> Self {
        let mut written = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        observed.write_head(head, &body, &mut written);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message { head: written, body, expects_body } }
    }

    /// A notice; `None` where its route has none.
    pub(crate) fn notice(notice: &Notice<'_>) -> Option<Self> {
        let (head, body) = notice.write()?;
        Some(Self { message: Message { head, body: body.into(), expects_body: true } })
    }
}

/// Hands something to the agent and reads the head of its answer.
///
/// # Errors
/// `agent_unreachable` (nothing was sent), `agent_timeout`, `agent_reset`, `agent_garbled` (it may have
/// been).
pub(crate) async fn deliver(
    pool: &AgentPool,
    agent: &Agent,
    delivery: Delivery,
    now: Instant,
) -> Result<UpstreamResponse, Denial> {
    let connection = agent_pool::connection(pool, agent, now).await?;
    exchange(connection, delivery.message, agent.response_timeout).await.map_err(|fault| fault.of_agent())
}

/// The agent took the callback: that is safe before the provider is told.
///
/// # Errors
/// What the store answers when the settlement could not be made safe.
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

/// Gives the connection of an answer that was read to its end back, if it can be used again.
pub(crate) fn finish(pool: &AgentPool, agent: &Agent, answer: UpstreamResponse, now: Instant) {
    if let Some(connection) = answer.into_connection() {
        agent_pool::keep(pool, agent, connection, now);
    }
}

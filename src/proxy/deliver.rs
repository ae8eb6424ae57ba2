//! Delivering: everything that reaches the agent goes through here, as one finished message. A [`Delivery`] is made
//! from a [`Permit`] or from a [`Notice`], on a route that only observes from an [`Observed`], and from nothing else. A
//! request whose bytes may have reached the agent is never sent a second time.

use std::time::Instant;

use bytes::Bytes;
use http::Method;

use super::agent::{self, Pool};
use super::clock::instant;
use super::exchange::Shared;
use super::http1_client::{Answer, Message, exchange};
use crate::denial::Denial;
use crate::ingress::{Notice, Observed, Permit};
use crate::policy::Agent;
use crate::request::RequestHead;
use crate::store::Claimed;
use crate::token::Stamp;

/// Room made for the head of a message.
const HEAD_BYTES: usize = 1024;
/// Room made for a body behind it.
const BODY_BYTES: usize = 16 << 10;

/// Something that may be handed to the agent.
pub(super) struct Delivery {
    message: Message,
}

impl Delivery {
    /// A permitted callback.
    pub(super) fn callback(permit: &Permit, head: &RequestHead<'_>, body: Bytes, stamp: Stamp<'_>) -> Self {
        let mut written = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        permit.write_head(head, &body, stamp, &mut written);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message { head: written, body, expects_body } }
    }

    /// What a route lets through that only observes.
    pub(super) fn observed(observed: &Observed, head: &RequestHead<'_>, body: Bytes) -> Self {
        let mut written = Vec::with_capacity(HEAD_BYTES + body.len().min(BODY_BYTES));
        observed.write_head(head, &body, &mut written);
        let expects_body = head.method != Method::HEAD.as_str();
        Self { message: Message { head: written, body, expects_body } }
    }

    /// A notice; `None` where its route has none.
    pub(super) fn notice(notice: &Notice<'_>) -> Option<Self> {
        let (head, body) = notice.write()?;
        Some(Self { message: Message { head, body: body.into(), expects_body: true } })
    }
}

/// Hands something to the agent and reads the head of its answer.
///
/// # Errors
/// `agent_unreachable` (nothing was sent), `agent_timeout`, `agent_reset`, `agent_garbled` (it may have
/// been).
pub(super) async fn deliver(
    pool: &Pool,
    agent: &Agent,
    delivery: Delivery,
    now: Instant,
) -> Result<Answer, Denial> {
    let connection = agent::connection(pool, agent, now).await?;
    exchange(connection, delivery.message, agent.response_timeout).await.map_err(|fault| fault.of_agent())
}

/// The agent took the callback: that is safe before the provider is told.
///
/// # Errors
/// What the store answers when the settlement could not be made safe.
pub(super) async fn settle(shared: &Shared, permit: &Permit, claimed: Claimed<'_>) -> Result<(), Denial> {
    if claimed.is_stale() {
        shared.metrics.stale(&permit.route().name, "delivered");
    }
    let event_id = permit.event_id().and_then(|id| id.to_str().ok());
    claimed
        .settle(permit.report(), event_id, shared.ledger_clock.now(instant()))
        .await
        .map_err(|refusal| refusal.denial)
}

/// Gives the connection of an answer that was read to its end back, if it can be used again.
pub(super) fn finish(pool: &Pool, agent: &Agent, answer: Answer, now: Instant) {
    if let Some(connection) = answer.into_connection() {
        agent::keep(pool, agent, connection, now);
    }
}

//! One attempt to deliver a message of the inbox to the agent.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use tokio::time::timeout;

use super::circuits::Slot;
use super::deliveries::Deliveries;
use crate::agent::Agent;
use crate::clock::instant;
use crate::denial::Denial;
use crate::inbox::{Next, Outcome};
use crate::ingress::{Attempt, Kept};
use crate::proxy::ingress::deliver::{Delivery, deliver};
use crate::random::random_u64;
use crate::store::Started;
use crate::token::Stamp;

/// The maximum number of bytes that Callgate reads from the agent's response.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// The delay before Callgate reads a message again after a read error.
const UNREADABLE_DELAY: Duration = Duration::from_secs(5);

/// Tries to deliver a message of the inbox to the agent, and records the outcome.
pub(super) async fn attempt(
    deliveries: &Deliveries,
    started: Started,
    route: &str,
    is_probe: bool,
    slot: &Slot,
) {
    let (inbox, number) = (deliveries.inbox(), started.number);
    let policy = deliveries.policy.load_full();
    let Some(route) = policy.route(route) else { return };
    let message = match inbox.begin(number, route.agent.patience()).await {
        Ok(Some(message)) => message,
        read => {
            // `Ok(None)` means that the message was erased in the meantime. Then nothing is logged, and `postpone` has
            // no effect.
            if let Err(error) = read
                && deliveries.log_throttle.should_log("unreadable", instant())
            {
                log::error!("{}: the message cannot be read: {error}", inbox.id(number));
            }
            let now = deliveries.clocks.ledger_now(instant());
            return started.postpone(now.plus(UNREADABLE_DELAY));
        }
    };
    let attempt = Attempt {
        route,
        edge: policy.ingress.edge(),
        id: &inbox.id(number),
        number: started.attempt,
        stamp: Stamp { id: &deliveries.recorder.request_ids.next(), now: deliveries.clocks.now() },
    };
    let delivery = Delivery::kept(&message.kept, &attempt, message.body);
    let began = instant();
    let sent = timeout(route.agent.patience(), send(deliveries, &route.agent, delivery)).await;
    let (outcome, last) =
        sent.unwrap_or_else(|_| (Outcome::Failed(None), Denial::AgentTimeout.code().to_owned()));
    let metrics = &deliveries.recorder.metrics;
    metrics.message_attempt(&route.name, result(outcome));
    metrics.delivery(&route.name, instant().saturating_duration_since(began).as_secs_f64());
    let now = deliveries.clocks.ledger_now(instant());
    let was_open = deliveries.circuits.outcome(slot, outcome, now);
    let about = about(&route.name, &message.kept);
    match started.end(outcome, &last, (now, is_probe || was_open, random_u64())).await {
        Ok(Some(Next::Delivered)) => {
            metrics.message_settled(&route.name, "delivered");
            if let Some(interaction) = &message.kept.interaction {
                deliveries.store.message_received(interaction, now);
            }
            log::info!("{}: delivered, attempt {}, result {last}{about}", attempt.id, attempt.number);
            let ms = now.unix_ms().saturating_sub(message.kept.received().unix_ms()).max(0);
            metrics.message_delivered(&route.name, ms as f64 / 1000.0);
        }
        Ok(Some(Next::Dead(cause))) => {
            log::warn!("{}: the message is dead ({}), last result: {last}{about}", attempt.id, cause.name());
            tell_dead(deliveries, &message.kept).await;
        }
        Ok(Some(Next::Due(_))) if deliveries.log_throttle.should_log("attempt", instant()) => {
            log::warn!("{}: not delivered, attempt {}, result {last}{about}", attempt.id, attempt.number);
        }
        Ok(Some(Next::Due(_)) | None) => {}
        Err(refusal) => log::error!("{}: {}", attempt.id, refusal.detail),
    }
}

/// Describes a message for the log: its route, its interaction and the provider's event id.
fn about(route: &str, kept: &Kept) -> String {
    let mut about = format!(", route {route}");
    for (name, value) in [("interaction", &kept.interaction), ("event", &kept.event_id)] {
        if let Some(value) = value {
            about.push_str(&format!(", {name} {value}"));
        }
    }
    about
}

/// Sends a message to the agent. Returns the outcome for the inbox, and the status or the reason for the log.
async fn send(deliveries: &Deliveries, agent: &Arc<Agent>, delivery: Delivery) -> (Outcome, String) {
    let client = deliveries.agents.client(agent);
    let metrics = &deliveries.recorder.metrics;
    let mut response = match deliver(metrics, &client, agent, delivery, instant()).await {
        Ok(response) => response,
        Err(denial) => {
            let is_unreachable = denial == Denial::AgentUnreachable;
            let outcome = if is_unreachable { Outcome::Unreachable } else { Outcome::Failed(None) };
            return (outcome, denial.code().to_owned());
        }
    };
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let outcome = Outcome::of_answer(status, after, deliveries.clocks.now());
    if response.read_up_to(RESPONSE_BYTES_MAX).await.is_ok()
        && let Some(connection) = response.take_connection()
    {
        client.keep(agent.idle_timeout, connection, instant());
    }
    (outcome, status.as_u16().to_string())
}

/// Records in the ledger that the interaction has a dead message, which the agent will not receive.
async fn tell_dead(deliveries: &Deliveries, kept: &Kept) {
    let Some(interaction) = &kept.interaction else { return };
    let now = deliveries.clocks.ledger_now(instant());
    if let Err(refusal) = deliveries.store.undelivered(interaction, now).await {
        log::error!("{interaction}: {}", refusal.detail);
    }
}

/// Records that a message is dead because its time to live ended before it was delivered.
pub(super) async fn tell_given_up(deliveries: &Deliveries, number: u64) {
    let inbox = deliveries.inbox();
    log::warn!("{}: the message is dead (given_up)", inbox.id(number));
    // Only the head is read, because very many messages may become dead at once, and their bodies may be large.
    match inbox.read_head(number).await {
        Ok(Some(head)) => tell_dead(deliveries, &head.kept).await,
        Ok(None) => {}
        Err(error) => log::error!("{}: the message cannot be read: {error}", inbox.id(number)),
    }
}

/// Returns the value of the metric label for the outcome of a delivery attempt.
fn result(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Busy(_) => "busy",
        Outcome::Failed(_) => "failed",
        Outcome::Gone => "gone",
        Outcome::Rejected => "rejected",
        Outcome::Unreachable => "unreachable",
    }
}

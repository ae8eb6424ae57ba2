//! Events that belong to no interaction: which were delivered, and which are being delivered. The events of one route
//! are in one partition, because a message can have several keys, and each of them must be found.

use std::time::Duration;

use redis::Value;

use super::nodes::keys::Partition;
use super::nodes::message_scripts::ACCEPT_EVENT;
use super::nodes::scripts::{CLAIM_EVENT, RELEASE_EVENT, SETTLE_EVENT};
use super::records::{NewMessage, jitter, unavailable};
use super::store::RedisStore;
use crate::denial::Refusal;
use crate::interaction::{Ask, ClaimError, EventKey};

/// The random part of the end of a lease, by which a process recognizes its own lease. It does not matter for the lease.
const LEASE_ID_MS: u64 = 1000;

/// An event that is being delivered.
#[derive(Debug)]
pub(super) struct EventHold {
    route: Box<str>,
    keys: Vec<EventKey>,
    /// The end of the lease, as the engine has it.
    until: Vec<u8>,
}

impl RedisStore {
    /// Claims an event. Returns `Ok(None)` if another process delivers it.
    pub(super) async fn claim_event(
        &self,
        ask: &Ask<'_>,
        lease: Duration,
    ) -> Result<Option<EventHold>, ClaimError> {
        let route = &**ask.route;
        let hold = |until| EventHold { route: route.into(), keys: ask.events.to_vec(), until };
        if ask.events.is_empty() {
            return Ok(Some(hold(Vec::new())));
        }
        let keys = vec![self.keys.delivered(route), self.keys.delivering(route)];
        let mut arguments = vec![micros(lease), micros(jitter(LEASE_ID_MS))];
        arguments.extend(ask.events.iter().map(bytes));
        let claimed = self.call(&CLAIM_EVENT, Partition::of(route), keys, arguments).await;
        let (_, values) = claimed.map_err(|failure| ClaimError::Refused(unavailable(&failure)))?;
        match values.as_slice() {
            [Value::Int(0), Value::BulkString(until), ..] => Ok(Some(hold(until.clone()))),
            [Value::Int(1), ..] => Err(ClaimError::Duplicate),
            _ => Ok(None),
        }
    }

    /// Records that an event was delivered.
    pub(super) async fn settle_event(&self, hold: &EventHold) -> Result<(), Refusal> {
        if hold.keys.is_empty() {
            return Ok(());
        }
        let keys = vec![self.keys.delivered(&hold.route), self.keys.delivering(&hold.route)];
        let mut arguments =
            vec![micros(self.settings.remember), self.settings.events_max.to_string().into_bytes()];
        arguments.extend(hold.keys.iter().map(bytes));
        // A repetition has the same effect, so an unknown outcome is simply tried again.
        let mut settled =
            self.call(&SETTLE_EVENT, Partition::of(&hold.route), keys.clone(), arguments.clone()).await;
        if settled.as_ref().is_err_and(|failure| failure.may_have_happened) {
            settled = self.call(&SETTLE_EVENT, Partition::of(&hold.route), keys, arguments).await;
        }
        settled.map(|_| ()).map_err(|failure| unavailable(&failure))
    }

    /// Records that an event is kept, together with its message. Returns the member that holds the message.
    pub(super) async fn keep_event(
        &self,
        hold: &EventHold,
        message: &NewMessage,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let partition = Partition::of(&hold.route);
        let keys = vec![
            self.keys.messages_due(partition),
            self.keys.delivered(&hold.route),
            self.keys.delivering(&hold.route),
        ];
        let mut arguments = vec![
            micros(self.settings.remember),
            self.settings.events_max.to_string().into_bytes(),
            hold.keys.len().to_string().into_bytes(),
        ];
        arguments.extend(hold.keys.iter().map(bytes));
        arguments.extend(message.arguments(&self.incarnation));
        // A repetition has the same effect, so an unknown outcome is simply tried again.
        let mut kept = self.call(&ACCEPT_EVENT, partition, keys.clone(), arguments.clone()).await;
        if kept.as_ref().is_err_and(|failure| failure.may_have_happened) {
            kept = self.call(&ACCEPT_EVENT, partition, keys, arguments).await;
        }
        let (_, values) = kept.map_err(|failure| unavailable(&failure))?;
        Ok(values.into_iter().next().and_then(|value| match value {
            Value::BulkString(holder) => Some(holder),
            _ => None,
        }))
    }

    /// Releases the claim of an event. If this fails, the claim ends with its lease.
    pub(super) async fn release_event(&self, hold: &EventHold) {
        if hold.keys.is_empty() {
            return;
        }
        let keys = vec![self.keys.delivering(&hold.route)];
        let mut arguments = vec![hold.until.clone()];
        arguments.extend(hold.keys.iter().map(bytes));
        if let Err(failure) = self.call(&RELEASE_EVENT, Partition::of(&hold.route), keys, arguments).await {
            log::warn!("the claim of an event ends only with its lease: {}", failure.reason);
        }
    }
}

fn micros(duration: Duration) -> Vec<u8> {
    duration.as_micros().to_string().into_bytes()
}

fn bytes(event: &EventKey) -> Vec<u8> {
    event.0.to_be_bytes().to_vec()
}

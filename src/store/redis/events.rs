//! Events that belong to no interaction: which were delivered, and which are being delivered. The events of one route
//! are in one partition, because a message can have several keys, and each of them must be found.

use std::time::Duration;

use redis::Value;

use super::nodes::keys::Partition;
use super::nodes::scripts::{CLAIM_EVENT, RELEASE_EVENT, SETTLE_EVENT};
use super::records::{no_random_numbers, unavailable};
use super::store::RedisStore;
use crate::denial::Refusal;
use crate::interaction::EventKey;
use crate::random::random;

/// The number of a lease is below this number. A process recognizes its own lease by it.
const LEASE_NUMBERS: u64 = 1_000_000;

/// An event that is being delivered.
#[derive(Debug)]
pub(super) struct EventHold {
    route: Box<str>,
    keys: Vec<EventKey>,
    /// The number of the lease.
    lease: u64,
}

/// The result of an attempt to claim an event.
#[derive(Debug)]
pub(super) enum EventClaim {
    Claimed,
    Delivered,
    /// Another process delivers it.
    Busy,
}

impl EventHold {
    /// Returns a claim with a new lease. The engine does not know it yet.
    pub(super) fn new(route: &str, events: &[EventKey]) -> Result<Self, Refusal> {
        let lease = random::<8>().map(u64::from_be_bytes).ok_or_else(no_random_numbers)? % LEASE_NUMBERS;
        Ok(Self { route: route.into(), keys: events.to_vec(), lease })
    }
}

impl RedisStore {
    /// Claims an event.
    pub(super) async fn claim_event(
        &self,
        hold: &EventHold,
        duration: Duration,
    ) -> Result<EventClaim, Refusal> {
        if hold.keys.is_empty() {
            return Ok(EventClaim::Claimed);
        }
        let keys = vec![self.keys.delivered(&hold.route), self.keys.delivering(&hold.route)];
        let mut arguments = vec![micros(duration), hold.lease.to_string().into_bytes()];
        arguments.extend(hold.keys.iter().map(bytes));
        let claimed = self.call(&CLAIM_EVENT, Partition::of(&hold.route), keys, arguments).await;
        let (_, values) = claimed.map_err(|failure| unavailable(&failure))?;
        Ok(match values.as_slice() {
            [Value::Int(0), ..] => EventClaim::Claimed,
            [Value::Int(1), ..] => EventClaim::Delivered,
            _ => EventClaim::Busy,
        })
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

    /// Releases the claim of an event. If this fails, the claim ends with its lease.
    pub(super) async fn release_event(&self, hold: &EventHold) {
        if hold.keys.is_empty() {
            return;
        }
        let keys = vec![self.keys.delivering(&hold.route)];
        let mut arguments = vec![hold.lease.to_string().into_bytes()];
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

//! Events that belong to no interaction: which were delivered, and which are being delivered. The events of one route
//! are in one partition, because a message can have several keys, and each of them must be found.

use std::time::Duration;

use redis::Value;

use super::nodes::Failure;
use super::nodes::keys::Partition;
use super::nodes::scripts::{CLAIM_EVENT, COPIED_KEYS, FIND_COPIED, RELEASE_EVENT, SETTLE_EVENT};
use super::records::{jitter, unavailable};
use super::store::RedisStore;
use crate::denial::Refusal;
use crate::interaction::{Ask, ClaimError, EventKey};
use crate::store::event_memory::FingerprintKey;

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
        if self.was_copied(ask.events).await.map_err(ClaimError::Refused)? {
            return Err(ClaimError::Duplicate);
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

    /// Reports whether one of these events was delivered with a ledger in a file that was copied to this one. Such a
    /// ledger knows only the fingerprints of its events.
    async fn was_copied(&self, events: &[EventKey]) -> Result<bool, Refusal> {
        for key in self.copied_keys().await? {
            for event in events {
                let fingerprint = key.fingerprint("", *event);
                let (partition, name) = self.keys.copied(fingerprint);
                let arguments = vec![fingerprint.to_be_bytes().to_vec()];
                let found = self.call(&FIND_COPIED, partition, vec![name], arguments).await;
                if found.map_err(|failure| unavailable(&failure))?.1.first() == Some(&Value::Int(1)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Returns the secret keys of the copied fingerprints. They do not change while a process uses the ledger.
    async fn copied_keys(&self) -> Result<&[FingerprintKey], Refusal> {
        let read = async {
            let keys = vec![self.keys.copied_keys()];
            let (_, values) = self.call(&COPIED_KEYS, Partition::Members, keys, Vec::new()).await?;
            Ok(copied_keys(values.first()))
        };
        let keys = self.copied_keys.get_or_try_init(|| read).await;
        keys.map(Vec::as_slice).map_err(|failure: Failure| unavailable(&failure))
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
        let mut arguments = vec![hold.until.clone()];
        arguments.extend(hold.keys.iter().map(bytes));
        if let Err(failure) = self.call(&RELEASE_EVENT, Partition::of(&hold.route), keys, arguments).await {
            log::warn!("the claim of an event ends only with its lease: {}", failure.reason);
        }
    }
}

/// Parses the secret keys of copied fingerprints.
pub(super) fn copied_keys(value: Option<&Value>) -> Vec<FingerprintKey> {
    let Some(Value::Array(keys)) = value else { return Vec::new() };
    let half = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    let key = |value: &Value| match value {
        Value::BulkString(key) => {
            let (first, second) = key.split_at_checked(size_of::<u64>())?;
            Some(FingerprintKey([half(first)?, half(second)?]))
        }
        _ => None,
    };
    keys.iter().filter_map(key).collect()
}

fn micros(duration: Duration) -> Vec<u8> {
    duration.as_micros().to_string().into_bytes()
}

fn bytes(event: &EventKey) -> Vec<u8> {
    event.0.to_be_bytes().to_vec()
}

//! Events that belong to no interaction: delivered events, and events that are being delivered. An event can have
//! several keys, and one script must find all of them. Therefore all events of a route are in one partition.

use std::time::Duration;

use redis::Value;

use super::nodes::Failure;
use super::nodes::keys::Partition;
use super::nodes::message_scripts::ACCEPT_EVENT;
use super::nodes::scripts::{CLAIM_EVENT, COPIED_KEYS, FIND_COPIED, RELEASE_EVENT, SETTLE_EVENT};
use super::records::{NewMessage, NotChanged, Placed, no_random_numbers, unavailable};
use super::store::RedisStore;
use crate::denial::Refusal;
use crate::interaction::EventKey;
use crate::random::random;
use crate::store::event_memory::FingerprintKey;

/// The upper bound of lease numbers. The lease of an event has a random number, by which a process recognizes its own
/// lease.
const LEASE_NUMBERS: u64 = 1_000_000;

/// A claimed event that belongs to no interaction.
#[derive(Debug)]
pub(super) struct EventHold {
    route: Box<str>,
    keys: Vec<EventKey>,
    /// The random number of the lease.
    lease: u64,
}

/// The result of an attempt to claim an event that belongs to no interaction.
#[derive(Debug)]
pub(super) enum EventClaim {
    Claimed,
    Delivered,
    /// Another process delivers the event.
    Busy,
}

impl EventHold {
    /// Returns a claim with a new lease. The Redis server does not have the claim yet.
    pub(super) fn new(route: &str, events: &[EventKey]) -> Result<Self, Refusal> {
        let lease = random::<8>().map(u64::from_be_bytes).ok_or_else(no_random_numbers)? % LEASE_NUMBERS;
        Ok(Self { route: route.into(), keys: events.to_vec(), lease })
    }
}

impl RedisStore {
    /// Claims an event that belongs to no interaction. The lease lasts for `duration`.
    pub(super) async fn claim_event(
        &self,
        hold: &EventHold,
        duration: Duration,
    ) -> Result<EventClaim, Refusal> {
        if hold.keys.is_empty() {
            return Ok(EventClaim::Claimed);
        }
        if self.was_copied(&hold.keys).await? {
            return Ok(EventClaim::Delivered);
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

    /// Reports whether one of these events was delivered while the ledger was in a file. When such a ledger is copied
    /// to Redis or Valkey, only the fingerprints of its events are copied.
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

    /// Returns the secret keys of the copied fingerprints. When a ledger in a file is copied, the fingerprints of its
    /// events are copied together with their secret key. The secret keys do not change while a process uses the ledger.
    async fn copied_keys(&self) -> Result<&[FingerprintKey], Refusal> {
        let read = async {
            let keys = vec![self.keys.copied_keys()];
            let (_, values) = self.call(&COPIED_KEYS, Partition::Members, keys, Vec::new()).await?;
            Ok(copied_keys(values.first()))
        };
        let keys = self.copied_keys.get_or_try_init(|| read).await;
        keys.map(Vec::as_slice).map_err(|failure: Failure| unavailable(&failure))
    }

    /// Records that a claimed event was delivered.
    pub(super) async fn settle_event(&self, hold: &EventHold) -> Result<(), Refusal> {
        if hold.keys.is_empty() {
            return Ok(());
        }
        let keys = vec![self.keys.delivered(&hold.route), self.keys.delivering(&hold.route)];
        let mut arguments =
            vec![micros(self.settings.remember), self.settings.events_max.to_string().into_bytes()];
        arguments.extend(hold.keys.iter().map(bytes));
        // A repetition has the same effect, so a call with an unknown outcome is repeated.
        let mut settled =
            self.call(&SETTLE_EVENT, Partition::of(&hold.route), keys.clone(), arguments.clone()).await;
        if settled.as_ref().is_err_and(|failure| failure.may_have_happened) {
            settled = self.call(&SETTLE_EVENT, Partition::of(&hold.route), keys, arguments).await;
        }
        settled.map(|_| ()).map_err(|failure| unavailable(&failure))
    }

    /// Records that the callback of a claimed event was queued in the inbox, and stores its message in the same change.
    /// Returns where the message was stored, or `None` if the response of the Redis server does not contain this.
    pub(super) async fn keep_event(
        &self,
        hold: &EventHold,
        message: &NewMessage,
    ) -> Result<Option<Placed>, NotChanged> {
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
        // A repetition has the same effect, so a call with an unknown outcome is repeated.
        let mut kept = self.call(&ACCEPT_EVENT, partition, keys.clone(), arguments.clone()).await;
        let is_repeat = kept.as_ref().is_err_and(|failure| failure.may_have_happened);
        if is_repeat {
            kept = self.call(&ACCEPT_EVENT, partition, keys, arguments).await;
        }
        let not_changed = |failure: Failure| NotChanged {
            may_have_happened: is_repeat || failure.may_have_happened,
            refusal: unavailable(&failure),
        };
        let (_, values) = kept.map_err(not_changed)?;
        Ok(Placed::read(values.into_iter()))
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

/// Parses the secret keys of the copied fingerprints.
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

#[cfg(test)]
mod tests {
    use super::super::simulation::SimulatedLedger;
    use super::*;
    use crate::store::content::{Content, CopyReport, Loose, LooseEvent};

    #[tokio::test(start_paused = true)]
    async fn an_event_that_was_copied_from_a_file_is_a_duplicate_until_the_end_of_its_retention() {
        let (_, [store]) = SimulatedLedger::start(|_| {}).await;
        let (secrets, other) = ([[1, 2], [3, 4]].map(FingerprintKey), EventKey(9));
        let now = store.clock.now().unwrap();
        let loose = [(secrets[0], 1, 600), (secrets[1], 2, 900)].map(|(secret, number, seconds)| Loose {
            event: LooseEvent::Fingerprint(secret, secret.fingerprint("", EventKey(number))),
            until: now.plus(Duration::from_secs(seconds)),
        });
        let content = Content { loose: loose.to_vec(), ..Content::default() };
        store.write_all(content, &mut CopyReport::default()).await.unwrap();
        for (seconds, copied) in [(0, [true, true]), (601, [false, true]), (300, [false, false])] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            let mut found = [false; 2];
            for (number, found) in (1..).zip(&mut found) {
                *found = store.was_copied(&[other, EventKey(number)]).await.unwrap();
                let hold = EventHold::new("r", &[EventKey(number)]).unwrap();
                if *found {
                    let claimed = store.claim_event(&hold, Duration::from_secs(5)).await.unwrap();
                    assert!(matches!(claimed, EventClaim::Delivered), "{claimed:?}");
                }
            }
            assert_eq!(found, copied, "after {seconds} s more");
            assert!(!store.was_copied(&[other]).await.unwrap());
        }
    }
}

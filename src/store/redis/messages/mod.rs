//! The messages of the inbox on Redis or Valkey. Each message has a holder: the process that delivers the message and
//! has it in its index. Every change names the holder. A process that was wrongly considered dead can therefore not
//! change messages that another process holds now.

mod adopt;
#[cfg(test)]
mod adopt_tests;
mod values;

use std::time::Duration;

use redis::Value;
use sha2::{Digest, Sha256};

use self::values::text;
use super::nodes::Failure;
use super::nodes::keys::Partition;
use super::nodes::message_scripts::{APPLY, BEGIN, MESSAGES, NUMBER};
use super::records::{Placed, unavailable};
use super::store::RedisStore;
use crate::denial::Refusal;
use crate::time::Timestamp;

pub(in crate::store) use self::adopt::{KnownMessages, Suspects, TakenOver};

/// The maximum number of messages that one call to the Redis server changes or reads.
const PER_CALL: usize = 100;

/// A change of the state of a message, or the removal of the message.
#[derive(Clone, Debug)]
pub(in crate::store) struct MessageChange {
    pub(in crate::store) number: u64,
    pub(in crate::store) id: Box<str>,
    /// The new state of the message (JSON). If it is empty, the message is removed.
    pub(in crate::store) state: Vec<u8>,
    /// The time of the next attempt, or of the end of the retention, in Unix milliseconds.
    pub(in crate::store) at: i64,
    pub(in crate::store) is_waiting: bool,
    pub(in crate::store) is_dead: bool,
}

/// The result of applying changes of messages.
#[derive(Debug, Default)]
pub(in crate::store) struct Applied {
    /// The numbers of the messages that this process does not hold any more. They were not changed.
    pub(in crate::store) lost: Vec<u64>,
    /// The ids of the next waiting messages in the interactions of the changed messages.
    pub(in crate::store) next: Vec<String>,
}

/// The error if the Redis server has not accepted changes of messages.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct NotApplied {
    /// Whether some of the changes may have been made, or may still be made.
    pub(in crate::store) may_have_happened: bool,
}

/// A message without its body, as the ledger contains it.
#[derive(Debug)]
pub(in crate::store) struct StoredHead {
    pub(in crate::store) id: String,
    pub(in crate::store) head: Vec<u8>,
    pub(in crate::store) state: Vec<u8>,
    pub(in crate::store) body_bytes: u64,
    /// The remaining duration of the lease, if another process has leased the message for an attempt or a pull.
    /// Otherwise zero.
    pub(in crate::store) leased_for: Duration,
}

/// The stored head, body and state of a message.
pub(in crate::store) type StoredParts = (Vec<u8>, Vec<u8>, Vec<u8>);

impl RedisStore {
    /// Returns the secret key with which the fingerprints in message ids are computed. All processes that share the
    /// ledger have the same key. Returns `None` if the Redis server has never responded.
    pub(in crate::store) fn message_key(&self) -> Option<[u64; 2]> {
        let ledger = self.members.lock().ledger.clone()?;
        let digest = Sha256::digest([b"callgate inbox ", ledger.as_slice()].concat());
        let (first, rest) = digest.split_first_chunk::<8>()?;
        Some([u64::from_be_bytes(*first), u64::from_be_bytes(*rest.first_chunk::<8>()?)])
    }

    /// Generates the number of a new message. `of` is the interaction of the message, or its route if it has no
    /// interaction. The numbers of one interaction ascend.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the Redis server does not respond.
    pub(in crate::store) async fn message_number(&self, of: &str) -> Result<u64, Refusal> {
        let partition = Partition::of(of);
        let Partition::Number(place) = partition else { return Ok(0) };
        let keys = vec![self.keys.message_number(partition)];
        let drawn = self.call(&NUMBER, partition, keys, Vec::new()).await;
        let (_, values) = drawn.map_err(|failure| unavailable(&failure))?;
        let count = match values.first() {
            Some(Value::Int(count)) => u64::try_from(*count).unwrap_or_default(),
            _ => 0,
        };
        Ok(count.saturating_mul(super::nodes::keys::PARTITIONS as u64).saturating_add(place.into()))
    }

    /// Reports whether the Redis server may be used and one of its nodes responds, so that attempts may begin.
    pub(in crate::store) fn answers(&self) -> bool {
        !self.health.is_silent(&self.nodes.addresses()) && self.health.why_unusable().is_none()
    }

    /// Begins an attempt or a pull of a message, with a lease. Sets the state of the message unless `state` is empty.
    /// Returns the message, or `None` if this process does not hold the message any more.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub(in crate::store) async fn begin_message(
        &self,
        number: u64,
        id: &str,
        lease: Duration,
        state: Vec<u8>,
    ) -> Result<Option<StoredParts>, String> {
        self.message(number, id, &self.incarnation, (lease, state)).await
    }

    /// Reads a message, even if another process holds it. Returns `None` if the message does not exist.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub(in crate::store) async fn read_message(
        &self,
        number: u64,
        id: &str,
    ) -> Result<Option<StoredParts>, String> {
        self.message(number, id, "", (Duration::ZERO, Vec::new())).await
    }

    async fn message(
        &self,
        number: u64,
        id: &str,
        holder: &str,
        (lease, state): (Duration, Vec<u8>),
    ) -> Result<Option<StoredParts>, String> {
        let partition = Partition::of_message(number);
        let lease = lease.as_millis().to_string().into_bytes();
        let arguments = vec![id.as_bytes().to_vec(), holder.as_bytes().to_vec(), lease, state];
        let called = self.call(&BEGIN, partition, vec![self.keys.messages_due(partition)], arguments).await;
        let (_, values) = called.map_err(|failure| failure.reason)?;
        let mut parts = values.into_iter().skip(1).map(|value| match value {
            Value::BulkString(bytes) => bytes,
            _ => Vec::new(),
        });
        Ok(parts
            .next()
            .map(|head| (head, parts.next().unwrap_or_default(), parts.next().unwrap_or_default())))
    }

    /// Applies changes to messages of one partition, in the given order.
    ///
    /// # Errors
    /// Returns [`NotApplied`] if the Redis server has not accepted the changes. The same changes can be applied again.
    pub(in crate::store) async fn apply(&self, changes: &[MessageChange]) -> Result<Applied, NotApplied> {
        let mut applied = Applied::default();
        for (call, some) in changes.chunks(PER_CALL).enumerate() {
            let Some(first) = some.first() else { continue };
            let partition = Partition::of_message(first.number);
            let mut arguments = vec![self.incarnation.as_bytes().to_vec()];
            for change in some {
                arguments.push(change.id.as_bytes().to_vec());
                arguments.push(change.state.clone());
                arguments.push(change.at.to_string().into_bytes());
                arguments.push(match change {
                    MessageChange { is_waiting: true, .. } => b"1".to_vec(),
                    MessageChange { is_dead: true, .. } => b"d".to_vec(),
                    _ => Vec::new(),
                });
            }
            let keys = vec![self.keys.messages_due(partition)];
            let called = self.call(&APPLY, partition, keys, arguments).await;
            let not_applied =
                |failure: Failure| NotApplied { may_have_happened: call > 0 || failure.may_have_happened };
            let (_, values) = called.map_err(not_applied)?;
            let Some(Value::Array(results)) = values.into_iter().next() else { continue };
            for (change, result) in some.iter().zip(results) {
                match result {
                    Value::Array(ids) => applied.next.extend(ids.into_iter().filter_map(text)),
                    _ => applied.lost.push(change.number),
                }
            }
        }
        Ok(applied)
    }

    /// Reads the messages with these ids, without their bodies. Omits messages that this process does not hold. All
    /// messages must be in the same partition as the message number `number`.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub(in crate::store) async fn heads(
        &self,
        number: u64,
        ids: &[String],
    ) -> Result<Vec<StoredHead>, String> {
        let partition = Partition::of_message(number);
        let mut heads = Vec::with_capacity(ids.len());
        for some in ids.chunks(PER_CALL) {
            let mut arguments = vec![self.incarnation.as_bytes().to_vec()];
            arguments.extend(some.iter().map(|id| id.as_bytes().to_vec()));
            let keys = vec![self.keys.messages_due(partition)];
            let called = self.call(&MESSAGES, partition, keys, arguments).await;
            let (now, values) = called.map_err(|failure| failure.reason)?;
            let Some(Value::Array(found)) = values.into_iter().next() else { continue };
            heads.extend(found.into_iter().filter_map(|value| stored_head(value, now)));
        }
        Ok(heads)
    }

    /// Reports whether this process holds a message, according to `placed`, the result of storing the message.
    pub(in crate::store) fn holds(&self, placed: &Placed) -> bool {
        placed.holder == self.incarnation.as_bytes()
    }

    /// Returns the address of the node that has a partition.
    pub(in crate::store) fn node_of_partition(&self, partition: u64) -> Box<str> {
        self.nodes.node_of(Partition::of_message(partition))
    }
}

fn stored_head(value: Value, now: Timestamp) -> Option<StoredHead> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = text(parts.next()?)?;
    let (Value::BulkString(head), Value::Int(size)) = (parts.next()?, parts.next()?) else { return None };
    let Value::BulkString(state) = parts.next()? else { return None };
    let lease = text(parts.next()?)?.parse::<i64>().unwrap_or_default().saturating_sub(now.unix_ms());
    Some(StoredHead {
        id,
        head,
        state,
        body_bytes: u64::try_from(size).unwrap_or_default(),
        leased_for: Duration::from_millis(u64::try_from(lease).unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::members::Members;
    use super::super::simulation::SimulatedLedger;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_key_of_message_ids_depends_on_the_ledger_alone() {
        let (_, [one, other]) = SimulatedLedger::start(|_| {}).await;
        assert!(one.message_key().is_some());
        assert_eq!(one.message_key(), other.message_key());
        let named = |ledger: Option<&str>| {
            let ledger = ledger.map(|name| name.as_bytes().to_vec());
            *other.members.lock() = Arc::new(Members { ledger, ..Members::default() });
            other.message_key()
        };
        assert_ne!(named(Some("another")), one.message_key());
        assert_ne!(named(Some("another")), named(Some("a third")));
        assert_eq!(named(None), None, "the name of the ledger is unknown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_holds_only_the_messages_that_were_placed_at_it() {
        let (_, [one, other]) = SimulatedLedger::start(|_| {}).await;
        let placed = Placed::at(&one, Vec::new());
        assert_eq!((one.holds(&placed), other.holds(&placed)), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_begin_while_a_node_answers_and_the_store_may_be_used() {
        let nodes = ["a:1", "b:1"].map(Box::from).to_vec();
        let start = SimulatedLedger::start(|settings| settings.redis.as_mut().unwrap().nodes = nodes);
        let (_, [store]) = start.await;
        let failure = Failure::unknown("silent");
        for (node, failure, answers) in [
            ("a:1", None, true),
            ("a:1", Some(&failure), true),
            ("b:1", Some(&failure), false),
            ("a:1", None, true),
        ] {
            store.health.called(|| node.into(), false, failure);
            assert_eq!(store.answers(), answers, "{node}, {failure:?}");
        }
        for (fault, answers) in [(Some("it is a replica".to_owned()), false), (None, true)] {
            store.health.judged(fault);
            assert_eq!(store.answers(), answers);
        }
    }
}

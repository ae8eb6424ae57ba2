//! Reads and changes the records of a shared ledger. To change a record, a process reads the record, decides on the new
//! content, and writes it if no other process has changed the record meanwhile. Otherwise, the process reads the record
//! again and decides again.

mod new_message;
mod versioned_record;

use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use self::versioned_record::{Unreadable, Version, decode, encode};
use super::nodes::Failure;
use super::nodes::Request;
use super::nodes::keys::Partition;
use super::nodes::message_scripts::ACCEPT;
use super::nodes::scripts::{CAS, Call, LOAD};
use super::store::RedisStore;
use crate::denial::{Denial, Refusal};
use crate::interaction::{EventKey, SharedRecord};
use crate::random::random;
use crate::time::Timestamp;

pub(in crate::store) use self::new_message::{NewMessage, Placed};
pub(super) use self::versioned_record::FORMAT;

/// The maximum number of attempts to change a record. An attempt fails if another process has changed the record
/// meanwhile.
const ATTEMPTS_MAX: u32 = 16;
/// The maximum pause after the first conflict with another process, in milliseconds. The maximum doubles with each
/// further conflict.
const CONFLICT_PAUSE_MS: u64 = 4;
/// The number of conflicts after which the maximum pause does not double any more.
const DOUBLINGS_MAX: u32 = 4;
/// The maximum number of delivered events of one interaction that are stored outside its record.
const EVENTS_MAX: usize = 10_000;

/// The record of an interaction as it was read from a shared ledger.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// The time of the Redis server when the record was read.
    pub(super) now: Timestamp,
    version: Option<Version>,
    pub(super) record: Option<SharedRecord>,
    /// The delivered events that are stored outside the record, limited to the events that the caller asked for.
    known: Vec<EventKey>,
    /// Where the message of the change was stored. `None` if there is no message, or if the response was lost.
    pub(super) placed: Option<Placed>,
}

/// The record of an interaction that is being changed, and the other changes of the same step.
#[derive(Debug)]
pub(super) struct Draft {
    /// The time of the Redis server.
    pub(super) now: Timestamp,
    /// The record. `None` if the record does not exist.
    pub(super) record: Option<SharedRecord>,
    /// The delivered events that must be stored outside the record.
    pub(super) surplus: Vec<EventKey>,
    /// The message that is stored in the same step.
    pub(super) message: Option<NewMessage>,
    /// The time of the next check of the record. `None` means the next deadline of the record.
    pub(super) look_again: Option<Timestamp>,
    /// Whether an earlier attempt may have been executed, so that the record may contain the effect of that attempt.
    pub(super) is_repeat: bool,
    /// The delivered events that are stored outside the record, limited to the events that the caller asked for.
    pub(super) known: Vec<EventKey>,
}

/// The error if a change was refused, or if it is unknown whether the change was recorded.
#[derive(Debug)]
pub(in crate::store) struct NotChanged {
    /// Whether the change may have been recorded, or may still be recorded.
    pub(in crate::store) may_have_happened: bool,
    pub(in crate::store) refusal: Refusal,
}

impl NotChanged {
    pub(in crate::store) fn for_certain(refusal: Refusal) -> Self {
        Self { may_have_happened: false, refusal }
    }
}

/// The decision to leave a record unchanged, to write it or to remove it. The value of type `T` is returned to the
/// caller.
pub(super) enum Decision<T> {
    Keep(T),
    Write(T),
    Remove(T),
}

impl Loaded {
    /// Returns the loaded state of an interaction that does not exist yet.
    pub(super) fn nothing(now: Timestamp) -> Self {
        Self { now, version: None, record: None, known: Vec::new(), placed: None }
    }
}

impl RedisStore {
    /// Calls a script. Returns the time of the Redis server and the other values that the script returns.
    pub(super) async fn call(
        &self,
        call: &'static Call,
        partition: Partition,
        keys: Vec<String>,
        arguments: Vec<Vec<u8>>,
    ) -> Result<(Timestamp, Vec<Value>), Failure> {
        let request = Request { call, partition, keys, arguments };
        let result = self.nodes.call(&request).await;
        self.health.called(|| self.nodes.node_of(partition), call.writes, result.as_ref().err());
        let mut values = result?;
        match values.first() {
            Some(Value::Int(us)) => {
                let us = *us;
                self.clock.observe(us);
                values.remove(0);
                Ok((Timestamp::from_unix_ms(us / 1000), values))
            }
            _ => Err(Failure::refused("the engine returned no time")),
        }
    }

    /// Reads the record of an interaction, and which of `events` were delivered and are stored outside the record.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the record cannot be read.
    pub(super) async fn load(&self, id: &str, events: &[EventKey]) -> Result<Loaded, Refusal> {
        let keys = vec![self.keys.record(id), self.keys.events(id)];
        let asked = events.iter().map(|event| event.0.to_be_bytes().to_vec()).collect();
        let loaded = self.call(&LOAD, Partition::of(id), keys, asked).await;
        let (now, values) = loaded.map_err(|failure| unavailable(&failure))?;
        let mut values = values.into_iter();
        let (version, mut record) = match values.next() {
            Some(Value::BulkString(bytes)) => {
                let (version, record) = decode(&bytes).map_err(unreadable)?;
                (Some(version), Some(record))
            }
            _ => (None, None),
        };
        let known = match values.next() {
            Some(Value::Array(scores)) => {
                let is_known = |(event, score): (&EventKey, Value)| (score != Value::Nil).then_some(*event);
                events.iter().zip(scores).filter_map(is_known).collect()
            }
            _ => Vec::new(),
        };
        if let Some(record) = &mut record {
            record.resume(now);
        }
        Ok(Loaded { now, version, record, known, placed: None })
    }

    /// Changes the record of an interaction. `decide` may be called several times, because other processes may change
    /// the record meanwhile. If the record was read or written before, `given` contains it. Returns the result of the
    /// decision, and the record.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the record could not be read or written, or if too few replicas have
    /// confirmed the change.
    pub(super) async fn change<T>(
        &self,
        id: &str,
        events: &[EventKey],
        given: Option<Loaded>,
        decide: impl FnMut(&mut Draft) -> Decision<T>,
    ) -> Result<(T, Loaded), Refusal> {
        self.try_change(id, events, given, decide).await.map_err(|failed| failed.refusal)
    }

    /// Changes a record as [`RedisStore::change`] does, but reports more about a failure.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`, and whether the change may have been recorded.
    pub(super) async fn try_change<T>(
        &self,
        id: &str,
        events: &[EventKey],
        given: Option<Loaded>,
        mut decide: impl FnMut(&mut Draft) -> Decision<T>,
    ) -> Result<(T, Loaded), NotChanged> {
        let (mut given, mut is_repeat, mut written) = (given, false, None);
        let not_changed = |refusal, may_have_happened| NotChanged { may_have_happened, refusal };
        for attempt in 0..ATTEMPTS_MAX {
            let loaded = match given.take() {
                Some(given) => Loaded { now: self.clock.now().unwrap_or(given.now).max(given.now), ..given },
                None => {
                    let loaded = self.load(id, events).await;
                    loaded.map_err(|refusal| not_changed(refusal, is_repeat))?
                }
            };
            let Loaded { now, version, record, known, .. } = loaded;
            if let Some((expected, result)) = written.take()
                && version == Some(expected)
            {
                let loaded = Loaded { now, version, record, known, placed: None };
                self.confirm(id, &loaded).await.map_err(|refusal| not_changed(refusal, true))?;
                return Ok((result, loaded));
            }
            let (surplus, message, look_again) = (Vec::new(), None, None);
            let mut draft = Draft { now, record, surplus, message, look_again, is_repeat, known };
            let (result, removes) = match decide(&mut draft) {
                Decision::Keep(result) => {
                    let Draft { now, record, known, .. } = draft;
                    let loaded = Loaded { now, version, record, known, placed: None };
                    if is_repeat {
                        self.confirm(id, &loaded).await.map_err(|refusal| not_changed(refusal, true))?;
                    }
                    return Ok((result, loaded));
                }
                Decision::Write(result) => (result, false),
                Decision::Remove(result) => (result, true),
            };
            let new = random::<8>().ok_or_else(|| not_changed(no_random_numbers(), is_repeat))?;
            match self.compare_and_set(id, version, new, &draft, removes).await {
                Ok((true, placed)) => {
                    let Draft { now, record, known, .. } = draft;
                    let (version, record) = if removes { (None, None) } else { (Some(new), record) };
                    return Ok((result, Loaded { now, version, record, known, placed }));
                }
                Ok((false, _)) => {
                    self.metrics.store_conflict();
                    sleep(jitter(CONFLICT_PAUSE_MS << attempt.min(DOUBLINGS_MAX))).await;
                }
                Err(failure) if failure.may_have_happened => {
                    is_repeat = true;
                    written = Some((new, result));
                }
                Err(failure) => return Err(not_changed(unavailable(&failure), is_repeat)),
            }
        }
        let detail = "other processes change the interaction all the time";
        Err(not_changed(Refusal::new(Denial::StoreUnavailable, detail), is_repeat))
    }

    /// Writes a record if it still has the version `expected`. Returns whether the Redis server has the new record, and
    /// where the message of the change was stored.
    async fn compare_and_set(
        &self,
        id: &str,
        expected: Option<Version>,
        new: Version,
        draft: &Draft,
        removes: bool,
    ) -> Result<(bool, Option<Placed>), Failure> {
        let partition = Partition::of(id);
        let mut keys = vec![self.keys.record(id), self.keys.due(partition), self.keys.events(id)];
        let (bytes, due) = match &draft.record {
            Some(record) if !removes => {
                (encode(new, record), draft.look_again.unwrap_or_else(|| record.next_look(draft.now)))
            }
            _ => (Vec::new(), draft.now),
        };
        let mut arguments = vec![
            expected.map_or_else(Vec::new, |version| version.to_vec()),
            bytes,
            due.unix_ms().to_string().into_bytes(),
            id.as_bytes().to_vec(),
            EVENTS_MAX.to_string().into_bytes(),
        ];
        let surplus = draft.surplus.iter().map(|event| event.0.to_be_bytes().to_vec());
        let call = match &draft.message {
            None => {
                arguments.extend(surplus);
                &CAS
            }
            Some(message) => {
                keys.insert(0, self.keys.messages_due(partition));
                arguments.push(draft.surplus.len().to_string().into_bytes());
                arguments.extend(surplus);
                arguments.extend(message.arguments(&self.incarnation));
                &ACCEPT
            }
        };
        let (_, values) = self.call(call, partition, keys, arguments).await?;
        if !removes {
            self.due.expect(partition, due);
        }
        let mut values = values.into_iter();
        let is_written = values.next() == Some(Value::Int(1));
        Ok((is_written, Placed::read(values)))
    }
}

/// Parses a record from the bytes that the Redis server stores. `now` is the time of the server. Returns `None` if this
/// version of Callgate cannot read the record.
pub(super) fn parse_record(bytes: &[u8], now: Timestamp) -> Option<SharedRecord> {
    let (_, mut record) = decode(bytes).ok()?;
    record.resume(now);
    Some(record)
}

/// Returns a random duration below `most_ms` milliseconds.
pub(super) fn jitter(most_ms: u64) -> Duration {
    let drawn = random::<8>().map_or(0, u64::from_be_bytes);
    Duration::from_micros(drawn % (most_ms * 1000).max(1))
}

pub(super) fn unavailable(failure: &Failure) -> Refusal {
    Refusal::new(Denial::StoreUnavailable, format!("the store is not available: {}", failure.reason))
}

fn unreadable(unreadable: Unreadable) -> Refusal {
    let detail = match unreadable {
        Unreadable::Format(format) => {
            format!("a later version of Callgate has written the record (format {format})")
        }
        Unreadable::Damaged => "the record is damaged".to_owned(),
    };
    Refusal::new(Denial::StoreUnavailable, detail)
}

pub(super) fn no_random_numbers() -> Refusal {
    Refusal::new(Denial::StoreUnavailable, "the system provides no random numbers")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_durations_of_pauses_are_random_and_limited() {
        for most_ms in [1, 25, 500] {
            let drawn: BTreeSet<_> = (0..1000).map(|_| jitter(most_ms)).collect();
            let (first, last) = (*drawn.first().unwrap(), *drawn.last().unwrap());
            let limit = Duration::from_millis(most_ms);
            assert!(
                last < limit && last > limit / 2 && first < limit / 2,
                "{first:?}, {last:?} of {limit:?}"
            );
        }
        assert_eq!(jitter(0), Duration::ZERO);
    }
}

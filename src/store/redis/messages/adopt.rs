//! Takes over the messages of dead processes, finds messages that this process holds although they are not in its
//! index, and moves the messages of one interaction to this process.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::values::text;
use crate::store::redis::nodes::Failure;
use crate::store::redis::nodes::keys::{PARTITIONS, Partition};
use crate::store::redis::nodes::message_scripts::{ADOPT, HOLDERS, TAKE, TAKE_ONE, UNDELIVERED, WAITING};
use crate::store::redis::store::RedisStore;
use crate::time::Timestamp;

/// The maximum number of messages that one call of the script `ADOPT` checks.
const ADOPTED_PER_CALL: usize = 500;
/// The time for which a process must count as dead before its messages are taken over. After an outage of Redis or
/// Valkey, the living processes send heartbeats within this time.
const SUSPECTED_FOR: Duration = Duration::from_secs(2);
/// The interval at which the holders of messages are checked even if no process seems to be dead.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The processes that hold messages and seem to be dead, and the state of the search for their messages.
#[derive(Debug, Default)]
pub(in crate::store) struct Suspects {
    /// The time since which a process seems to be dead, by the id of the process.
    since: HashMap<Box<str>, Timestamp>,
    /// The ids of the living processes at the last search.
    living: Vec<Box<str>>,
    looked_at: Option<Timestamp>,
    /// The partitions in which, at the last search, the number of messages that this process holds differed from the
    /// number in its index.
    differing: Vec<u8>,
}

/// The messages in the index of this process.
pub(in crate::store) trait KnownMessages {
    /// Returns the number of messages in the index, for each partition.
    fn counts(&self) -> Vec<usize>;

    /// Returns the numbers of the messages of a partition that are in the index, are not leased, and have no change in
    /// progress.
    fn idle(&self, partition: u8) -> Vec<u64>;
}

/// The result of a search for messages that no process delivers.
#[derive(Debug, Default)]
pub(in crate::store) struct Orphans {
    /// The messages that this process holds now.
    pub(in crate::store) found: Vec<TakenOver>,
    /// One pair for each partition in which the index differs from the ledger. The first value contains the numbers of
    /// the messages that were in the index before the search, were not leased and had no change in progress. The second
    /// value contains the ids of the messages that this process holds in the ledger.
    pub(in crate::store) held: Vec<(Vec<u64>, Vec<String>)>,
}

/// Messages that this process holds now. All of them are in the same partition.
#[derive(Debug)]
pub(in crate::store) struct TakenOver {
    /// The number of the partition: the number of each message modulo [`PARTITIONS`].
    pub(in crate::store) partition: u64,
    pub(in crate::store) ids: Vec<String>,
}

impl RedisStore {
    /// Searches for messages that no process delivers. Takes over the messages of dead processes in the partitions for
    /// which this process is responsible.
    ///
    /// Also compares the index of this process with the ledger. This process may hold a message that is not in the
    /// index, because the response to the call that stored the message was lost. The index may contain a message that
    /// this process does not hold any more, because the agent has acknowledged or returned it at another process.
    pub(in crate::store) async fn take_over_orphans(
        &self,
        suspects: &mut Suspects,
        known: &impl KnownMessages,
    ) -> Orphans {
        let Some(now) = self.clock.now().filter(|_| self.answers()) else { return Orphans::default() };
        let living = self.members.lock().names(now);
        let is_due = suspects.looked_at.is_none_or(|at| now >= at.plus(LOOK_INTERVAL));
        if !is_due && suspects.since.is_empty() && suspects.living == living {
            return Orphans::default();
        }
        let counts = if is_due { known.counts() } else { Vec::new() };
        if is_due {
            suspects.looked_at = Some(now);
        }
        suspects.living = living;
        let is_outdated = self.members.lock().is_outdated(now);
        if is_outdated {
            // The list of processes is outdated while no process can send a heartbeat. When heartbeats are possible
            // again, each process gets time to send a heartbeat before it counts as dead.
            suspects.since.clear();
        }
        let before = suspects.since.len();
        let watched = self.members.lock().first_watched(&self.incarnation, now);
        let (mut orphans, mut holders_seen, mut differing) = (Orphans::default(), Vec::new(), Vec::new());
        let mut silent = Vec::new();
        for (number, is_watched) in (0_u8..).zip(watched) {
            let node = self.nodes.node_of(Partition::Number(number));
            if (!is_watched && !is_due) || silent.contains(&node) {
                continue;
            }
            let Some(holders) = self.holders(number).await else {
                silent.push(node);
                continue;
            };
            let own = holders.iter().find(|(holder, _)| **holder == *self.incarnation);
            let known_count = counts.get(usize::from(number)).copied().unwrap_or_default();
            if is_due && own.map_or(0, |(_, count)| *count) != known_count {
                differing.push(number);
                // A message that is being accepted is in the ledger before it is in the index. The messages are
                // therefore compared only if the numbers also differed at the last search.
                if suspects.differing.contains(&number) {
                    self.compare(number, known, &mut orphans).await;
                }
            }
            for (holder, _) in holders.into_iter().filter(|(holder, _)| **holder != *self.incarnation) {
                if is_watched && !is_outdated && self.is_gone(&holder, suspects, now) {
                    orphans.found.extend(self.take_over(number, &holder).await);
                }
                holders_seen.push(holder);
            }
        }
        if is_due {
            suspects.differing = differing;
        }
        if suspects.since.len() > before {
            // A process that has just started may be missing in the list, so the list is read again.
            self.beat().await;
        }
        let members = std::sync::Arc::clone(&self.members.lock());
        let is_seen = |holder: &str| !silent.is_empty() || holders_seen.iter().any(|seen| **seen == *holder);
        suspects.since.retain(|holder, _| is_seen(holder) && !members.lives(holder, now));
        orphans
    }

    /// Compares the messages that this process holds in a partition with the messages in its index. Adds the result to
    /// `orphans`.
    async fn compare(&self, number: u8, known: &impl KnownMessages, orphans: &mut Orphans) {
        let idle = known.idle(number);
        let (own, is_complete) = self.adopt(number, &self.incarnation).await;
        if is_complete {
            let ids = own.iter().flat_map(|taken| taken.ids.iter().cloned()).collect();
            orphans.held.push((idle, ids));
        }
        orphans.found.extend(own);
    }

    /// Returns the messages that this process holds in a partition.
    pub(in crate::store) async fn own_messages(&self, partition: u64) -> Vec<TakenOver> {
        let number = u8::try_from(partition).unwrap_or_default();
        self.adopt(number, &self.incarnation).await.0
    }

    /// Reports whether a process that holds messages has counted as dead for at least [`SUSPECTED_FOR`].
    fn is_gone(&self, holder: &str, suspects: &mut Suspects, now: Timestamp) -> bool {
        if self.members.lock().lives(holder, now) {
            return false;
        }
        let since = *suspects.since.entry(holder.into()).or_insert(now);
        now >= since.plus(SUSPECTED_FOR)
    }

    /// Returns the processes that hold messages of a partition, each with the number of its messages. Returns `None` if
    /// the Redis server does not respond.
    async fn holders(&self, number: u8) -> Option<Vec<(Box<str>, usize)>> {
        let partition = Partition::Number(number);
        let called =
            self.call(&HOLDERS, partition, vec![self.keys.messages_due(partition)], Vec::new()).await;
        let (_, values) = called.ok()?;
        let Some(Value::Array(pairs)) = values.into_iter().next() else { return Some(Vec::new()) };
        let mut texts = pairs.into_iter().map(|value| text(value).unwrap_or_default());
        let mut holders = Vec::new();
        while let (Some(holder), Some(count)) = (texts.next(), texts.next()) {
            holders.push((holder.into(), count.parse().unwrap_or_default()));
        }
        Some(holders)
    }

    /// Takes over the messages that a dead process holds in a partition. Returns the messages that this process holds
    /// now.
    async fn take_over(&self, number: u8, holder: &str) -> Vec<TakenOver> {
        let (found, _) = self.adopt(number, holder).await;
        let count: usize = found.iter().map(|taken| taken.ids.len()).sum();
        if count > 0 {
            log::warn!(
                "{count} messages of the inbox are taken over from the member {holder}, which is gone"
            );
        }
        found
    }

    /// Moves the messages that a process holds in a partition to this process. If `holder` is this process, only
    /// returns its messages. Also returns whether the result is complete.
    async fn adopt(&self, number: u8, holder: &str) -> (Vec<TakenOver>, bool) {
        let partition = Partition::Number(number);
        let (mut found, mut offset, mut is_complete) = (Vec::new(), 0_usize, false);
        loop {
            let arguments = [holder, &self.incarnation, &offset.to_string(), &ADOPTED_PER_CALL.to_string()]
                .map(|argument| argument.as_bytes().to_vec());
            let keys = vec![self.keys.messages_due(partition)];
            let Ok((_, values)) = self.call(&ADOPT, partition, keys, arguments.to_vec()).await else { break };
            let mut values = values.into_iter();
            let (Some(Value::Array(ids)), Some(Value::Int(seen))) = (values.next(), values.next()) else {
                break;
            };
            let ids: Vec<_> = ids.into_iter().filter_map(text).collect();
            if !ids.is_empty() {
                found.push(TakenOver { partition: number.into(), ids });
            }
            let seen = usize::try_from(seen).unwrap_or_default();
            offset += seen;
            if seen < ADOPTED_PER_CALL {
                is_complete = true;
                break;
            }
        }
        (found, is_complete)
    }

    /// Moves the waiting messages of an interaction from other processes to this one, unless another process works on
    /// them. With `only_unordered`, moves only messages that do not wait for the earlier messages of their interaction.
    /// Returns the moved messages, and the number of waiting messages that other processes still hold.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub(in crate::store) async fn take_messages(
        &self,
        interaction: &str,
        only_unordered: bool,
    ) -> Result<(TakenOver, usize), String> {
        let partition = Partition::of(interaction);
        let Partition::Number(number) = partition else { return Err("there is no partition".to_owned()) };
        let only = if only_unordered { "1" } else { "" };
        let arguments =
            [interaction, &self.incarnation, only].map(|argument| argument.as_bytes().to_vec()).to_vec();
        let called = self.call(&TAKE, partition, vec![self.keys.messages_due(partition)], arguments).await;
        let (_, values) = called.map_err(|failure| failure.reason)?;
        let mut values = values.into_iter();
        let ids = match values.next() {
            Some(Value::Array(ids)) => ids.into_iter().filter_map(text).collect(),
            _ => Vec::new(),
        };
        let left = match values.next() {
            Some(Value::Int(left)) => usize::try_from(left).unwrap_or_default(),
            _ => 0,
        };
        Ok((TakenOver { partition: number.into(), ids }, left))
    }
}

impl RedisStore {
    /// Moves one message from another process to this one, so that the agent can acknowledge or return the message
    /// here. Returns whether this process holds the message now, and the interaction of the message. Returns `None` if
    /// the message does not exist any more.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub(in crate::store) async fn take_message(
        &self,
        number: u64,
        id: &str,
        interaction: Option<&str>,
    ) -> Result<Option<(bool, Option<Box<str>>)>, String> {
        let partition = Partition::of_message(number);
        let arguments = [id, interaction.unwrap_or_default(), &self.incarnation];
        let arguments = arguments.map(|argument| argument.as_bytes().to_vec()).to_vec();
        let called =
            self.call(&TAKE_ONE, partition, vec![self.keys.messages_due(partition)], arguments).await;
        let (_, values) = called.map_err(|failure| failure.reason)?;
        let mut values = values.into_iter();
        let result = values.next();
        let interaction = values.next().and_then(text).filter(|id| !id.is_empty()).map(Into::into);
        Ok(match result {
            Some(Value::Int(0)) => None,
            result => Some((result == Some(Value::Int(1)), interaction)),
        })
    }

    /// Returns the number of waiting and dead messages of an interaction. Counts the messages of all processes.
    ///
    /// # Errors
    /// Returns a [`Failure`] if the Redis server does not respond.
    pub(in crate::store::redis) async fn undelivered_messages(
        &self,
        interaction: &str,
    ) -> Result<i64, Failure> {
        let partition = Partition::of(interaction);
        let (keys, arguments) =
            (vec![self.keys.messages_due(partition)], vec![interaction.as_bytes().to_vec()]);
        let (_, values) = self.call(&UNDELIVERED, partition, keys, arguments).await?;
        Ok(match values.first() {
            Some(Value::Int(count)) => *count,
            _ => 0,
        })
    }

    /// Returns the ids of the waiting messages of an interaction. Includes the messages of all processes.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub(in crate::store) async fn waiting_messages(&self, interaction: &str) -> Result<Vec<String>, String> {
        let partition = Partition::of(interaction);
        let (keys, arguments) =
            (vec![self.keys.messages_due(partition)], vec![interaction.as_bytes().to_vec()]);
        let called = self.call(&WAITING, partition, keys, arguments).await;
        let (_, values) = called.map_err(|failure| failure.reason)?;
        match values.into_iter().next() {
            Some(Value::Array(ids)) => Ok(ids.into_iter().filter_map(text).collect()),
            _ => Ok(Vec::new()),
        }
    }
}

const _: () = assert!(PARTITIONS <= u8::MAX as usize);

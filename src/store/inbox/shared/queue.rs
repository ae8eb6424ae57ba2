//! The queue of changes of messages in a shared ledger. Each partition has one call at a time, so that a silent node
//! delays only its own partitions. Changes that are queued while the changes of a partition are written become the
//! partition's next batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::doubt::Doubts;
use super::partitions::PARTITIONS;
use crate::inbox::MessageState;
use crate::store::file::Change;
use crate::store::inbox::entry::StoredState;
use crate::store::redis::{MessageChange, RedisStore};

/// The number of queued changes above which no new attempt or pull begins. Requests and attempts in progress can still
/// add changes.
const QUEUE_MAX: usize = 20_000;
/// The time for which the end of an attempt still waits for a durable result after the node of the message has refused
/// the result.
const REFUSED_PATIENCE: Duration = Duration::from_secs(1);
/// The time for which a stopping process waits until the queued changes are durable.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The messages of the inbox on Redis or Valkey, and the queue of their changes.
#[derive(Debug)]
pub(in crate::store) struct SharedMessages {
    pub(in crate::store) store: Arc<RedisStore>,
    queue: Mutex<Queue>,
    /// Notified when there are changes to write.
    pub(super) wake: Notify,
    /// A counter that increases when a batch has become durable, and when a node refuses the changes of a partition.
    written: watch::Sender<u64>,
    pub(super) doubts: Doubts,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    /// The changes that are not being written yet, by partition.
    waiting: BTreeMap<u64, Batch>,
    /// The number of changes in `waiting`.
    count: usize,
    /// The numbers of the messages whose changes are being written, by partition.
    writing: BTreeMap<u64, Vec<u64>>,
    /// The partitions whose last changes were refused, and whether these changes may have been made nevertheless.
    refused: BTreeMap<u64, bool>,
    /// The sequence numbers of the changes that are not durable yet, each with the number of partitions that must still
    /// write them.
    pending: BTreeMap<u64, usize>,
    /// The sequence number of the last queued change.
    sequence: u64,
}

/// The changes that one call writes. All of them belong to the same partition.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<MessageChange>,
    /// The sequence numbers of the changes in this batch.
    sequences: Vec<u64>,
}

impl SharedMessages {
    pub(in crate::store) fn new(store: Arc<RedisStore>, grace: Duration) -> Self {
        let (queue, wake, written) = (Mutex::default(), Notify::new(), watch::Sender::new(0));
        Self { store, queue, wake, written, doubts: Doubts::default(), grace }
    }

    /// Queues changes. Returns the sequence number of these changes. If there are no changes, returns 0, which counts
    /// as durable.
    pub(in crate::store::inbox) fn record(
        &self,
        changes: impl IntoIterator<Item = Change>,
        id: impl Fn(u64) -> String,
    ) -> u64 {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        let (sequence, mut partitions) = (queue.sequence + 1, 0);
        for change in changes.into_iter().filter_map(|change| message_change(change, &id)) {
            let batch = queue.waiting.entry(change.number % PARTITIONS).or_default();
            if batch.sequences.last() != Some(&sequence) {
                batch.sequences.push(sequence);
                partitions += 1;
            }
            batch.changes.push(change);
            queue.count += 1;
        }
        if partitions == 0 {
            return 0;
        }
        queue.sequence = sequence;
        queue.pending.insert(sequence, partitions);
        drop(guard);
        self.wake.notify_one();
        sequence
    }

    pub(in crate::store::inbox) async fn durable(&self, sequence: u64) -> bool {
        let mut written = self.written.subscribe();
        let reached = written.wait_for(|_| !self.queue.lock().pending.contains_key(&sequence));
        timeout(self.grace, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Waits until the result of an attempt is durable. Returns false if the result is neither durable nor refused
    /// after `store.grace`.
    ///
    /// If the node of the message refuses the result, the method waits only for another second, and returns true. The
    /// result stays in the queue, and no new attempt begins at this node. Attempts at this node therefore do not block
    /// attempts at other nodes.
    pub(in crate::store::inbox) async fn ended(&self, sequence: u64, number: u64) -> bool {
        let is_durable = |queue: &Queue| !queue.pending.contains_key(&sequence);
        let is_refused = |queue: &Queue| queue.refused.contains_key(&(number % PARTITIONS));
        let mut written = self.written.subscribe();
        let ended = written.wait_for(|_| {
            let queue = self.queue.lock();
            is_durable(&queue) || is_refused(&queue)
        });
        if !timeout(self.grace, ended).await.is_ok_and(|ended| ended.is_ok()) {
            return false;
        }
        let _ = timeout(REFUSED_PATIENCE, written.wait_for(|_| is_durable(&self.queue.lock()))).await;
        true
    }

    pub(in crate::store::inbox) fn accepts_changes(&self) -> bool {
        self.store.answers() && self.queue.lock().count <= QUEUE_MAX
    }

    /// Reports whether no attempt may begin for a message, because the results of earlier attempts may be lost. This is
    /// the case if the partition of the message has refused its last changes.
    ///
    /// This is also the case if another partition on the same node has refused changes that may have been made
    /// nevertheless. A failover could then undo the changes of all partitions of the node. If the refused changes were
    /// certainly not made, for example because a partition is being moved to another node, attempts in the other
    /// partitions of the node continue.
    pub(in crate::store::inbox) fn is_refused(&self, number: u64) -> bool {
        let refused = self.queue.lock().refused.clone();
        let node = |partition: u64| self.store.node_of_partition(partition);
        let concerns = |(partition, may_have_happened): (u64, bool)| {
            partition == number % PARTITIONS || may_have_happened && node(partition) == node(number)
        };
        !refused.is_empty() && refused.into_iter().any(concerns)
    }

    /// Reports whether a change of the message is not durable yet.
    pub(super) fn is_changing(&self, number: u64) -> bool {
        let (queue, partition) = (self.queue.lock(), number % PARTITIONS);
        let waiting = queue.waiting.get(&partition);
        waiting.is_some_and(|batch| batch.changes.iter().any(|change| change.number == number))
            || queue.writing.get(&partition).is_some_and(|numbers| numbers.contains(&number))
    }

    /// Takes the queued changes out of the queue, except the changes of partitions that are being written. Returns the
    /// number of each partition with its changes.
    pub(super) fn take(&self) -> Vec<(u64, Batch)> {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        let idle = |partition: &u64| !queue.writing.contains_key(partition);
        let idle: Vec<_> = queue.waiting.keys().copied().filter(idle).collect();
        let taken = idle.into_iter().filter_map(|partition| {
            let batch = queue.waiting.remove(&partition)?;
            queue.count -= batch.changes.len();
            let numbers = batch.changes.iter().map(|change| change.number).collect();
            queue.writing.insert(partition, numbers);
            Some((partition, batch))
        });
        taken.collect()
    }

    /// Records that the changes of a partition were refused. `may_have_happened` is true if they may have been made
    /// nevertheless.
    pub(super) fn refused(&self, partition: u64, may_have_happened: bool) {
        let former = {
            let mut queue = self.queue.lock();
            let known = queue.refused.get(&partition).copied();
            queue.refused.insert(partition, may_have_happened || known == Some(true));
            known
        };
        if former.is_none() {
            self.written.send_modify(|count| *count += 1);
        }
    }

    /// Records that the changes of a partition are durable.
    pub(super) fn written(&self, partition: u64, batch: &Batch) {
        let mut queue = self.queue.lock();
        queue.writing.remove(&partition);
        queue.refused.remove(&partition);
        for sequence in &batch.sequences {
            let left = queue.pending.get(sequence).map_or(0, |left| left.saturating_sub(1));
            match left {
                0 => queue.pending.remove(sequence),
                left => queue.pending.insert(*sequence, left),
            };
        }
        drop(queue);
        self.written.send_modify(|count| *count += 1);
        // More changes of the partition may have been queued meanwhile, so the writer is woken.
        self.wake.notify_one();
    }

    /// Waits until all queued changes are durable, but at most for two seconds, because the process stops.
    pub(in crate::store) async fn flush(&self) {
        let mut written = self.written.subscribe();
        let _ = timeout(FLUSH_MAX, written.wait_for(|_| self.queue.lock().pending.is_empty())).await;
    }
}

fn message_change(change: Change, id: &impl Fn(u64) -> String) -> Option<MessageChange> {
    match change {
        Change::MessageGone(number) => {
            let (id, state) = (id(number).into(), Vec::new());
            Some(MessageChange { number, id, state, at: 0, is_waiting: false, is_dead: false })
        }
        Change::MessageState(number, state) => {
            let read: StoredState = serde_json::from_slice(&state).ok()?;
            let (is_waiting, is_dead) = (read.state.is_waiting(), read.state == MessageState::Dead);
            let at = if is_waiting { read.at } else { read.since };
            Some(MessageChange { number, id: id(number).into(), state, at, is_waiting, is_dead })
        }
        // A new message is stored together with its event, and not by this queue. All other kinds of changes occur only
        // if the ledger is in a file.
        _ => None,
    }
}

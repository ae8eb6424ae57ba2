//! The queue of changes. Changes that gather while one batch is written become the next batch.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::store::file::Change;
use crate::store::inbox::entry::StoredState;
use crate::store::redis::{MessageChange, RedisStore};

/// The number of queued changes above which nothing new begins. Above it, only exchanges that have already begun add
/// changes.
const QUEUE_MAX: usize = 20_000;
/// How long the end of the process waits for the queued changes.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The messages on Redis or Valkey.
#[derive(Debug)]
pub(in crate::store) struct SharedMessages {
    pub(in crate::store) store: Arc<RedisStore>,
    queue: Mutex<Queue>,
    /// Notified when there are changes to write.
    pub(super) wake: Notify,
    /// The number of the last durable change.
    pub(super) durable: watch::Sender<u64>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    changes: Vec<MessageChange>,
    /// The number of the last change.
    sequence: u64,
}

impl SharedMessages {
    pub(in crate::store) fn new(store: Arc<RedisStore>, grace: Duration) -> Self {
        let (queue, wake, durable) = (Mutex::default(), Notify::new(), watch::Sender::new(0));
        Self { store, queue, wake, durable, grace }
    }

    /// Queues changes. Returns the number of the last one. If there are none, returns 0, which counts as durable.
    pub(in crate::store::inbox) fn record(
        &self,
        changes: impl IntoIterator<Item = Change>,
        id: impl Fn(u64) -> String,
    ) -> u64 {
        let mut queue = self.queue.lock();
        let before = queue.changes.len();
        for change in changes {
            queue.changes.extend(message_change(change, &id));
        }
        if queue.changes.len() == before {
            return 0;
        }
        queue.sequence += 1;
        let sequence = queue.sequence;
        drop(queue);
        self.wake.notify_one();
        sequence
    }

    pub(in crate::store::inbox) async fn durable(&self, sequence: u64) -> bool {
        let mut durable = self.durable.subscribe();
        let reached = durable.wait_for(|durable| *durable >= sequence);
        timeout(self.grace, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    pub(in crate::store::inbox) fn accepts_changes(&self) -> bool {
        self.store.answers() && self.queue.lock().changes.len() <= QUEUE_MAX
    }

    /// Takes the queued changes. Returns them and the number of the last one.
    pub(super) fn take(&self) -> (Vec<MessageChange>, u64) {
        let mut queue = self.queue.lock();
        (std::mem::take(&mut queue.changes), queue.sequence)
    }

    /// Waits until all queued changes are durable, but not for long: the process ends.
    pub(in crate::store) async fn flush(&self) {
        let sequence = self.queue.lock().sequence;
        let _ = timeout(FLUSH_MAX, self.durable(sequence)).await;
    }
}

fn message_change(change: Change, id: &impl Fn(u64) -> String) -> Option<MessageChange> {
    match change {
        Change::MessageGone(number) => {
            let (id, state) = (id(number).into(), Vec::new());
            Some(MessageChange { number, id, state, at: 0, is_waiting: false })
        }
        Change::MessageState(number, state) => {
            let read: StoredState = serde_json::from_slice(&state).ok()?;
            let is_waiting = read.state.is_waiting();
            let at = if is_waiting { read.at } else { read.since };
            Some(MessageChange { number, id: id(number).into(), state, at, is_waiting })
        }
        // Messages are stored together with their events, and all other changes belong to a file.
        _ => None,
    }
}

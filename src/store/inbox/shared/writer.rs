//! The tasks of an inbox in a shared ledger. One task writes the changes. The other task searches for messages that no
//! process delivers.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::hold::number_in;
use super::partitions::PARTITIONS;
use super::queue::Batch;
use crate::inbox::MessageState;
use crate::store::inbox::Inbox;
use crate::store::inbox::entry::Entry;
use crate::store::redis::{KnownMessages, RedisStore, Suspects, TakenOver};

/// The pause before refused changes are written again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The interval at which a process searches for messages that no process delivers.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the background tasks of an inbox in a shared ledger. The tasks end when the inbox is dropped. Must be called
/// within a tokio runtime.
pub(in crate::store) fn start(inbox: &Arc<Inbox>) {
    tokio::spawn(write(Arc::downgrade(inbox)));
    tokio::spawn(take_over(Arc::downgrade(inbox)));
}

async fn write(inbox: Weak<Inbox>) {
    let mut tasks = JoinSet::new();
    loop {
        let Some(strong) = inbox.upgrade() else { return };
        let Some(shared) = strong.backing.shared() else { return };
        for (partition, batch) in shared.take() {
            tasks.spawn(write_partition(inbox.clone(), Arc::clone(&shared.store), partition, batch));
        }
        // The wait ends regularly, so that the task ends with the inbox.
        let _ = tokio::time::timeout(LOOK_INTERVAL, shared.wake.notified()).await;
        while tasks.try_join_next().is_some() {}
    }
}

/// Writes the changes of one partition, again and again until the Redis server has accepted them.
async fn write_partition(inbox: Weak<Inbox>, store: Arc<RedisStore>, partition: u64, batch: Batch) {
    let mut is_repeat = false;
    let applied = loop {
        match store.apply(&batch.changes).await {
            Ok(applied) => break applied,
            Err(fault) => {
                is_repeat = true;
                let Some(inbox) = inbox.upgrade() else { return };
                let Some(shared) = inbox.backing.shared() else { return };
                shared.refused(partition, fault.may_have_happened);
            }
        }
        sleep(RETRY_PAUSE).await;
    };
    let Some(inbox) = inbox.upgrade() else { return };
    let Some(shared) = inbox.backing.shared() else { return };
    inbox.forget(&applied.lost);
    // Other processes may have added messages to the interactions of the changed messages. The added messages must be
    // in the index before the change is reported as durable, because they are delivered before later messages.
    let mut found = vec![TakenOver { partition, ids: applied.next }];
    if is_repeat {
        // An earlier call may have made the changes, and its response with the added messages was lost. Therefore all
        // messages of the partition that this process holds are added to the index.
        found.extend(store.own_messages(partition).await);
    }
    for taken in &found {
        inbox.hold(&store, taken).await;
    }
    shared.written(partition, &batch);
}

async fn take_over(inbox: Weak<Inbox>) {
    let mut suspects = Suspects::default();
    loop {
        {
            let Some(inbox) = inbox.upgrade() else { return };
            if inbox.is_stopping() {
                return;
            }
            // Without a route that uses the inbox, this process cannot deliver messages.
            if !inbox.index.lock().routes.is_empty() {
                inbox.look(&mut suspects).await;
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

impl Inbox {
    /// Adds to the index the messages that this process holds and that the index lacks. Removes from the index the
    /// messages that this process does not hold any more.
    async fn look(&self, suspects: &mut Suspects) {
        let Some(shared) = self.backing.shared() else { return };
        self.look_for_doubtful().await;
        let orphans = shared.store.take_over_orphans(suspects, self).await;
        for (idle, ids) in orphans.held {
            let held: HashSet<_> = ids.iter().filter_map(|id| number_in(id)).collect();
            let gone: Vec<_> = idle.into_iter().filter(|number| !held.contains(number)).collect();
            self.forget(&gone);
        }
        let mut unread = None;
        for taken in orphans.found {
            // If some messages of a partition could not be read, the other messages of this partition are not added.
            // Otherwise, a later message of an interaction could be in the index before an earlier message.
            if unread != Some(taken.partition) && !self.hold(&shared.store, &taken).await {
                unread = Some(taken.partition);
            }
        }
    }
}

impl KnownMessages for Inbox {
    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; PARTITIONS as usize];
        let index = self.index.lock();
        for number in index.waiting.keys().chain(index.settled.keys()) {
            if let Some(count) = counts.get_mut((number % PARTITIONS) as usize) {
                *count += 1;
            }
        }
        counts
    }

    fn idle(&self, partition: u8) -> Vec<u64> {
        let index = self.index.lock();
        let entries = index.waiting.iter().chain(index.settled.iter());
        let is_idle = |number: u64, entry: &Entry| {
            number % PARTITIONS == u64::from(partition) && entry.state != MessageState::Leased
        };
        let idle = entries.filter(|(number, entry)| is_idle(**number, entry)).map(|(number, _)| *number);
        let idle: Vec<_> = idle.collect();
        drop(index);
        idle.into_iter().filter(|number| !self.is_changing(*number)).collect()
    }
}

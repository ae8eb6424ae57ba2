//! The tasks of an inbox in a shared ledger: one writes the changes, and one looks for messages that nobody delivers.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::hold::PARTITIONS;
use crate::store::inbox::Inbox;
use crate::store::redis::{MessageChange, RedisStore, Suspects, TakenOver};

/// The pause before changes are written again that the engine did not accept.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The interval at which the process looks whether a member has gone.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the tasks. They end with the inbox. Must be called within a tokio runtime.
pub(in crate::store) fn start(inbox: &Arc<Inbox>) {
    tokio::spawn(write(Arc::downgrade(inbox)));
    tokio::spawn(take_over(Arc::downgrade(inbox)));
}

/// What the changes of one partition have found out: the messages that others hold, and messages that follow.
type Written = (Vec<u64>, Option<TakenOver>);

async fn write(inbox: Weak<Inbox>) {
    loop {
        let Some(inbox) = inbox.upgrade() else { return };
        let Some(shared) = inbox.backing.shared() else { return };
        let (changes, sequence) = shared.take();
        if changes.is_empty() {
            // The wait ends regularly, so that the task ends with the inbox.
            let _ = tokio::time::timeout(LOOK_INTERVAL, shared.wake.notified()).await;
            continue;
        }
        let mut partitions: BTreeMap<u64, Vec<MessageChange>> = BTreeMap::new();
        for change in changes {
            partitions.entry(change.number % PARTITIONS).or_default().push(change);
        }
        let mut tasks = JoinSet::new();
        for (partition, changes) in partitions {
            tasks.spawn(write_partition(Arc::clone(&shared.store), partition, changes));
        }
        while let Some(written) = tasks.join_next().await {
            let Ok((lost, next)) = written else { continue };
            inbox.forget(&lost);
            if let Some(next) = next {
                // Another process has added messages to the interaction. They must be known before the message is settled
                // here, because they come before later ones.
                inbox.hold(&shared.store, &next).await;
            }
        }
        shared.durable.send_modify(|durable| *durable = sequence);
    }
}

/// Writes the changes of one partition until the engine has accepted them.
async fn write_partition(store: Arc<RedisStore>, partition: u64, changes: Vec<MessageChange>) -> Written {
    loop {
        match store.apply(&changes).await {
            Ok(applied) => {
                let next = (!applied.next.is_empty()).then_some(TakenOver { partition, ids: applied.next });
                return (applied.lost, next);
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn take_over(inbox: Weak<Inbox>) {
    let mut suspects = Suspects::default();
    loop {
        {
            let Some(inbox) = inbox.upgrade() else { return };
            let Some(shared) = inbox.backing.shared() else { return };
            if inbox.is_stopping() {
                return;
            }
            let counts = inbox.counts_of_partitions();
            let count = |partition: u8| counts.get(usize::from(partition)).copied().unwrap_or_default();
            for taken in shared.store.take_over_orphans(&mut suspects, count).await {
                inbox.hold(&shared.store, &taken).await;
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

impl Inbox {
    /// Returns the number of messages in the index of each partition.
    fn counts_of_partitions(&self) -> Vec<usize> {
        let mut counts = vec![0; PARTITIONS as usize];
        let index = self.index.lock();
        for number in index.waiting.keys().chain(index.settled.keys()) {
            if let Some(count) = counts.get_mut((number % PARTITIONS) as usize) {
                *count += 1;
            }
        }
        counts
    }
}

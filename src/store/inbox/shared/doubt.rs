//! Messages in doubt: a Redis server may have stored them for this process, but the index does not contain them. Either
//! the response to the call that stored such a message was lost, or replicas have not confirmed the call. This module
//! searches for these messages soon. The regular search would find them later, so that later messages of the
//! interaction could overtake them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::partitions::PARTITIONS;
use crate::store::inbox::Inbox;
use crate::store::redis::{RedisStore, TakenOver};

/// The maximum number of messages in doubt. The regular search finds further messages.
const DOUBTS_MAX: usize = 1000;
/// The number of searches for a message in doubt. There are several, because a call can be executed after its timeout.
const LOOKS_MAX: u8 = 5;

/// A message that a Redis server may have stored for this process.
#[derive(Clone, Debug)]
pub(super) struct Doubtful {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) interaction: Option<Box<str>>,
    looks: u8,
}

/// The messages in doubt, which a Redis server may have stored for this process.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Vec<Doubtful>>);

/// A guard for a message that is being stored. When the guard is dropped without [`Doubt::settle`], the message is in
/// doubt.
pub(super) struct Doubt<'d> {
    doubts: &'d Doubts,
    pub(super) message: Doubtful,
    is_settled: bool,
}

impl Doubts {
    /// Returns a guard for a message that is about to be stored.
    pub(super) fn begin(&self, number: u64, id: &str, interaction: Option<&str>) -> Doubt<'_> {
        let message =
            Doubtful { number, id: id.to_owned(), interaction: interaction.map(Box::from), looks: 0 };
        Doubt { doubts: self, message, is_settled: false }
    }

    fn add(&self, message: Doubtful) {
        let mut doubts = self.0.lock();
        if doubts.len() < DOUBTS_MAX {
            doubts.push(message);
        }
    }

    fn take(&self) -> Vec<Doubtful> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Doubt<'_> {
    /// Ends the doubt, because the process that holds the message is known, or the message was certainly not stored.
    pub(super) fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.doubts.add(self.message.clone());
        }
    }
}

impl Inbox {
    /// Searches for all messages in doubt.
    pub(super) async fn look_for_doubtful(&self) {
        let Some(shared) = self.backing.shared() else { return };
        let mut silent = Vec::new();
        for mut message in shared.doubts.take() {
            // A call to a node that does not respond takes long. Such a node is therefore called only once in each
            // search.
            let node = shared.store.node_of_partition(message.number % PARTITIONS);
            if silent.contains(&node) {
                shared.doubts.add(message);
                continue;
            }
            match self.learn(&shared.store, &message).await {
                Some(true) => {}
                Some(false) => {
                    message.looks += 1;
                    if message.looks < LOOKS_MAX {
                        shared.doubts.add(message);
                    }
                }
                None => {
                    silent.push(node);
                    shared.doubts.add(message);
                }
            }
        }
    }

    /// Searches for a message in doubt. Adds the waiting messages of its interaction to the index if this process
    /// delivers them. Returns whether the index contains the message now, or `None` if the Redis server does not
    /// respond.
    pub(super) async fn learn(&self, store: &Arc<RedisStore>, message: &Doubtful) -> Option<bool> {
        let ids = match &message.interaction {
            Some(interaction) => store.waiting_messages(interaction).await.ok()?,
            None => vec![message.id.clone()],
        };
        let taken = TakenOver { partition: message.number % PARTITIONS, ids };
        self.hold(store, &taken).await.then(|| self.index.lock().contains(message.number))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{head, inbox};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_in_doubt_is_searched_until_it_is_found_or_was_searched_often() {
        let (ledger, inbox) = inbox(&["a:1"]).await;
        let shared = inbox.backing.shared().unwrap();
        assert!(
            inbox.hold(&shared.store, &TakenOver { partition: 7, ids: Vec::new() }).await,
            "it has the key"
        );
        for number in [7, 8, 9] {
            drop(shared.doubts.begin(number, &inbox.id(number), None));
        }
        shared.doubts.begin(10, &inbox.id(10), None).settle();
        let in_doubt = || shared.doubts.0.lock().iter().map(|message| message.number).collect::<Vec<_>>();
        assert_eq!(in_doubt(), [7, 8, 9]);
        ledger.add_message((7, &inbox.id(7)), Some(&shared.store), &head(), Duration::ZERO);
        for (search, expected) in (1..).zip([&[8, 9][..], &[8, 9], &[8], &[8], &[]]) {
            if search == 3 {
                ledger.add_message((9, &inbox.id(9)), Some(&shared.store), &head(), Duration::ZERO);
            }
            inbox.look_for_doubtful().await;
            assert_eq!(in_doubt(), expected, "after search {search}");
        }
        let known = [7, 8, 9].map(|number| inbox.index.lock().contains(number));
        assert_eq!(known, [true, false, true]);
    }
}

//! Messages that the engine may have stored for this process, although its index does not contain them: the response to
//! the call that stored them was lost, or replicas have not confirmed it. Without a look for them, only the regular look
//! finds them, and later messages of the interaction could overtake them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::partitions::PARTITIONS;
use crate::store::inbox::Inbox;
use crate::store::redis::{RedisStore, TakenOver};

/// The maximum number of messages in doubt. The regular look finds further ones.
const DOUBTS_MAX: usize = 1000;
/// How often a message is looked for that the engine does not have. A call can be executed after its timeout.
const LOOKS_MAX: u8 = 5;

/// A message that the engine may have stored for this process.
#[derive(Clone, Debug)]
pub(super) struct Doubtful {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) interaction: Option<Box<str>>,
    looks: u8,
}

/// The messages in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Vec<Doubtful>>);

/// A message that becomes doubtful when this value is dropped, unless its place is known.
pub(super) struct Doubt<'d> {
    doubts: &'d Doubts,
    pub(super) message: Doubtful,
    is_settled: bool,
}

impl Doubts {
    /// Begins to store a message.
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
    /// Records that the index of the holder contains the message, or that it was certainly not stored.
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
    /// Looks for the messages in doubt.
    pub(super) async fn look_for_doubtful(&self) {
        let Some(shared) = self.backing.shared() else { return };
        let mut silent = Vec::new();
        for mut message in shared.doubts.take() {
            // A look at a silent node takes long, so that one look at it is enough.
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

    /// Adds the waiting messages of an interaction that this process holds to the index, or one message without an
    /// interaction. Returns whether the index contains the message now, or `None` if the engine does not answer.
    pub(super) async fn learn(&self, store: &Arc<RedisStore>, message: &Doubtful) -> Option<bool> {
        let ids = match &message.interaction {
            Some(interaction) => store.waiting_messages(interaction).await.ok()?,
            None => vec![message.id.clone()],
        };
        let taken = TakenOver { partition: message.number % PARTITIONS, ids };
        self.hold(store, &taken).await.then(|| self.index.lock().contains(message.number))
    }
}

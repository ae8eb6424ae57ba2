//! The storage of the messages: the ledger's file, or a ledger that several processes share. Both write changes in the
//! order in which the changes are recorded, and report when a change is durable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shared::SharedMessages;
use crate::store::file::{Change, CommitQueue, MessageReader};

/// The storage of the messages of the inbox.
#[derive(Debug)]
pub(in crate::store) enum Backing {
    /// There is no storage. With a ledger in memory, the inbox accepts no messages.
    Nothing,
    /// The messages are in the ledger's file.
    File(Arc<CommitQueue>, MessageReader),
    /// The messages are in a shared ledger on Redis or Valkey.
    Shared(SharedMessages),
}

/// The stored head, body and state of a message.
pub(super) struct Parts {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) state: Option<Vec<u8>>,
}

impl Backing {
    /// Records changes. Returns the sequence number of the changes for [`Backing::durable`]. `id` converts a message
    /// number to the id of the message.
    pub(super) fn record(
        &self,
        changes: impl IntoIterator<Item = Change>,
        id: impl Fn(u64) -> String,
    ) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::File(commit_queue, _) => commit_queue.record(changes),
            Self::Shared(shared) => shared.record(changes, id),
        }
    }

    /// Waits until a change is durable, for at most `store.grace`. Returns whether the change is durable.
    pub(super) async fn durable(&self, sequence: u64) -> bool {
        match self {
            Self::Nothing => true,
            Self::File(commit_queue, _) => commit_queue.durable(sequence).await,
            Self::Shared(shared) => shared.durable(sequence).await,
        }
    }

    /// Waits until the result of an attempt is durable, for at most `store.grace`. Returns whether the result is
    /// durable. Also returns true if the node of the message in a shared ledger refuses changes: the result is then
    /// written later, and no other attempt begins on this node before.
    pub(super) async fn ended(&self, sequence: u64, number: u64) -> bool {
        match self {
            Self::Nothing | Self::File(..) => self.durable(sequence).await,
            Self::Shared(shared) => shared.ended(sequence, number).await,
        }
    }

    /// Records a change of a message. If the ledger is shared, returns a sequence number, and the caller must wait
    /// until the change with this number is written. Without this wait, another process could change the message first.
    /// If the ledger is in a file, returns `None`.
    pub(super) fn defer(&self, change: Change, id: impl Fn(u64) -> String) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::File(commit_queue, _) => {
                commit_queue.defer([change]);
                None
            }
            Self::Shared(shared) => Some(shared.record([change], id)),
        }
    }

    /// Reports whether changes can be written, so that attempts may begin.
    pub(super) fn accepts_changes(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::File(commit_queue, _) => commit_queue.accepts_changes(),
            Self::Shared(shared) => shared.accepts_changes(),
        }
    }

    /// Returns the sequence number up to which new messages are durable. In a shared ledger, a message is durable
    /// before it is in the index, so the result is `u64::MAX`.
    pub(super) fn stored_until(&self) -> u64 {
        match self {
            Self::File(commit_queue, _) => commit_queue.durable_now(),
            Self::Nothing | Self::Shared(_) => u64::MAX,
        }
    }

    /// Returns a receiver of the sequence number of the last durable change. Returns `None` if messages are durable
    /// before they are in the index.
    pub(super) fn stores(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::File(commit_queue, _) => Some(commit_queue.durable_changes()),
            Self::Nothing | Self::Shared(_) => None,
        }
    }

    /// Reads a message, even if another process delivers it. Returns `None` if the message does not exist.
    pub(super) async fn read(&self, number: u64, id: &str) -> Result<Option<Parts>, String> {
        match self {
            Self::Nothing => Err("the ledger keeps no messages".to_owned()),
            Self::File(_, reader) => {
                let reader = reader.clone();
                // Reading the file must not block the async workers.
                let read = tokio::task::spawn_blocking(move || reader.read(number)).await;
                let stored = read.map_err(|error| error.to_string())??;
                Ok(stored.map(|stored| Parts { head: stored.head, body: stored.body, state: stored.state }))
            }
            Self::Shared(shared) => Ok(shared.store.read_message(number, id).await?.map(Parts::from)),
        }
    }

    /// Reads the head and the state of a message, even if another process delivers it. In a shared ledger, also reads
    /// the body, which the caller ignores. Returns `None` if the message does not exist.
    pub(super) async fn read_head(&self, number: u64, id: &str) -> Result<Option<Parts>, String> {
        let Self::File(_, reader) = self else { return self.read(number, id).await };
        let reader = reader.clone();
        let read = tokio::task::spawn_blocking(move || reader.read_head(number)).await;
        let stored = read.map_err(|error| error.to_string())??;
        Ok(stored.map(|stored| Parts { head: stored.head, body: Vec::new(), state: stored.state }))
    }

    /// Reads a message for an attempt or a pull. An attempt lasts up to `lease`. Returns `None` if the message was
    /// removed, or if another process has taken over the message.
    pub(super) async fn begin(
        &self,
        number: u64,
        id: &str,
        lease: Duration,
        pulled: Vec<u8>,
    ) -> Result<Option<Parts>, String> {
        match self {
            // No other process uses the file.
            Self::Nothing | Self::File(..) => self.read(number, id).await,
            Self::Shared(shared) if shared.is_refused(number) => {
                Err("the ledger has not accepted the last changes".to_owned())
            }
            Self::Shared(shared) => {
                let begun = shared.store.begin_message(number, id, lease, pulled).await?;
                Ok(begun.map(Parts::from))
            }
        }
    }

    /// Returns the storage in the shared ledger, if the ledger is shared.
    pub(super) fn shared(&self) -> Option<&SharedMessages> {
        match self {
            Self::Shared(shared) => Some(shared),
            Self::Nothing | Self::File(..) => None,
        }
    }
}

impl From<(Vec<u8>, Vec<u8>, Vec<u8>)> for Parts {
    fn from((head, body, state): (Vec<u8>, Vec<u8>, Vec<u8>)) -> Self {
        Self { head, body, state: Some(state).filter(|state| !state.is_empty()) }
    }
}

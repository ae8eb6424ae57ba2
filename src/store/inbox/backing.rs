//! Where the messages are kept: in the ledger's file, or in a ledger that several processes share. Both record changes in
//! their order, and say when a change is durable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shared::SharedMessages;
use crate::store::file::{Change, Journal, MessageReader};

/// Where the messages are kept.
#[derive(Debug)]
pub(in crate::store) enum Backing {
    /// Nowhere: a ledger in memory accepts no messages.
    Nothing,
    /// In the ledger's file.
    File(Arc<Journal>, MessageReader),
    /// On Redis or Valkey.
    Shared(SharedMessages),
}

/// The head, the body and the state of a message.
pub(super) struct Parts {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) state: Option<Vec<u8>>,
}

impl Backing {
    /// Records changes. Returns their number for [`Backing::durable`]. `id` returns the id of a message.
    pub(super) fn record(
        &self,
        changes: impl IntoIterator<Item = Change>,
        id: impl Fn(u64) -> String,
    ) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::File(journal, _) => journal.record(changes),
            Self::Shared(shared) => shared.record(changes, id),
        }
    }

    /// Reports whether a change becomes durable within `store.grace`.
    pub(super) async fn durable(&self, sequence: u64) -> bool {
        match self {
            Self::Nothing => true,
            Self::File(journal, _) => journal.durable(sequence).await,
            Self::Shared(shared) => shared.durable(sequence).await,
        }
    }

    /// Waits until the result of an attempt is durable, within `store.grace`. A shared ledger may write it later: until then,
    /// no other attempt begins at the node of the message.
    pub(super) async fn ended(&self, sequence: u64, number: u64) -> bool {
        match self {
            Self::Nothing | Self::File(..) => self.durable(sequence).await,
            Self::Shared(shared) => shared.ended(sequence, number).await,
        }
    }

    /// Records a change that nobody needs to wait for. A shared ledger must have it before somebody else changes the
    /// message. Returns the number to wait for, if there is one.
    pub(super) fn defer(&self, change: Change, id: impl Fn(u64) -> String) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::File(journal, _) => {
                journal.defer([change]);
                None
            }
            Self::Shared(shared) => Some(shared.record([change], id)),
        }
    }

    /// Reports whether changes can be written, so that attempts may begin.
    pub(super) fn accepts_changes(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::File(journal, _) => journal.accepts_changes(),
            Self::Shared(shared) => shared.accepts_changes(),
        }
    }

    /// Returns the number of the last durable change of a message that is being stored. In a shared ledger, a message is
    /// stored before it is in the index.
    pub(super) fn stored_until(&self) -> u64 {
        match self {
            Self::File(journal, _) => journal.durable_now(),
            Self::Nothing | Self::Shared(_) => u64::MAX,
        }
    }

    /// Returns a receiver of the number of the last durable change, if messages in the index wait for it.
    pub(super) fn stores(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::File(journal, _) => Some(journal.durable_changes()),
            Self::Nothing | Self::Shared(_) => None,
        }
    }

    /// Reads a message, whoever holds it.
    pub(super) async fn read(&self, number: u64, id: &str) -> Result<Option<Parts>, String> {
        match self {
            Self::Nothing => Err("the ledger keeps no messages".to_owned()),
            Self::File(_, reader) => {
                let reader = reader.clone();
                // The file must not block the async workers.
                let read = tokio::task::spawn_blocking(move || reader.read(number)).await;
                let stored = read.map_err(|error| error.to_string())??;
                Ok(stored.map(|stored| Parts { head: stored.head, body: stored.body, state: stored.state }))
            }
            Self::Shared(shared) => Ok(shared.store.read_message(number, id).await?.map(Parts::from)),
        }
    }

    /// Reads a message without its body, whoever holds it. In a shared ledger, the body is read as well, but not kept.
    pub(super) async fn read_head(&self, number: u64, id: &str) -> Result<Option<Parts>, String> {
        let Self::File(_, reader) = self else { return self.read(number, id).await };
        let reader = reader.clone();
        let read = tokio::task::spawn_blocking(move || reader.read_head(number)).await;
        let stored = read.map_err(|error| error.to_string())??;
        Ok(stored.map(|stored| Parts { head: stored.head, body: Vec::new(), state: stored.state }))
    }

    /// Reads a message for an attempt that lasts up to `lease`, or for a pull. Returns `None` if somebody has erased the
    /// message, or if this process does not hold it any more.
    pub(super) async fn begin(
        &self,
        number: u64,
        id: &str,
        lease: Duration,
        pulled: Vec<u8>,
    ) -> Result<Option<Parts>, String> {
        match self {
            // Only this process has the file.
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

    /// Returns the shared ledger.
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

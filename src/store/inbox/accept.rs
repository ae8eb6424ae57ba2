//! Accepts a callback into the inbox: writes the message, its event and its interaction in one commit.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::entry::Entry;
use super::{Backing, Inbox, Store};
use crate::denial::{Denial, Refusal};
use crate::inbox::{InboxSettings, MessageState, SEAL_BYTES, Tries};
use crate::ingress::Kept;
use crate::interaction::Report;
use crate::store::Claimed;
use crate::store::file::Change;
use crate::store::ledger::unavailable;
use crate::time::Timestamp;

impl Inbox {
    /// Reserves room in the inbox for a message of this size.
    ///
    /// # Errors
    /// Returns the denial `inbox_full` if the inbox has the maximum number or size of messages.
    fn reserve(&self, settings: &InboxSettings, bytes: u32) -> Result<(), Refusal> {
        let mut index = self.index.lock();
        let is_full = index.count >= settings.messages_max
            || index.bytes.saturating_add(bytes.into()) > settings.bytes_max;
        if is_full {
            return Err(Refusal::new(
                Denial::InboxFull,
                "the inbox has the maximum number or size of messages",
            ));
        }
        index.count += 1;
        index.bytes += u64::from(bytes);
        Ok(())
    }
}

/// Reserved room in the inbox for a message that is not recorded yet. Dropping this value frees the room if no message
/// was stored.
pub(super) struct Reserved<'i> {
    inbox: &'i Inbox,
    pub(super) entry: Entry,
    /// Whether the index lists the message as being accepted. A reader that sees the end of the interaction must also
    /// see that a message of the interaction is being accepted.
    arrives: bool,
    is_used: bool,
}

impl<'i> Reserved<'i> {
    pub(super) fn new(inbox: &'i Inbox, entry: Entry) -> Self {
        Self { inbox, entry, arrives: false, is_used: false }
    }

    /// Lists the message in the index as being accepted.
    pub(super) fn arrives(&mut self) {
        self.arrives = true;
        self.inbox.index.lock().accepting.push(self.entry.lane);
    }

    /// Adds the stored message to the index, and uses the reserved room for it. `sequence` is the sequence number of
    /// the change, and `number` is the number of the message.
    pub(super) fn is_stored(&mut self, sequence: u64, number: u64) {
        let mut index = self.inbox.index.lock();
        // In a shared ledger, a search may have added the message before the Redis server's response arrived.
        if sequence > 0 || !index.contains(number) {
            self.is_used = true;
            index.stored(sequence, number, self.entry);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut index = self.inbox.index.lock();
        index.uncount(&self.entry);
        if self.arrives {
            index.arrived(self.entry.lane);
        }
    }
}

impl Store {
    /// Stores a claimed callback as a message of the inbox. Message, event and interaction are durable when this method
    /// returns `Ok`. The caller must not acknowledge the callback to the provider before. Returns the id of the
    /// message.
    ///
    /// # Errors
    /// Returns the denial `inbox_full` if the inbox has no room. The claim is then released. Returns the denial
    /// `store_unavailable` if the change is not durable in time. The message and its event may still become durable
    /// later.
    pub async fn accept(
        &self,
        claimed: Claimed<'_>,
        (mut kept, body): (Kept, Bytes),
        (report, event_id): (&Report, Option<&str>),
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let (inbox, settings) = (self.inbox(), &self.inbox().settings());
        self.check()?;
        kept.is_sealed = settings.sealer.is_some();
        let head = kept.to_bytes();
        let tag = if kept.is_sealed { SEAL_BYTES } else { 0 };
        let bytes = u32::try_from(head.len() + body.len() + tag).unwrap_or(u32::MAX);
        inbox.reserve(settings, bytes)?;
        let mut reserved = Reserved::new(inbox, inbox.entry(&kept, bytes));
        match &inbox.backing {
            Backing::Nothing => return Err(unavailable()),
            Backing::File(..) => {}
            Backing::Shared(_) => {
                return inbox.accept_shared(claimed, (kept, body), (report, event_id), reserved).await;
            }
        }
        let number = inbox.number.fetch_add(1, Ordering::SeqCst) + 1;
        let id = inbox.id(number);
        let body = inbox.sealed(&id, body)?;
        let message = Change::Message(number, head.into(), body);
        // The change below can end the interaction. A reader that sees this end must also see that a message of the
        // interaction is being accepted.
        reserved.arrives();
        let sequence = self.settle_with(claimed, report, event_id, now, message);
        reserved.is_stored(sequence, number);
        inbox.changed.notify_one();
        inbox.metrics.message_accepted(&kept.route);
        inbox.durable(sequence).await?;
        // A caller that has received the id must find the message.
        inbox.promote_stored();
        Ok(id)
    }
}

impl Inbox {
    /// Creates the index entry of a new message. `bytes` is the size of head and body.
    pub(super) fn entry(&self, kept: &Kept, bytes: u32) -> Entry {
        let received = kept.received().unix_ms();
        Entry {
            lane: self.lane(kept.interaction.as_deref()),
            at: received,
            since: received,
            bytes,
            route: self.index.lock().route(&kept.route),
            tries: Tries::default(),
            state: MessageState::Due,
            cause: None,
            is_progress: kept.is_progress,
            is_replayed: false,
            is_pulled: false,
        }
    }
}

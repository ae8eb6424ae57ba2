//! Messages that this process begins or ceases to hold. The process that holds a message delivers it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::doubt::Doubt;
use super::partitions::PARTITIONS;
use super::queue::SharedMessages;
use crate::denial::{Denial, Refusal};
use crate::inbox::MessageState;
use crate::ingress::Kept;
use crate::interaction::Report;
use crate::store::Claimed;
use crate::store::event_memory::FingerprintKey;
use crate::store::inbox::entry::{Entry, StoredState};
use crate::store::inbox::{Inbox, Reserved};
use crate::store::redis::{NewMessage, Placed, RedisStore, StoredHead, TakenOver};
use crate::time::Timestamp;

/// The time by which the lease of an attempt is longer than the maximum duration of the attempt.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Inbox {
    /// Stores a claimed callback as a message in a shared ledger. Returns the id of the message. See
    /// [`Store::accept`](crate::store::Store::accept).
    pub(in crate::store::inbox) async fn accept_shared(
        &self,
        claimed: Claimed<'_>,
        (kept, body): (Kept, Bytes),
        (report, event_id): (&Report, Option<&str>),
        mut reserved: Reserved<'_>,
    ) -> Result<String, Refusal> {
        let shared = self.backing.shared().ok_or_else(super::super::unavailable)?;
        let store = &shared.store;
        self.learn_key(store)?;
        let body_bytes = body.len() as u64;
        let most = self.settings().body_store_max;
        if body_bytes > most {
            let detail = format!("the body has {body_bytes} bytes, and `inbox.body_store_max` allows {most}");
            return Err(Refusal::new(Denial::BodyTooLarge, detail));
        }
        let interaction = kept.interaction.as_deref();
        let number = store.message_number(interaction.unwrap_or(&kept.route)).await?;
        let id = self.id(number);
        let body = self.sealed(&id, body)?;
        let entry = reserved.entry;
        let message = NewMessage {
            id: id.as_str().into(),
            interaction: interaction.map(Box::from),
            is_ordered: self.index.lock().is_ordered(entry.route),
            due: entry.at(),
            head: kept.to_bytes().into(),
            body,
        };
        // The change below can end the interaction. A reader that sees this end must also see that a message of the
        // interaction is being accepted.
        reserved.arrives();
        let doubt = shared.doubts.begin(number, &id, interaction);
        let placed = match claimed.keep(report, event_id, message).await {
            Ok(placed) => placed,
            Err(failed) => {
                if !failed.may_have_happened {
                    doubt.settle();
                }
                return Err(failed.refusal);
            }
        };
        self.metrics.message_accepted(&kept.route);
        self.place(shared, reserved, placed, doubt).await;
        Ok(id)
    }

    /// Adds a stored message to the index if this process delivers the message. If the route is ordered and the index
    /// lacks earlier messages of the interaction, first reads all waiting messages of the interaction.
    async fn place(
        &self,
        shared: &SharedMessages,
        mut reserved: Reserved<'_>,
        placed: Option<Placed>,
        doubt: Doubt<'_>,
    ) {
        let number = doubt.message.number;
        let is_known = |id: &String| {
            let known = |other| other == number || self.index.lock().contains(other);
            number_in(id).is_some_and(known)
        };
        let is_ordered = self.index.lock().is_ordered(reserved.entry.route);
        match placed {
            Some(placed) if !shared.store.holds(&placed) => doubt.settle(),
            Some(placed) if !is_ordered || placed.earlier.iter().all(is_known) => {
                reserved.is_stored(0, number);
                self.promote_stored();
                doubt.settle();
            }
            // A response of the Redis server was lost. Therefore it is unknown which process holds the message, or the
            // index lacks earlier messages of the interaction. In both cases, all waiting messages of the interaction
            // are read.
            _ => {
                if self.learn(&shared.store, &doubt.message).await == Some(true) {
                    doubt.settle();
                }
            }
        }
    }

    /// Sets the secret key of message ids, which Redis or Valkey provides. Returns an error if Redis or Valkey has not
    /// responded yet.
    fn learn_key(&self, store: &RedisStore) -> Result<(), Refusal> {
        if self.ids.has_key() {
            return Ok(());
        }
        let key = store.message_key().ok_or_else(super::super::unavailable)?;
        self.ids.set_key(FingerprintKey(key));
        Ok(())
    }

    /// Returns the duration of the lease of an attempt or a pull, and the new state of a pulled message. The state is
    /// empty for an attempt. `patience` is the maximum duration of an attempt.
    pub(in crate::store::inbox) fn terms(&self, number: u64, patience: Duration) -> (Duration, Vec<u8>) {
        let entry = self.index.lock().waiting.get(&number).copied();
        match entry.filter(|entry| entry.is_pulled) {
            Some(entry) => (self.settings().lease, entry.stored(None)),
            None => (patience.saturating_add(LEASE_MARGIN), Vec::new()),
        }
    }

    /// Adds the messages in `taken`, which this process holds now, to the index. Returns whether the Redis server has
    /// responded.
    pub(super) async fn hold(&self, store: &Arc<RedisStore>, taken: &TakenOver) -> bool {
        if self.learn_key(store).is_err() {
            return false;
        }
        // A message that was removed from the index may still exist in the Redis server, because its removal is queued.
        // Such a message is not added to the index again.
        let is_unknown = |id: &&String| {
            let is_unknown = |number| !self.index.lock().contains(number) && !self.is_changing(number);
            number_in(id).is_some_and(is_unknown)
        };
        let unknown: Vec<_> = taken.ids.iter().filter(is_unknown).cloned().collect();
        if unknown.is_empty() {
            return true;
        }
        match store.heads(taken.partition, &unknown).await {
            Ok(heads) => {
                heads.into_iter().for_each(|head| self.hold_one(head));
                self.promote_stored();
                self.waiters.wake_all();
                true
            }
            // The regular search finds these messages again.
            Err(error) => {
                log::warn!("messages that were taken over are found later: {error}");
                false
            }
        }
    }

    /// Reports whether a change of the message is not durable yet.
    pub(super) fn is_changing(&self, number: u64) -> bool {
        self.backing.shared().is_some_and(|shared| shared.is_changing(number))
    }

    fn hold_one(&self, stored: StoredHead) {
        let Some(number) = number_in(&stored.id) else { return };
        let kept = match Kept::from_bytes(&stored.head) {
            Ok(kept) => kept,
            Err(error) => return log::error!("the message {} cannot be read: {error}", stored.id),
        };
        if self.id(number) != stored.id {
            self.ids.add_foreign(number, &stored.id);
        }
        let bytes = u32::try_from(stored.head.len() as u64 + stored.body_bytes).unwrap_or(u32::MAX);
        let mut entry = self.entry(&kept, bytes);
        if let Ok(state) = serde_json::from_slice::<StoredState>(&stored.state) {
            entry.resume(&state);
        }
        // The message may have been delivered while its head was read.
        let is_changing = self.is_changing(number);
        let mut index = self.index.lock();
        if is_changing || index.contains(number) {
            return;
        }
        if entry.state == MessageState::Due && !stored.leased_for.is_zero() {
            // Another process began an attempt or a pull, and the agent may still work on the message.
            let until = Timestamp::from_unix_ms(index.last_pass).plus(stored.leased_for);
            entry.at = entry.at.max(until.unix_ms());
        }
        index.count += 1;
        index.bytes += u64::from(bytes);
        match entry.state {
            // The message may be progress that replaces earlier progress messages, so it is added like a new message.
            MessageState::Due => index.storing.push_back((0, number, entry)),
            _ => index.add(number, entry),
        }
    }

    /// Removes these messages from the index, because this process does not hold them any more.
    pub(in crate::store::inbox) fn forget(&self, numbers: &[u64]) {
        let mut index = self.index.lock();
        for number in numbers {
            index.remove(*number);
        }
        drop(index);
        if !numbers.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Moves a pulled message from another process to this one, so that the agent can acknowledge or return it here.
    /// The other process may be dead. Returns the interaction of the message.
    pub(in crate::store::inbox) async fn take_pulled(
        &self,
        interaction: Option<&str>,
        number: u64,
    ) -> Result<Option<Box<str>>, Refusal> {
        let Some(shared) = self.backing.shared() else { return Ok(None) };
        let unavailable = |detail| Refusal::new(Denial::StoreUnavailable, detail);
        self.learn_key(&shared.store)?;
        let id = self.id(number);
        match shared.store.take_message(number, &id, interaction).await.map_err(unavailable)? {
            Some((true, interaction)) => {
                let partition = number % PARTITIONS;
                self.hold(&shared.store, &TakenOver { partition, ids: vec![id] }).await;
                Ok(interaction)
            }
            // Another process still holds the message, for example because the route of the message is ordered.
            Some((false, _)) => Ok(None),
            // The agent has acknowledged the message at another process.
            None => {
                self.forget(&[number]);
                Ok(None)
            }
        }
    }

    /// Returns the numbers of up to `max` messages of an interaction, in ascending order, beginning after `after`.
    /// Waiting messages that other processes hold are included.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond, so that the messages of other processes are not
    /// known.
    pub async fn messages_everywhere(
        &self,
        interaction: &str,
        after: u64,
        max: usize,
    ) -> Result<Vec<u64>, String> {
        let mut found = self.messages_of(interaction, after, max);
        if let Some(shared) = self.backing.shared() {
            // Without the secret key of message ids, the ids of the messages cannot be computed from their numbers.
            self.learn_key(&shared.store).map_err(|refusal| refusal.detail.into_owned())?;
            let waiting = shared.store.waiting_messages(interaction).await?;
            found.extend(waiting.iter().filter_map(|id| number_in(id)).filter(|number| *number > after));
            found.sort_unstable();
            found.dedup();
            found.truncate(max);
        }
        Ok(found)
    }

    /// Marks the waiting messages of a revoked interaction as dead, even if other processes hold them. Attempts in
    /// progress are not interrupted.
    pub(in crate::store) async fn revoke_shared(&self, interaction: &str, now: Timestamp) {
        if let Err(error) = self.take_interaction(interaction, false).await {
            log::error!(
                "{interaction}: messages of other processes are delivered in spite of the revocation: {error}"
            );
        }
        self.revoked(interaction, now);
    }

    /// Waits until all changes of messages are durable, for at most two seconds.
    pub(in crate::store) async fn flush(&self) {
        if let Some(shared) = self.backing.shared() {
            shared.flush().await;
        }
    }

    /// Moves the waiting messages of an interaction from other processes to this one, unless another process works on
    /// them. With `only_unordered`, moves only messages that do not wait for the earlier messages of their interaction.
    /// Returns the number of waiting messages that other processes still hold.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond.
    pub async fn take_interaction(&self, interaction: &str, only_unordered: bool) -> Result<usize, String> {
        let Some(shared) = self.backing.shared() else { return Ok(0) };
        let (taken, left) = shared.store.take_messages(interaction, only_unordered).await?;
        if !self.hold(&shared.store, &taken).await {
            return Err("the waiting messages could not be read".to_owned());
        }
        Ok(left)
    }
}

impl Entry {
    /// Sets the state of the message in the index to the state that the ledger contains.
    pub(in crate::store::inbox) fn resume(&mut self, stored: &StoredState) {
        (self.state, self.cause, self.tries) = (stored.state, stored.cause, stored.tries);
        (self.at, self.since, self.is_replayed) = (stored.at, stored.since, stored.is_replayed);
    }
}

/// Returns the message number in a message id.
pub(super) fn number_in(id: &str) -> Option<u64> {
    id.strip_prefix(super::super::ID)?.split_once('_')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, head, inbox_and_other};
    use super::*;

    /// Only if `is_stored` is true, the Redis server returns the message when the process looks for it.
    #[tokio::test(start_paused = true)]
    async fn a_stored_message_is_looked_for_only_if_its_place_or_an_earlier_message_is_unknown() {
        const NUMBER: u64 = 7;
        let (known, unknown) = (NUMBER + PARTITIONS, NUMBER + 2 * PARTITIONS);
        for (name, is_ordered, earlier, is_stored, is_added) in [
            ("not ordered", false, Some(unknown), false, true),
            ("the first one", true, Some(NUMBER), false, true),
            ("after a known one", true, Some(known), false, true),
            ("after an unknown one", true, Some(unknown), true, true),
            ("after an unknown one, not found", true, Some(unknown), false, false),
            ("lost response", true, None, true, true),
            ("lost response, not found", true, None, false, false),
        ] {
            let (ledger, inbox, other) = inbox_and_other(&["a:1"]).await;
            inbox.configure(Arc::default(), &[("r".into(), is_ordered)]);
            let shared = inbox.backing.shared().unwrap();
            inbox.learn_key(&shared.store).unwrap();
            let id = inbox.id(NUMBER);
            inbox.index.lock().add(known, entry(MessageState::Due));
            if is_stored {
                ledger.add_message((NUMBER, &id), Some(&shared.store), &head(), Duration::ZERO);
            }
            let place = async |placed| {
                let reserved = Reserved::new(&inbox, entry(MessageState::Due));
                inbox.place(shared, reserved, placed, shared.doubts.begin(NUMBER, &id, None)).await;
                inbox.index.lock().contains(NUMBER)
            };
            let held_elsewhere = Placed::at(&other, Vec::new());
            assert!(!place(Some(held_elsewhere)).await, "{name}: another process delivers it");
            let placed = earlier.map(|earlier| Placed::at(&shared.store, vec![inbox.id(earlier)]));
            assert_eq!(place(placed).await, is_added, "{name}");
        }
    }
}

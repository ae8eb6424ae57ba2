//! Loads the ledger's file into memory, record by record. The records are not collected first, because the records of a
//! large file would need too much memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::event_memory::{LoggedEvent, WINDOW_MAX};
use super::events::seconds;
use super::file::{Change, NO_OWNER, Record, StoredEvent};
use super::inbox::Inbox;
use super::memory::{Memory, SHARDS};
use super::outcome::NO_ROUTE;
use crate::interaction::Interaction;
use crate::time::Timestamp;

/// The progress of loading the ledger's file into memory.
pub(super) struct Restore<'m> {
    memory: &'m Memory,
    /// The time at which the store was started.
    now: Timestamp,
    /// The number and the id of each loaded interaction, in the order of the numbers.
    owners: Vec<(u64, Arc<str>)>,
    /// The numbers of the events that are in the file, but not in memory. There are two cases: the file does not
    /// contain the event's interaction, or it contains the same event twice, and the memory has only the second one.
    /// This happens if an event expired and was delivered again before its removal was written.
    orphans: Vec<u64>,
    number_max: u64,
    inbox: &'m Inbox,
}

impl<'m> Restore<'m> {
    pub(super) fn new(memory: &'m Memory, inbox: &'m Inbox, now: Timestamp) -> Self {
        Self { memory, now, owners: Vec::new(), orphans: Vec::new(), number_max: 0, inbox }
    }

    /// Adds a record of the file to memory. The caller must add all interactions in the order of their numbers, and
    /// then the events.
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Interaction(number, id, interaction) => {
                self.number_max = self.number_max.max(number);
                self.owners.push((number, self.memory.restore(number, id, interaction)));
            }
            Record::Event(number, event, until, owner) => {
                self.number_max = self.number_max.max(number);
                let found = self.owners.binary_search_by_key(&owner, |(number, _)| *number);
                let former = match found.ok().and_then(|at| self.owners.get(at)) {
                    Some((_, id)) => self.memory.restore_owned_event(number, event, id, self.now),
                    None if owner == NO_OWNER => self.memory.restore_event(number, event, until, self.now),
                    None => return self.orphans.push(number),
                };
                self.orphans.extend(former.map(|former| former.number));
            }
            Record::Message(number, head, state) => self.inbox.restore(number, &head, state.as_deref()),
            Record::MessageNumber(number) => self.inbox.continue_after(number),
        }
    }

    /// Queues the removal of each event that is in the file, but not in memory. Returns the highest number of an
    /// interaction or an event.
    pub(super) fn finish(self) -> u64 {
        if let Some(commit_queue) = &self.memory.commit_queue {
            commit_queue.defer(self.orphans.into_iter().map(Change::EventGone));
        }
        self.number_max
    }
}

impl Memory {
    /// Loads an interaction from the file. Returns its id.
    fn restore(&self, number: u64, id: Box<str>, mut record: Interaction) -> Arc<str> {
        let count = if *record.route == *NO_ROUTE { &self.tombstones } else { &self.interactions };
        count.fetch_add(1, Ordering::Relaxed);
        let id: Arc<str> = id.into();
        let mut shard = self.shard(Self::index(&id));
        // All interactions of a route share one copy of its name, which saves memory.
        match shard.names.get(&record.route) {
            Some(name) => record.route = Arc::clone(name),
            None => drop(shard.names.insert(Arc::clone(&record.route))),
        }
        self.insert(&mut shard, &id, record, number);
        id
    }

    /// Loads a delivered event without an interaction from the file. If the memory contains an earlier event with the
    /// same fingerprint, removes and returns the earlier event.
    fn restore_event(
        &self,
        number: u64,
        event: StoredEvent,
        until: Timestamp,
        now: Timestamp,
    ) -> Option<LoggedEvent> {
        let (fingerprint, replayable_until) = self.fingerprint_of(event, "");
        // The file contains the end of the retention, from which the time of the delivery is computed. If
        // `store.remember` was longer before the restart, the computed time may be in the future. The event would then
        // be removed after all new events, so the time is limited to the present time. If the clock is more than a day
        // behind, the present time is too early, and the retention would end too soon when the clock is corrected. In
        // this case, the limit is one day before `replayable_until`.
        let latest = seconds(now).max(replayable_until.saturating_sub(WINDOW_MAX));
        let delivered = seconds(until.minus(self.settings.remember)).min(latest);
        let window = replayable_until.saturating_sub(delivered);
        let mut dedup = self.dedup.lock();
        let former = dedup.log.insert(LoggedEvent { fingerprint, delivered, window, number });
        self.count_events(1, usize::from(former.is_some()));
        self.set_oldest(SHARDS, dedup.log.oldest());
        former
    }

    /// Loads a delivered event of the interaction with this id from the file. If the memory contains an earlier event
    /// with the same fingerprint, removes and returns the earlier event.
    fn restore_owned_event(
        &self,
        number: u64,
        event: StoredEvent,
        id: &Arc<str>,
        now: Timestamp,
    ) -> Option<LoggedEvent> {
        let (fingerprint, replayable_until) = self.fingerprint_of(event, id);
        let mut shard = self.shard(Self::index(id));
        let shard = &mut *shard;
        let slot = shard.interactions.get_mut(id)?;
        let is_first = slot.record.delivered_events().is_empty();
        slot.record.restore_event(fingerprint);
        let is_over = !slot.record.state.is_open();
        // The file does not contain the time of the delivery. It is at most the time of the interaction's last event.
        let latest = slot.record.last_event().unwrap_or(now).min(now);
        let event = LoggedEvent::restored(fingerprint, replayable_until, seconds(latest), number);
        let former = shard.events.insert(event);
        self.count_events(1, usize::from(former.is_some()));
        if is_over && is_first {
            shard.over.push_back(Arc::clone(id));
        }
        self.note_oldest(Self::index(id), shard);
        former
    }

    /// Returns the fingerprint of an event in the file, and the Unix time from which a replay of the event is denied
    /// because of the age of its signature. The time is 0 if the file contains only the key of the event.
    fn fingerprint_of(&self, event: StoredEvent, interaction: &str) -> (u64, u32) {
        match event {
            StoredEvent::Fingerprint(fingerprint, replayable_until) => (fingerprint, replayable_until),
            StoredEvent::Key(key) => (self.fingerprints.fingerprint(interaction, key), 0),
        }
    }
}

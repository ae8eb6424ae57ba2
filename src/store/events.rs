//! The delivered events of the ledger in memory: records them, and removes some of them when room is needed.
//!
//! Callgate never denies a callback because the memory of events is full. It removes events instead, in this order:
//! 1. Events of ended interactions. After this removal, the interaction accepts no further callback, so nothing is
//!    delivered twice. It does not even accept late progress on a route with `stale: deliver`.
//! 2. Events whose replay is denied because of the age of its signature, oldest first.
//! 3. Other events, oldest first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::event_memory::{EventLog, EventPlace, LoggedEvent, Oldest};
use super::file::{Change, CommitQueue, NO_OWNER, StoredEvent};
use super::memory::{Hold, Memory, SHARDS, Shard, change};
use crate::interaction::{Claim, EventKey, InformedBy, Report};
use crate::time::Timestamp;

/// The maximum number of events that are removed after one delivery. It is greater than one, so that a ledger with too
/// many events at the start becomes smaller.
const EVICTIONS_MAX: usize = 8;
/// The maximum number of expired events that one call of `pass_dedup` removes. If the ledger has too many events, the
/// call also removes up to the same number of events that have not expired. There are four calls per second.
const EXPIRIES_MAX: usize = 20_000;
/// The number of expired events that are removed while the events are locked. The removal takes well below a
/// millisecond.
const EXPIRIES_PER_LOCK: usize = 500;
/// A limit for a shard's list `over`, which contains the ids of the ended interactions. The ids of removed interactions
/// are deleted from the list if it has more than `2 * interactions + STALE_OVER_MAX` entries.
const STALE_OVER_MAX: usize = 1024;

/// How the removal of events is written to the file.
#[derive(Clone, Copy)]
pub(super) enum Removal {
    /// The removal is written with the next commit.
    Recorded,
    /// The removal is written later. If a crash prevents this, the events are in the file after the restart, and are
    /// removed again.
    Deferred,
}

impl Removal {
    fn write(self, commit_queue: &CommitQueue, changes: impl IntoIterator<Item = Change>) {
        match self {
            Self::Recorded => drop(commit_queue.record(changes)),
            Self::Deferred => commit_queue.defer(changes),
        }
    }
}

impl Memory {
    /// Records that the agent accepted the callback, or that the callback was queued in the inbox. In the second case,
    /// `message` is given, and the same change stores the message. Returns the sequence number of the change.
    pub(super) fn settle(
        &self,
        hold: &Hold,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
        message: Option<Change>,
    ) -> u64 {
        let sequence = match hold {
            Hold::Interaction(id, claim, window) => {
                self.settle_interaction(id, (claim, *window), report, event_id, now, message)
            }
            Hold::Dedup(keys, window) => self.settle_dedup(keys, *window, now, message),
        };
        self.make_room(EVICTIONS_MAX, Removal::Recorded, now);
        sequence
    }

    fn settle_interaction(
        &self,
        id: &str,
        (claim, window): (&Claim, u32),
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
        message: Option<Change>,
    ) -> u64 {
        let mut shard = self.shard(Self::index(id));
        let shard = &mut *shard;
        let is_kept = message.is_some();
        let mut changes: Vec<_> = message.into_iter().collect();
        let Some(slot) = shard.interactions.get_mut(id) else {
            // The interaction was removed during the delivery. A message is stored nevertheless.
            return self.commit_queue.as_ref().map_or(0, |commit_queue| commit_queue.record(changes));
        };
        let (expires, owner, log) = (slot.record.expires(), slot.number, &mut shard.events);
        slot.record.prune_events(|fingerprint| log.get(fingerprint).is_some());
        let ended = slot.record.settle(claim, report, event_id, now, |event| {
            let fingerprint = self.fingerprints.fingerprint(id, event);
            let (delivered, number) = (seconds(now), self.number());
            let event = LoggedEvent { fingerprint, delivered, window, number };
            let former = log.insert(event);
            self.count_events(1, usize::from(former.is_some()));
            if self.commit_queue.is_some() {
                changes.extend(former.map(|former| Change::EventGone(former.number)));
                changes.push(Change::Event(number, stored(&event), expires, owner));
            }
            fingerprint
        });
        if !is_kept {
            slot.record.inform(InformedBy::of_callback(ended), now);
        }
        let is_sooner = slot.record.next_look(now) < slot.next_check;
        self.note_oldest(Self::index(id), shard);
        if !ended && !is_sooner && self.commit_queue.is_none() {
            return 0;
        }
        let Some(id) = shard.interactions.get_key_value(id).map(|(id, _)| Arc::clone(id)) else { return 0 };
        if ended {
            self.note_end(shard, &id);
        }
        self.reschedule(shard, &id, now);
        let (Some(commit_queue), Some(slot)) = (&self.commit_queue, shard.interactions.get(&id)) else {
            return 0;
        };
        changes.push(change(&id, slot));
        commit_queue.record(changes)
    }

    fn settle_dedup(&self, keys: &[EventKey], window: u32, now: Timestamp, message: Option<Change>) -> u64 {
        let until = now.plus(self.settings.remember);
        let mut dedup = self.dedup.lock();
        let mut changes: Vec<_> = message.into_iter().collect();
        for key in keys {
            let number = self.number();
            let (event, former) = dedup.settle(*key, seconds(now), window, number);
            self.count_events(1, usize::from(former.is_some()));
            if self.commit_queue.is_some() {
                changes.extend(former.map(|former| Change::EventGone(former.number)));
                changes.push(Change::Event(number, stored(&event), until, NO_OWNER));
            }
        }
        self.set_oldest(SHARDS, dedup.log.oldest());
        self.commit_queue.as_ref().map_or(0, |commit_queue| commit_queue.record(changes))
    }

    /// Records that an interaction has ended, so that its events are removed first when room is needed.
    pub(super) fn note_end(&self, shard: &mut Shard, id: &Arc<str>) {
        let Some(slot) = shard.interactions.get(id) else { return };
        self.metrics.interaction_ended(&slot.record.route, slot.record.state.name());
        if slot.record.delivered_events().is_empty() {
            return;
        }
        shard.over.push_back(Arc::clone(id));
        if shard.over.len() > 2 * shard.interactions.len() + STALE_OVER_MAX {
            shard.over.retain(|id| shard.interactions.contains_key(id));
        }
        self.note_oldest(Self::index(id), shard);
    }

    /// Updates the times of the oldest events of a shard. These times determine from which shard events are removed.
    pub(super) fn note_oldest(&self, index: usize, shard: &Shard) {
        let oldest = if shard.over.is_empty() { shard.events.oldest() } else { Oldest::FIRST };
        self.set_oldest(index % SHARDS, oldest);
    }

    pub(super) fn set_oldest(&self, index: usize, oldest: Oldest) {
        if let Some(at) = self.oldest.get(index) {
            at.store(oldest.to_bits(), Ordering::Relaxed);
        }
    }

    pub(super) fn count_events(&self, added: usize, removed: usize) {
        self.events.fetch_add(added, Ordering::Relaxed);
        self.events.fetch_sub(removed, Ordering::Relaxed);
    }

    /// Removes the events with these fingerprints. Returns the changes that remove the events from the file.
    pub(super) fn drop_events(&self, log: &mut EventLog, fingerprints: &[u64]) -> Vec<Change> {
        let removed = fingerprints.iter().filter_map(|fingerprint| log.remove(*fingerprint));
        let changes: Vec<_> = removed.map(|event| Change::EventGone(event.number)).collect();
        self.count_events(0, changes.len());
        changes
    }

    /// Removes events while there are more events than the limit, but at most `count` events. The caller must not have
    /// locked a shard.
    fn make_room(&self, count: usize, removal: Removal, now: Timestamp) {
        let (now, mut left) = (seconds(now), count);
        // This loop can select a shard whose list `over` contains only outdated ids. Then no event is removed. This can
        // happen once for each shard.
        for _ in 0..count.saturating_add(SHARDS) {
            if left == 0 {
                return;
            }
            if self.events.load(Ordering::Relaxed) <= self.settings.events_max {
                return;
            }
            if matches!(removal, Removal::Deferred) && !self.may_defer() {
                return;
            }
            let ranks = self.oldest.iter().map(|at| Oldest::from_bits(at.load(Ordering::Relaxed)).rank(now));
            let has_removed = match ranks.enumerate().min_by_key(|(_, rank)| *rank) {
                Some((SHARDS, _)) => self.evict_dedup(removal, now),
                Some((index, _)) => self.evict(index, removal, now),
                None => return,
            };
            left -= usize::from(has_removed);
        }
    }

    /// Removes one event that belongs to no interaction. Returns whether there was such an event.
    fn evict_dedup(&self, removal: Removal, now: u32) -> bool {
        let mut dedup = self.dedup.lock();
        let first = dedup.log.first_to_go(now);
        let removed = first.and_then(|event| dedup.log.remove(event.fingerprint));
        if let Some(event) = removed {
            self.forgot(event, removal);
        }
        self.set_oldest(SHARDS, dedup.log.oldest());
        removed.is_some()
    }

    /// Removes the events of one ended interaction of the shard. If the shard has no ended interactions, removes the
    /// event with the lowest rank ([`Oldest::rank`]). Returns whether anything was removed.
    fn evict(&self, index: usize, removal: Removal, now: u32) -> bool {
        let mut shard = self.shard(index);
        let shard = &mut *shard;
        let has_removed = if shard.over.is_empty() {
            let first = shard.events.first_to_go(now);
            let removed = first.and_then(|event| shard.events.remove(event.fingerprint));
            if let Some(event) = removed {
                self.forgot(event, removal);
            }
            removed.is_some()
        } else {
            // The list `over` may contain only outdated ids. Then no event of this shard is removed here, because the
            // ages of its events were not compared with the events of other shards.
            self.evict_over(shard, removal)
        };
        self.note_oldest(index, shard);
        has_removed
    }

    /// Removes the events of one ended interaction: the first interaction in the shard's list `over` that still has
    /// events. Returns whether there was one.
    fn evict_over(&self, shard: &mut Shard, removal: Removal) -> bool {
        while let Some(id) = shard.over.pop_front() {
            if self.drop_over(shard, &id, removal) {
                return true;
            }
        }
        false
    }

    /// Removes the events of an ended interaction. Returns whether the interaction had events.
    pub(super) fn drop_over(&self, shard: &mut Shard, id: &Arc<str>, removal: Removal) -> bool {
        let Some(slot) = shard.interactions.get_mut(id) else { return false };
        let had_forgotten = slot.record.has_forgotten_events();
        let fingerprints = slot.record.forget_events();
        let changes = self.drop_events(&mut shard.events, &fingerprints);
        let has_removed = !changes.is_empty();
        let is_changed = has_removed || slot.record.has_forgotten_events() != had_forgotten;
        if let (true, Some(commit_queue)) = (is_changed, &self.commit_queue) {
            // The record of the interaction is written before its events are removed from the file. If the process ends
            // in between, the file already records that the events are forgotten.
            removal.write(commit_queue, [change(id, slot)].into_iter().chain(changes));
        }
        has_removed
    }

    /// Records that an event was removed before the end of its retention.
    fn forgot(&self, event: LoggedEvent, removal: Removal) {
        self.count_events(0, 1);
        self.metrics.event_forgotten();
        if let Some(commit_queue) = &self.commit_queue {
            removal.write(commit_queue, [Change::EventGone(event.number)]);
        }
    }

    /// Reports whether the commit queue accepts further deferred changes.
    fn may_defer(&self) -> bool {
        self.commit_queue.as_ref().is_none_or(|commit_queue| commit_queue.may_defer())
    }

    /// Removes delivered events that belong to no interaction and whose retention is over. Returns whether there may be
    /// more such events.
    pub(super) fn pass_dedup(&self, now: Timestamp) -> bool {
        let mut has_more = true;
        for _ in 0..EXPIRIES_MAX / EXPIRIES_PER_LOCK {
            // This check limits the number of removals that are not written to the file yet.
            if !has_more || !self.may_defer() {
                break;
            }
            has_more = self.expire_events(now) == EXPIRIES_PER_LOCK;
        }
        self.make_room(EXPIRIES_MAX, Removal::Deferred, now);
        has_more
    }

    /// Removes up to [`EXPIRIES_PER_LOCK`] events that belong to no interaction and whose retention is over. Returns
    /// the number of removed events.
    fn expire_events(&self, now: Timestamp) -> usize {
        let since = self.remembered_since(now);
        let mut dedup = self.dedup.lock();
        let expired = std::iter::from_fn(|| dedup.expire(since)).take(EXPIRIES_PER_LOCK);
        let changes: Vec<_> = expired.map(|event| Change::EventGone(event.number)).collect();
        let count = changes.len();
        if count > 0 {
            self.count_events(0, count);
            self.set_oldest(SHARDS, dedup.log.oldest());
            if let Some(commit_queue) = &self.commit_queue {
                commit_queue.defer(changes);
            }
        }
        count
    }

    /// Returns a time in Unix seconds. If an event without an interaction was delivered at or before this time, its
    /// retention has ended at `now`.
    pub(super) fn remembered_since(&self, now: Timestamp) -> i64 {
        now.minus(self.settings.remember).unix_secs()
    }

    /// Returns the change that writes the secret key of the fingerprints to the file.
    pub(super) fn snapshot_key(&self) -> Change {
        Change::FingerprintKey(self.fingerprints.0)
    }

    /// Returns the changes that write the next events to an empty file. Only events that belong to no interaction are
    /// written. Returns at most `max` changes, and no changes after the last event. Moves `place` behind the written
    /// events.
    pub(super) fn snapshot_events(&self, place: &mut EventPlace, max: usize) -> Vec<Change> {
        let events = self.dedup.lock().log.next_events(place, max);
        let change = |event: LoggedEvent| {
            let delivered = Timestamp::from_unix_secs(event.delivered.into());
            let until = delivered.plus(self.settings.remember);
            Change::Event(event.number, stored(&event), until, NO_OWNER)
        };
        events.into_iter().map(change).collect()
    }
}

/// Returns the time in Unix seconds, rounded up.
pub(super) fn seconds(at: Timestamp) -> u32 {
    let seconds = at.unix_ms().max(0).saturating_add(999) / 1000;
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

pub(super) fn stored(event: &LoggedEvent) -> StoredEvent {
    StoredEvent::Fingerprint(event.fingerprint, event.replayable_until())
}

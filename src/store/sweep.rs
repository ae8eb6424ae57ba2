//! More operations on the ledger in memory: revocation, providers' ids, answers, reads, and deadlines.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::event_memory::EventLog;
use super::events::{Removal, stored};
use super::file::Change;
use super::ledger::Store;
use super::memory::{Memory, NEVER, SHARDS, Shard, Slot, change, full};
use super::outcome::{DueNotice, NO_ROUTE};
use crate::config::Unknown;
use crate::denial::Refusal;
use crate::interaction::{Claim, Event, Interaction, NoticeId, NoticeResult, QuestionFault, State};
use crate::policy::TTL_MAX;
use crate::time::Timestamp;

/// The maximum length of the list `unsent`, which contains the interactions whose request was not sent. A full ledger
/// removes these interactions.
const UNSENT_MAX: usize = 65_536;

/// The maximum number of deadlines that are applied while a shard is locked. Their application takes well below a
/// millisecond.
const CHECKS_PER_LOCK: usize = 8;
/// A limit for a shard's list `kept`, which contains the ids of the interactions that are retained only for display.
/// The ids of removed interactions are deleted from the list if it has more than `2 * interactions + STALE_KEPT_MAX`
/// entries.
const STALE_KEPT_MAX: usize = 1024;
/// The maximum number of records that are read for a list while a shard is locked.
pub(super) const READS_PER_LOCK: usize = 256;

impl Memory {
    /// Updates the record of an interaction, and queues the change for the file. Returns the result of `update` and the
    /// sequence number of the change. Returns `None` if the ledger does not contain the interaction.
    fn update<T>(
        &self,
        id: &str,
        now: Timestamp,
        update: impl FnOnce(&mut Interaction) -> T,
    ) -> Option<(T, u64)> {
        let mut shard = self.shard(Self::index(id));
        self.update_locked(&mut shard, id, now, update)
    }

    fn update_locked<T>(
        &self,
        shard: &mut Shard,
        id: &str,
        now: Timestamp,
        update: impl FnOnce(&mut Interaction) -> T,
    ) -> Option<(T, u64)> {
        let key = Arc::clone(shard.interactions.get_key_value(id)?.0);
        let slot = shard.interactions.get_mut(id)?;
        let was_open = slot.record.state.is_open();
        let result = update(&mut slot.record);
        if was_open && !slot.record.state.is_open() {
            self.note_end(shard, &key);
        }
        let sequence = shard.interactions.get(&key).map_or(0, |slot| self.write(&key, slot));
        self.reschedule(shard, &key, now);
        Some((result, sequence))
    }

    /// Revokes an interaction. Returns the sequence number of the change. Returns `None` if nothing was recorded. This
    /// is the case if the ledger does not contain the interaction, the store does not adopt unknown interactions, and
    /// `remembers` is false.
    pub(super) fn revoke(&self, id: &str, remembers: bool, now: Timestamp) -> Option<Result<u64, Refusal>> {
        let mut shard = self.shard(Self::index(id));
        if let Some((_, sequence)) =
            self.update_locked(&mut shard, id, now, |record| record.end_by(Event::Revoked, now))
        {
            return Some(Ok(sequence));
        }
        if self.settings.unknown == Unknown::Refuse && !remembers {
            return None;
        }
        // Another process may have minted the interaction, and a callback may arrive later. The ledger must then
        // contain the revocation.
        let more = |count: usize| (count < self.settings.interactions_max).then_some(count + 1);
        if self.tombstones.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Some(Err(full()));
        }
        let id: Arc<str> = id.into();
        let mut record = Interaction::new(NO_ROUTE.into(), "".into(), now, now.plus(TTL_MAX));
        record.state = State::Revoked;
        let slot = self.insert(&mut shard, &id, record, self.number());
        Some(Ok(self.write(&id, slot)))
    }

    /// Records that the agent's request for an interaction was not sent. `unseen` is true if nobody received the token.
    /// Returns the sequence number of the change.
    pub(super) fn not_sent(&self, id: &str, unseen: bool, now: Timestamp) -> u64 {
        let sequence = self
            .update(id, now, |record| record.end_by(Event::NotSent, now))
            .map_or(0, |(_, sequence)| sequence);
        if unseen {
            let mut unsent = self.unsent.lock();
            if unsent.len() >= UNSENT_MAX {
                unsent.pop_front();
            }
            unsent.push_back(id.into());
        }
        sequence
    }

    pub(super) fn doubt(&self, id: &str, now: Timestamp) -> u64 {
        self.update(id, now, Interaction::doubt).map_or(0, |((), sequence)| sequence)
    }

    pub(super) fn fail(&self, id: &str, claim: &Claim, now: Timestamp) {
        self.update(id, now, |record| record.fail(claim, now));
    }

    pub(super) fn undelivered(&self, id: &str, now: Timestamp) -> u64 {
        self.update(id, now, |record| record.lose_message(now)).map_or(0, |((), sequence)| sequence)
    }

    /// Records that the agent has received all callbacks of an interaction, including callbacks that the inbox had
    /// given up.
    pub(super) fn received_all(&self, id: &str, now: Timestamp) {
        let changes = |record: Interaction| record.undelivered().is_some() || record.lacks_final_callback();
        if self.read(id).is_some_and(changes) {
            self.update(id, now, |record| record.receive_all(now));
        }
    }

    pub(super) fn bind(&self, id: &str, provider_id: &str, now: Timestamp) -> u64 {
        let bound = self.update(id, now, |record| {
            if !record.is_matched() {
                return record.bind(provider_id);
            }
            let mut matching = self.matching.lock();
            matching.remove(id, record);
            record.bind(provider_id);
            matching.add(id, record);
        });
        bound.map_or(0, |((), sequence)| sequence)
    }

    pub(super) fn take_question(
        &self,
        id: &str,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<(Arc<str>, u32, Box<str>), QuestionFault> {
        let mut shard = self.shard(Self::index(id));
        let slot = shard.interactions.get_mut(id).ok_or(QuestionFault::Unknown)?;
        let (number, endpoint) = slot.record.take_question(number, now)?;
        Ok((Arc::clone(&slot.record.route), number, endpoint))
    }

    pub(super) fn answer(&self, id: &str, number: u32, arrived: bool, now: Timestamp) -> u64 {
        self.update(id, now, |record| record.answer(number, arrived)).map_or(0, |(_, sequence)| sequence)
    }

    pub(super) fn noticed(&self, id: &str, notice: NoticeId, result: NoticeResult, now: Timestamp) -> u64 {
        self.update(id, now, |record| record.noticed(notice, result, now)).map_or(0, |(_, sequence)| sequence)
    }

    // === Reading ===

    pub(super) fn read(&self, id: &str) -> Option<Interaction> {
        self.shard(Self::index(id)).interactions.get(id).map(|slot| slot.record.clone())
    }

    /// Adds the open interactions of one shard to the search for the oldest ones. `oldest` contains the creation time
    /// of the oldest open interaction of each route so far. Returns the number of interactions in the shard.
    pub(super) fn oldest(&self, index: usize, oldest: &mut HashMap<Arc<str>, Timestamp>) -> usize {
        let shard = self.shard(index);
        for slot in shard.interactions.values().filter(|slot| slot.record.state.is_open()) {
            let created = slot.record.created();
            match oldest.get_mut(&slot.record.route) {
                Some(at) => *at = created.min(*at),
                None => drop(oldest.insert(Arc::clone(&slot.record.route), created)),
            }
        }
        shard.interactions.len()
    }

    /// Returns the changes that write the interactions of a shard and their events to an empty file.
    pub(super) fn snapshot(&self, index: usize) -> Vec<Change> {
        let shard = self.shard(index);
        let mut changes = Vec::with_capacity(2 * shard.interactions.len());
        shard.interactions.iter().for_each(|(id, slot)| add_snapshot(&mut changes, &shard.events, id, slot));
        changes
    }

    /// Returns the ids of the interactions of a shard.
    pub(super) fn ids(&self, index: usize) -> Vec<Arc<str>> {
        self.shard(index).interactions.keys().map(Arc::clone).collect()
    }

    /// Returns the changes that write interactions of one shard and their events to an empty file. Omits interactions
    /// that do not exist any more.
    pub(super) fn snapshot_of(&self, ids: &[Arc<str>]) -> Vec<Change> {
        let Some(first) = ids.first() else { return Vec::new() };
        let shard = self.shard(Self::index(first));
        let mut changes = Vec::with_capacity(2 * ids.len());
        for id in ids {
            if let Some(slot) = shard.interactions.get(id) {
                add_snapshot(&mut changes, &shard.events, id, slot);
            }
        }
        changes
    }

    // === Deadlines ===

    /// Applies up to [`CHECKS_PER_LOCK`] deadlines of one shard. These deadlines have passed at `now`. Adds the notices
    /// that must be sent to `notices`. Returns whether more deadlines may have passed.
    pub(super) fn pass(&self, index: usize, now: Timestamp, notices: &mut Vec<DueNotice>) -> bool {
        let mut shard = self.shard(index);
        for _ in 0..CHECKS_PER_LOCK {
            match shard.checks.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => return false,
            }
            if let Some(Reverse((at, id))) = shard.checks.pop() {
                self.check(&mut shard, at, id, now, notices);
            }
        }
        true
    }

    /// Applies the deadlines of one interaction. Does nothing if its next check is not scheduled for the time `at`,
    /// because the entry in the heap is then outdated.
    fn check(
        &self,
        shard: &mut Shard,
        at: Timestamp,
        id: Arc<str>,
        now: Timestamp,
        notices: &mut Vec<DueNotice>,
    ) {
        let Some(slot) = shard.interactions.get_mut(&id).filter(|slot| slot.next_check == at) else { return };
        let due = slot.record.pass(now);
        if due.lapsed {
            self.note_end(shard, &id);
        }
        let Some(slot) = shard.interactions.get_mut(&id) else { return };
        if let Some(cause) = due.given_up {
            self.metrics.notice(&slot.record.route, cause.name(), "given_up");
        }
        if let Some(notice) = due.notice {
            let (route, is_retry) = (Arc::clone(&slot.record.route), slot.record.notice_attempts() > 0);
            notices.push(DueNotice { id: Arc::clone(&id), route, notice, is_retry });
        }
        let is_dead = due.dead && !self.keep(shard, &id, now);
        let Some(slot) = shard.interactions.get_mut(&id) else { return };
        if is_dead {
            if let (Some(changes), Some(commit_queue)) = (self.remove(shard, &id), &self.commit_queue) {
                commit_queue.defer(changes);
            }
            return;
        }
        slot.next_check =
            if slot.record.is_kept { self.kept_until(&slot.record) } else { slot.record.next_look(now) };
        if let (true, Some(commit_queue)) = (due.changed, &self.commit_queue) {
            commit_queue.defer([change(&id, slot)]);
        }
        // While a notice is being sent, no check is needed. When its result is recorded, the next check is scheduled.
        if slot.next_check < NEVER {
            shard.checks.push(Reverse((slot.next_check, id)));
        }
    }
}

impl Store {
    /// Returns the number of interactions that are retained only for display.
    pub fn kept(&self) -> usize {
        self.memory.kept.load(Ordering::Relaxed)
    }
}

/// Operations on ended interactions whose token has expired. The ledger retains them only for display.
impl Memory {
    /// Returns the time until which an ended interaction is retained for display.
    fn kept_until(&self, record: &Interaction) -> Timestamp {
        record.ended_at().map_or(record.expires(), |ended| ended.plus(self.settings.keep_ended))
    }

    /// Marks an interaction as retained for display, and removes its events. No callback can repeat these events,
    /// because the token has expired. Returns false if the interaction ended too long ago for display, and must be
    /// removed.
    fn keep(&self, shard: &mut Shard, id: &Arc<str>, now: Timestamp) -> bool {
        let Some(slot) = shard.interactions.get_mut(id) else { return false };
        if *slot.record.route == *NO_ROUTE || now >= self.kept_until(&slot.record) {
            return false;
        }
        if !slot.record.is_kept {
            slot.record.is_kept = true;
            self.kept.fetch_add(1, Ordering::Relaxed);
            shard.kept.push_back(Arc::clone(id));
            if shard.kept.len() > 2 * shard.interactions.len() + STALE_KEPT_MAX {
                shard.kept.retain(|id| shard.interactions.contains_key(id));
            }
            self.drop_over(shard, id, Removal::Deferred);
            self.note_oldest(Self::index(id), shard);
        }
        true
    }

    /// If the ledger is full, removes one interaction that is retained only for display. The caller must not have
    /// locked a shard.
    pub(super) fn make_room_for_one(&self) {
        if self.interactions.load(Ordering::Relaxed) >= self.settings.interactions_max {
            self.evict_kept();
        }
    }

    /// Removes one interaction that is retained only for display: the oldest one of the next shard. Returns false if
    /// there is none. The caller must not have locked a shard.
    pub(super) fn evict_kept(&self) -> bool {
        for _ in 0..SHARDS {
            if self.kept.load(Ordering::Relaxed) == 0 {
                return false;
            }
            // The next call begins with the next shard, so that no shard loses its interactions earlier than the
            // others.
            let mut shard = self.shard(self.next_eviction.fetch_add(1, Ordering::Relaxed));
            while let Some(id) = shard.kept.pop_front() {
                let is_kept = shard.interactions.get(&id).is_some_and(|slot| slot.record.is_kept);
                if is_kept && let Some(changes) = self.remove(&mut shard, &id) {
                    if let Some(commit_queue) = &self.commit_queue {
                        commit_queue.record(changes);
                    }
                    return true;
                }
            }
        }
        false
    }
}

/// Adds to `changes` the changes that insert an interaction and its events into an empty file.
fn add_snapshot(changes: &mut Vec<Change>, log: &EventLog, id: &Arc<str>, slot: &Slot) {
    let (until, owner) = (slot.record.expires(), slot.number);
    let known = slot.record.delivered_events().iter().filter_map(|fingerprint| log.get(*fingerprint));
    changes.extend(known.map(|event| Change::Event(event.number, stored(&event), until, owner)));
    changes.push(change(id, slot));
}

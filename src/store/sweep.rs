//! What is done to the ledger in memory from inside: revoking, binding, answering, reading, and the passing of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::change::{Change, NO_OWNER};
use super::memory::{DueNotice, Memory, NEVER, NO_ROUTE, SHARDS, Shard, change, full};
use crate::config::Unknown;
use crate::denial::Refusal;
use crate::interaction::{Event, Interaction, NoticeId, QuestionFault, State};
use crate::policy::TTL_MAX;
use crate::time::Timestamp;

/// Most interactions that were never sent that are held ready to make room.
const UNSENT_MAX: usize = 65_536;

impl Memory {
    /// Does something to a record and writes it. Returns what was done and the journal's number.
    fn with<T>(&self, id: &str, now: Timestamp, act: impl FnOnce(&mut Interaction) -> T) -> Option<(T, u64)> {
        let mut shard = self.shard(Self::index(id));
        self.with_locked(&mut shard, id, now, act)
    }

    fn with_locked<T>(
        &self,
        shard: &mut Shard,
        id: &str,
        now: Timestamp,
        act: impl FnOnce(&mut Interaction) -> T,
    ) -> Option<(T, u64)> {
        let key = Arc::clone(shard.interactions.get_key_value(id)?.0);
        let slot = shard.interactions.get_mut(id)?;
        let was_open = slot.record.state.is_open();
        let done = act(&mut slot.record);
        if was_open && !slot.record.state.is_open() {
            self.metrics.interaction_ended(&slot.record.route, slot.record.state.name());
        }
        let sequence = self.write(&key, slot);
        self.reschedule(shard, &key, now);
        Some((done, sequence))
    }

    /// Revokes an interaction; `None`: it is not known, and never will be.
    pub(super) fn revoke(&self, id: &str, now: Timestamp) -> Option<Result<u64, Refusal>> {
        let mut shard = self.shard(Self::index(id));
        if let Some((_, sequence)) = self.with_locked(&mut shard, id, now, |record| record.go(Event::Revoked))
        {
            return Some(Ok(sequence));
        }
        if self.settings.unknown == Unknown::Refuse {
            return None;
        }
        // It may have been minted elsewhere and come in later: that it is revoked must be known then.
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

    /// The request of an interaction was not sent; `unseen`: nobody got to know its token.
    pub(super) fn not_sent(&self, id: &str, unseen: bool, now: Timestamp) -> u64 {
        let sequence =
            self.with(id, now, |record| record.go(Event::NotSent)).map_or(0, |(_, sequence)| sequence);
        if unseen {
            let mut unsent = self.unsent.lock();
            if unsent.len() >= UNSENT_MAX {
                unsent.pop_front();
            }
            unsent.push_back(id.into());
        }
        sequence
    }

    pub(super) fn bind(&self, id: &str, provider_id: &str, now: Timestamp) -> u64 {
        self.with(id, now, |record| record.bind(provider_id)).map_or(0, |(_, sequence)| sequence)
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
        self.with(id, now, |record| record.answer(number, arrived)).map_or(0, |(_, sequence)| sequence)
    }

    pub(super) fn noticed(&self, id: &str, notice: NoticeId, answered: bool, now: Timestamp) -> u64 {
        self.with(id, now, |record| record.noticed(notice, answered, now)).map_or(0, |(_, sequence)| sequence)
    }

    // === Reading ===

    pub(super) fn read(&self, id: &str) -> Option<Interaction> {
        self.shard(Self::index(id)).interactions.get(id).map(|slot| slot.record.clone())
    }

    /// The first interactions in the order of their ids behind `after` that are wanted.
    pub(super) fn list(
        &self,
        after: &str,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> BTreeMap<Arc<str>, Interaction> {
        let mut found = BTreeMap::new();
        for index in 0..SHARDS {
            let shard = self.shard(index);
            for (id, slot) in &shard.interactions {
                let last = found.last_key_value().map(|(last, _): (&Arc<str>, _)| Arc::clone(last));
                let room = found.len() < limit || last.is_some_and(|last| *id < last);
                if room && **id > *after && wanted(&slot.record) {
                    found.insert(Arc::clone(id), slot.record.clone());
                    if found.len() > limit {
                        found.pop_last();
                    }
                }
            }
        }
        found
    }

    /// Finds when the oldest open interaction of each route in one shard was made. Returns how many it looked at.
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

    /// Everything that a shard knows, as the changes that make it.
    pub(super) fn snapshot(&self, index: usize) -> Vec<Change> {
        let shard = self.shard(index);
        let mut changes = Vec::with_capacity(2 * shard.interactions.len());
        for (id, slot) in &shard.interactions {
            let (until, owner) = (slot.record.expires(), slot.number);
            let events = slot.record.delivered_events();
            changes.extend(events.map(|(key, number)| Change::Event(number, key, until, owner)));
            changes.push(change(id, slot));
        }
        changes
    }

    /// The events of no interaction, as the changes that make them.
    pub(super) fn snapshot_loose(&self) -> Vec<Change> {
        let dedup = self.dedup.lock();
        dedup.all().map(|(until, key, number)| Change::Event(number, key, until, NO_OWNER)).collect()
    }

    // === Time ===

    /// Lets time pass in one shard; returns what the agent is to be told.
    pub(super) fn pass(&self, index: usize, now: Timestamp, notices: &mut Vec<DueNotice>) {
        let mut shard = self.shard(index);
        while let Some(Reverse((at, _))) = shard.looks.peek()
            && *at <= now
            && let Some(Reverse((at, id))) = shard.looks.pop()
        {
            self.look(&mut shard, at, id, now, notices);
        }
    }

    /// Lets time pass for the events of no interaction.
    pub(super) fn pass_dedup(&self, now: Timestamp) {
        let mut changes = Vec::new();
        let mut dedup = self.dedup.lock();
        self.tidy_dedup(&mut dedup, now, &mut changes);
        if let (Some(journal), false) = (&self.journal, changes.is_empty()) {
            journal.record(changes);
        }
    }

    fn look(
        &self,
        shard: &mut Shard,
        at: Timestamp,
        id: Arc<str>,
        now: Timestamp,
        notices: &mut Vec<DueNotice>,
    ) {
        let Some(slot) = shard.interactions.get_mut(&id).filter(|slot| slot.look == at) else { return };
        let due = slot.record.pass(now);
        if due.lapsed {
            self.metrics.interaction_ended(&slot.record.route, slot.record.state.name());
        }
        if let Some(cause) = due.given_up {
            self.metrics.notice(&slot.record.route, cause.name(), "given_up");
        }
        if let Some(notice) = due.notice {
            notices.push(DueNotice { id: Arc::clone(&id), route: Arc::clone(&slot.record.route), notice });
        }
        if due.dead {
            self.remove(shard, &id);
            return;
        }
        slot.look = slot.record.next_look(now);
        if due.changed {
            self.write(&id, slot);
        }
        // Until the agent has answered a notice there is nothing to look at; then it is scheduled anew.
        if slot.look < NEVER {
            shard.looks.push(Reverse((slot.look, id)));
        }
    }
}

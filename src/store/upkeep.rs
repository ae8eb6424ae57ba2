//! What is done to the ledger in memory from inside: revoking, binding, answering, reading, and the passing of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::journal::Change;
use super::memory::{DueNotice, Mark, Memory, NEVER, NO_ROUTE, SHARDS, Shard, full};
use crate::config::Unknown;
use crate::denial::Refusal;
use crate::interaction::{Event, EventKey, Interaction, Overdue, QuestionFault, State};
use crate::policy::TTL_MAX;
use crate::time::Timestamp;

impl Memory {
    /// Does something to a record and writes it. Returns what was done and the journal's number.
    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Interaction) -> T) -> Option<(T, u64)> {
        let mut shard = self.shard(self.index(id));
        let key = Arc::clone(shard.interactions.get_key_value(id)?.0);
        let slot = shard.interactions.get_mut(id)?;
        let was_open = slot.record.state.is_open();
        let done = act(&mut slot.record);
        if was_open && !slot.record.state.is_open() {
            self.metrics.interaction_ended(&slot.record.route, slot.record.state.name());
        }
        let sequence = self.write(&key, slot);
        self.reschedule(&mut shard, &key);
        Some((done, sequence))
    }

    /// Revokes an interaction; `None`: it is not known, and never will be.
    pub(super) fn revoke(&self, id: &str, now: Timestamp) -> Option<Result<u64, Refusal>> {
        if let Some((_, sequence)) = self.with(id, |record| record.go(Event::Revoked)) {
            return Some(Ok(sequence));
        }
        if self.settings.unknown == Unknown::Refuse {
            return None;
        }
        // It may have been minted elsewhere and come in later: that it is revoked must be known then.
        if !self.reserve() {
            return Some(Err(full()));
        }
        let id: Arc<str> = id.into();
        let mut record = Interaction::new(NO_ROUTE.into(), "".into(), now, now.plus(TTL_MAX));
        record.state = State::Revoked;
        let mut shard = self.shard(self.index(&id));
        let slot = self.insert(&mut shard, &id, record, self.number());
        Some(Ok(self.write(&id, slot)))
    }

    pub(super) fn go(&self, id: &str, event: Event) -> u64 {
        self.with(id, |record| record.go(event)).map_or(0, |(_, sequence)| sequence)
    }

    pub(super) fn bind(&self, id: &str, provider_id: &str) -> u64 {
        self.with(id, |record| record.bind(provider_id)).map_or(0, |(_, sequence)| sequence)
    }

    pub(super) fn take_question(
        &self,
        id: &str,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<(Arc<str>, u32, Box<str>), QuestionFault> {
        let mut shard = self.shard(self.index(id));
        let slot = shard.interactions.get_mut(id).ok_or(QuestionFault::Unknown)?;
        let (number, endpoint) = slot.record.take_question(number, now)?;
        Ok((Arc::clone(&slot.record.route), number, endpoint))
    }

    pub(super) fn answer(&self, id: &str, number: u32, arrived: bool) -> u64 {
        self.with(id, |record| record.answer(number, arrived)).map_or(0, |(_, sequence)| sequence)
    }

    pub(super) fn noticed(&self, id: &str, cause: Overdue, answered: bool, now: Timestamp) -> u64 {
        self.with(id, |record| record.noticed(cause, answered, now)).map_or(0, |(_, sequence)| sequence)
    }

    // === Reading ===

    pub(super) fn read(&self, id: &str) -> Option<Interaction> {
        self.shard(self.index(id)).interactions.get(id).map(|slot| slot.record.clone())
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

    /// When the oldest open interaction of each route was made.
    pub(super) fn oldest(&self) -> HashMap<Arc<str>, Timestamp> {
        let mut oldest: HashMap<Arc<str>, Timestamp> = HashMap::new();
        for index in 0..SHARDS {
            let shard = self.shard(index);
            for slot in shard.interactions.values().filter(|slot| slot.record.state.is_open()) {
                let created = slot.record.created();
                match oldest.get_mut(&slot.record.route) {
                    Some(at) => *at = created.min(*at),
                    None => drop(oldest.insert(Arc::clone(&slot.record.route), created)),
                }
            }
        }
        oldest
    }

    // === Time ===

    /// Lets time pass in one shard, and adds what the agent is to be told to `notices`, up to `room` of them.
    pub(super) fn pass(&self, index: usize, now: Timestamp, room: usize, notices: &mut Vec<DueNotice>) {
        let mut shard = self.shard(index);
        while notices.len() < room
            && let Some(Reverse((at, _))) = shard.looks.peek()
            && *at <= now
            && let Some(Reverse((at, id))) = shard.looks.pop()
        {
            self.look(&mut shard, at, id, now, notices);
        }
        while let Some(Reverse((until, _))) = shard.ends.peek()
            && *until <= now
            && let Some(Reverse((_, event))) = shard.ends.pop()
        {
            let over = matches!(shard.events.get(&EventKey(event)), Some(Mark::Delivered(u, _)) if *u <= now);
            if over {
                self.forget(&mut shard, EventKey(event));
            }
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
        if let Some(cause) = due.notice {
            notices.push(DueNotice { id: Arc::clone(&id), interaction: slot.record.clone(), cause });
        }
        if due.dead {
            let number = slot.number;
            shard.interactions.remove(&id);
            self.interactions.fetch_sub(1, Ordering::Relaxed);
            if let Some(journal) = &self.journal {
                journal.record([Change::InteractionGone(number)]);
            }
            return;
        }
        slot.look = slot.record.next_look();
        if due.changed {
            self.write(&id, slot);
        }
        // Until the agent has answered a notice there is nothing to look at; then it is scheduled anew.
        if slot.look < NEVER {
            shard.looks.push(Reverse((slot.look, id)));
        }
    }
}

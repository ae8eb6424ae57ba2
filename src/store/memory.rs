//! The ledger in memory: interactions and delivered events, in shards, each under a lock that a callback holds for a
//! few look-ups. Whether it is also written to a file is the journal's business: every change is
//! handed to it while the shard is locked, so that the file sees changes in the order in which they happened.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::change::{Change, NO_OWNER};
use super::dedup::Dedup;
use super::journal::Journal;
use crate::config::{StoreSettings, Unknown};
use crate::denial::{Denial, Refusal};
use crate::interaction::{
    Ask, Claim, ClaimError, EventKey, EventState, Interaction, NoticeId, Report, State, pairs,
};
use crate::observe::Metrics;
use crate::policy::Minted;
use crate::time::Timestamp;
use crate::token::Granted;

/// Parts of the ledger, each with a lock of its own.
pub(super) const SHARDS: usize = 64;

/// Before every deadline.
const EPOCH: Timestamp = Timestamp::from_unix_ms(0);
/// Beyond every deadline.
pub(super) const NEVER: Timestamp = Timestamp::from_unix_ms(i64::MAX);

/// Entries of a shard's clock that may be void, besides as many as there are others.
const VOID_LOOKS_MAX: usize = 1024;

/// The route of what is only known to be revoked.
pub(super) const NO_ROUTE: &str = "-";

/// A callback that the ledger lets pass, until it is settled or released.
#[derive(Debug)]
pub(super) enum Hold {
    /// One of an interaction.
    Interaction(Box<str>, Claim),
    /// One whose token names no interaction, by its events.
    Dedup(Vec<EventKey>),
}

/// A notice that is to be delivered.
#[derive(Clone, Debug)]
pub struct DueNotice {
    /// The interaction's id.
    pub id: Arc<str>,
    /// Its route.
    pub route: Arc<str>,
    /// Which notice it is, and what did not come.
    pub notice: NoticeId,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) record: Interaction,
    /// Under which the file has it.
    pub(super) number: u64,
    /// When the shard's clock will look at it; other entries of the clock for it are void.
    pub(super) look: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    names: HashSet<Arc<str>>,
    pub(super) interactions: HashMap<Arc<str>, Box<Slot>>,
    pub(super) looks: BinaryHeap<Reverse<(Timestamp, Arc<str>)>>,
}

/// The ledger.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Vec<Mutex<Shard>>,
    pub(super) dedup: Mutex<Dedup>,
    pub(super) interactions: AtomicUsize,
    /// Events of interactions.
    pub(super) events: AtomicUsize,
    /// Interactions that were never sent, whose tokens nobody has: they make room.
    pub(super) unsent: Mutex<VecDeque<Arc<str>>>,
    /// What is only known to be revoked.
    pub(super) tombstones: AtomicUsize,
    pub(super) settings: StoreSettings,
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Memory {
    pub(super) fn new(settings: StoreSettings, journal: Option<Arc<Journal>>, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            dedup: Mutex::default(),
            interactions: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            unsent: Mutex::default(),
            tombstones: AtomicUsize::new(0),
            settings,
            journal,
            metrics,
        }
    }

    /// How many interactions and events there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let events = self.events.load(Ordering::Relaxed) + self.dedup.lock().len();
        (self.interactions.load(Ordering::Relaxed), events)
    }

    /// Ids are random: the sum of the bytes spreads them.
    pub(super) fn index(id: &str) -> usize {
        id.bytes().fold(0, |sum, byte| sum + usize::from(byte))
    }

    #[allow(clippy::indexing_slicing, reason = "the index is taken modulo the number of shards")]
    pub(super) fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index % SHARDS].lock()
    }

    /// Writes what became of a record. Returns the journal's number of the change.
    pub(super) fn write(&self, id: &Arc<str>, slot: &Slot) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.record([change(id, slot)]))
    }

    /// A number for something new.
    pub(super) fn number(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.number())
    }

    // === Opening ===

    /// Takes room for one more interaction, if there is any.
    fn take_room(&self) -> bool {
        let max = self.settings.interactions_max;
        let more = |count: usize| (count < max).then_some(count + 1);
        self.interactions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// The same, and makes room where nobody misses it. No shard may be locked.
    fn make_room(&self) -> bool {
        self.take_room() || (self.drop_unsent() && self.take_room())
    }

    /// Forgets one interaction that was never sent and whose token nobody has.
    fn drop_unsent(&self) -> bool {
        loop {
            let Some(id) = self.unsent.lock().pop_front() else { return false };
            let mut shard = self.shard(Self::index(&id));
            let unsent = shard.interactions.get(&id).is_some_and(|slot| slot.record.state == State::NotSent);
            if unsent && self.remove(&mut shard, &id) {
                return true;
            }
        }
    }

    /// Forgets an interaction and its events.
    pub(super) fn remove(&self, shard: &mut Shard, id: &Arc<str>) -> bool {
        let Some(slot) = shard.interactions.remove(id) else { return false };
        let numbers: Vec<_> = slot.record.event_numbers().collect();
        self.events.fetch_sub(numbers.len(), Ordering::Relaxed);
        let count = if *slot.record.route == *NO_ROUTE { &self.tombstones } else { &self.interactions };
        count.fetch_sub(1, Ordering::Relaxed);
        if let Some(journal) = &self.journal {
            let events = numbers.into_iter().map(Change::EventGone);
            journal.record(events.chain([Change::InteractionGone(slot.number)]));
        }
        true
    }

    /// Records a minted interaction.
    pub(super) fn open(&self, minted: &Minted, now: Timestamp) -> Result<u64, Refusal> {
        if !self.make_room() {
            return Err(full());
        }
        let id: Arc<str> = minted.interaction.as_str().into();
        let route = &minted.route;
        let record = Interaction::new(Arc::clone(&route.name), minted.captures.clone(), now, minted.expires);
        let record = record.followed(&route.follow, route.notify.is_some());
        let mut record = record.limited(minted.uses);
        record.provider = route.provider.as_ref().map(|provider| Arc::clone(&provider.name));
        let mut shard = self.shard(Self::index(&id));
        let slot = self.insert(&mut shard, &id, record, self.number());
        Ok(self.write(&id, slot))
    }

    pub(super) fn insert<'s>(
        &self,
        shard: &'s mut Shard,
        id: &Arc<str>,
        record: Interaction,
        number: u64,
    ) -> &'s mut Slot {
        if record.state.is_open() {
            self.metrics.interaction_opened(&record.route);
        }
        let look = record.next_look(EPOCH);
        shard.looks.push(Reverse((look, Arc::clone(id))));
        let slot = Box::new(Slot { record, number, look });
        shard.interactions.entry(Arc::clone(id)).insert_entry(slot).into_mut()
    }

    /// Takes over what a file held; returns the id.
    pub(super) fn restore(&self, number: u64, id: Box<str>, mut record: Interaction) -> Arc<str> {
        let count = if *record.route == *NO_ROUTE { &self.tombstones } else { &self.interactions };
        count.fetch_add(1, Ordering::Relaxed);
        let id: Arc<str> = id.into();
        let mut shard = self.shard(Self::index(&id));
        // Routes are few: each shard keeps one copy of a name.
        match shard.names.get(&record.route) {
            Some(name) => record.route = Arc::clone(name),
            None => drop(shard.names.insert(Arc::clone(&record.route))),
        }
        self.insert(&mut shard, &id, record, number);
        id
    }

    /// Takes over an event that a file held; `owner` is its interaction, if it has one.
    pub(super) fn restore_event(&self, number: u64, event: EventKey, until: Timestamp, owner: Option<&str>) {
        let Some(id) = owner else {
            self.dedup.lock().remember(event, until, number);
            return;
        };
        let mut shard = self.shard(Self::index(id));
        if let Some(slot) = shard.interactions.get_mut(id) {
            slot.record.restore_event(event, number);
            self.events.fetch_add(1, Ordering::Relaxed);
        }
    }

    // === Callbacks ===

    /// Asks whether a callback may be delivered. `Ok(None)`: not before what is under way has ended.
    pub(super) fn claim(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Hold>, ClaimError> {
        let Some(granted) = ask.granted else {
            return match self.dedup.lock().claim(ask.events, now) {
                EventState::Delivered => Err(ClaimError::Duplicate),
                EventState::Delivering => Ok(None),
                EventState::Unknown => Ok(Some(Hold::Dedup(ask.events.to_vec()))),
            };
        };
        let id = &*granted.interaction;
        let mut shard = self.shard(Self::index(id));
        let shard = &mut *shard;
        let slot = match shard.interactions.get_mut(id) {
            Some(slot) => slot,
            None => self.adopt(shard, ask, granted, now)?,
        };
        let claim = slot.record.claim(ask, now)?;
        let full = || self.events.load(Ordering::Relaxed) >= self.settings.events_max;
        if claim.is_some() && !ask.events.is_empty() && full() {
            // An event that could not be remembered would be delivered twice.
            claim.iter().for_each(|claim| slot.record.release(claim));
            return Err(ClaimError::Refused(Refusal::new(
                Denial::StoreFull,
                "no more events can be remembered",
            )));
        }
        Ok(claim.map(|claim| Hold::Interaction(id.into(), claim)))
    }

    /// An interaction that is not known is, from now on.
    fn adopt<'s>(
        &self,
        shard: &'s mut Shard,
        ask: &Ask<'_>,
        granted: &Granted,
        now: Timestamp,
    ) -> Result<&'s mut Slot, ClaimError> {
        if self.settings.unknown == Unknown::Refuse {
            return Err(unknown());
        }
        let captures = pairs(ask.captures.iter());
        let record = Interaction::new(Arc::clone(ask.route), captures, granted.issued, granted.expires);
        let mut record = record.followed(ask.follow, ask.notifies).limited(granted.uses);
        record.provider = ask.provider.cloned();
        // One that would be over at once is not worth a record, nor a notice.
        if now >= record.deadline() {
            let refusal = Refusal::new(Denial::InteractionOver, "its deadline has passed");
            return Err(ClaimError::Refused(refusal));
        }
        if !self.take_room() {
            return Err(ClaimError::Refused(full()));
        }
        self.metrics.interaction_adopted(ask.route);
        Ok(self.insert(shard, &(*granted.interaction).into(), record, self.number()))
    }

    /// The agent took the callback. Returns the journal's number of the change.
    pub(super) fn settle(&self, hold: Hold, report: &Report, event_id: Option<&str>, now: Timestamp) -> u64 {
        match hold {
            Hold::Interaction(id, claim) => self.settle_interaction(&id, &claim, report, event_id, now),
            Hold::Dedup(keys) => self.settle_dedup(&keys, now),
        }
    }

    fn settle_interaction(
        &self,
        id: &str,
        claim: &Claim,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
    ) -> u64 {
        let mut shard = self.shard(Self::index(id));
        let Some(slot) = shard.interactions.get_mut(id) else { return 0 };
        let mut changes = Vec::new();
        let (until, owner) = (slot.record.expires(), slot.number);
        let ended = slot.record.settle(claim, report, event_id, now, |event| {
            self.events.fetch_add(1, Ordering::Relaxed);
            let number = self.number();
            if self.journal.is_some() {
                changes.push(Change::Event(number, event, until, owner));
            }
            number
        });
        if ended {
            self.metrics.interaction_ended(&slot.record.route, slot.record.state.name());
        }
        let sooner = slot.record.next_look(now) < slot.look;
        if !sooner && self.journal.is_none() {
            return 0;
        }
        let Some(id) = shard.interactions.get_key_value(id).map(|(id, _)| Arc::clone(id)) else { return 0 };
        self.reschedule(&mut shard, &id, now);
        let (Some(journal), Some(slot)) = (&self.journal, shard.interactions.get(&id)) else { return 0 };
        changes.push(change(&id, slot));
        journal.record(changes)
    }

    fn settle_dedup(&self, keys: &[EventKey], now: Timestamp) -> u64 {
        let until = now.plus(self.settings.remember);
        let mut dedup = self.dedup.lock();
        let mut changes = Vec::new();
        for key in keys {
            let number = self.number();
            dedup.remember(*key, until, number);
            changes.push(Change::Event(number, *key, until, NO_OWNER));
        }
        self.tidy_dedup(&mut dedup, now, &mut changes);
        self.journal.as_ref().map_or(0, |journal| journal.record(changes))
    }

    /// Forgets what is over, and what has to make room.
    pub(super) fn tidy_dedup(&self, dedup: &mut Dedup, now: Timestamp, changes: &mut Vec<Change>) {
        while let Some((number, made_room)) = dedup.forget(now, self.settings.events_max) {
            changes.push(Change::EventGone(number));
            if made_room {
                self.metrics.event_forgotten();
            }
        }
    }

    /// The callback was not delivered: everything is as before.
    pub(super) fn release(&self, hold: &Hold) {
        match hold {
            Hold::Dedup(keys) => self.dedup.lock().release(keys),
            Hold::Interaction(id, claim) => {
                let mut shard = self.shard(Self::index(id));
                if let Some(slot) = shard.interactions.get_mut(&**id) {
                    slot.record.release(claim);
                }
            }
        }
    }

    /// A record may have to be looked at sooner than its shard's clock knew.
    pub(super) fn reschedule(&self, shard: &mut Shard, id: &Arc<str>, now: Timestamp) {
        let Some(slot) = shard.interactions.get_mut(id) else { return };
        let look = slot.record.next_look(now);
        if look < slot.look {
            slot.look = look;
            shard.looks.push(Reverse((look, Arc::clone(id))));
        }
        // Entries that were overtaken are not looked for; when they are most of them, the clock is made anew.
        if shard.looks.len() > 2 * shard.interactions.len() + VOID_LOOKS_MAX {
            let looks = shard.interactions.iter().filter(|(_, slot)| slot.look < NEVER);
            shard.looks = looks.map(|(id, slot)| Reverse((slot.look, Arc::clone(id)))).collect();
        }
    }
}

/// What the file is to hold of a record, which has no number and no key that JSON lacks.
pub(super) fn change(id: &Arc<str>, slot: &Slot) -> Change {
    Change::Interaction(slot.number, Arc::clone(id), serde_json::to_vec(&slot.record).unwrap_or_default())
}

pub(super) fn full() -> Refusal {
    Refusal::new(Denial::StoreFull, "the ledger is full")
}

fn unknown() -> ClaimError {
    ClaimError::Refused(Refusal::new(Denial::InteractionUnknown, "the ledger does not know it"))
}

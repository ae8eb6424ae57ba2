//! The ledger in memory: interactions and delivered events, in shards, each under a lock that is never held
//! longer than a few look-ups. Whether it is also written to a file is the journal's business: every change is
//! handed to it while the shard is locked, so that the file sees changes in the order in which they happened.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::journal::{Change, Journal};
use crate::config::{StoreSettings, Unknown};
use crate::denial::{Denial, Refusal};
use crate::interaction::{Ask, EventKey, Held, Interaction, Overdue, Report, Scope};
use crate::observe::Metrics;
use crate::policy::Minted;
use crate::time::Timestamp;

/// Parts of the ledger, each with a lock of its own.
pub(super) const SHARDS: usize = 16;

/// Beyond every deadline.
pub(super) const NEVER: Timestamp = Timestamp::from_unix_ms(i64::MAX);

/// The route of what is only known to be revoked.
pub(super) const NO_ROUTE: &str = "none";

/// A callback that the ledger lets pass, until it is settled or released.
#[derive(Debug)]
pub(super) struct Hold {
    shard: usize,
    interaction: Option<Arc<str>>,
    events: Vec<EventKey>,
    /// The number of the question it asks.
    pub(super) question: Option<u32>,
    /// What it reports is overtaken.
    pub(super) stale: bool,
}

/// A notice that is to be delivered.
#[derive(Clone, Debug)]
pub struct DueNotice {
    /// The interaction's id.
    pub id: Arc<str>,
    /// What is known of it.
    pub interaction: Interaction,
    /// What did not come.
    pub cause: Overdue,
}

/// An event that is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// Delivered, and remembered until then; the file has it under this number.
    Delivered(Timestamp, u64),
    /// Being delivered.
    InFlight,
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
    pub(super) events: HashMap<EventKey, Mark>,
    pub(super) looks: BinaryHeap<Reverse<(Timestamp, Arc<str>)>>,
    pub(super) ends: BinaryHeap<Reverse<(Timestamp, u128)>>,
}

/// The ledger.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Vec<Mutex<Shard>>,
    pub(super) interactions: AtomicUsize,
    events: AtomicUsize,
    pub(super) settings: StoreSettings,
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Memory {
    pub(super) fn new(settings: StoreSettings, journal: Option<Arc<Journal>>, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            interactions: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            settings,
            journal,
            metrics,
        }
    }

    /// How many interactions and events there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.interactions.load(Ordering::Relaxed), self.events.load(Ordering::Relaxed))
    }

    pub(super) fn index(&self, id: &str) -> usize {
        usize::from(Scope::Interaction(id).part())
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

    pub(super) fn reserve(&self) -> bool {
        let max = self.settings.interactions_max;
        let more = |count: usize| (count < max).then_some(count + 1);
        self.interactions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Records a minted interaction.
    pub(super) fn open(&self, minted: &Minted) -> Result<u64, Refusal> {
        if !self.reserve() {
            return Err(full());
        }
        let id: Arc<str> = minted.interaction.as_str().into();
        let route = &minted.route;
        let record =
            Interaction::new(Arc::clone(&route.name), minted.captures.clone(), minted.issued, minted.expires);
        let record = record.followed(&route.follow, route.notify.is_some());
        let mut record = record.limited(minted.uses);
        record.provider = route.provider.as_ref().map(|provider| Arc::clone(&provider.name));
        let mut shard = self.shard(self.index(&id));
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
        let look = record.next_look();
        shard.looks.push(Reverse((look, Arc::clone(id))));
        let slot = Box::new(Slot { record, number, look });
        shard.interactions.entry(Arc::clone(id)).insert_entry(slot).into_mut()
    }

    /// Takes over what a file held.
    pub(super) fn restore(&self, number: u64, id: Box<str>, mut record: Interaction) {
        self.interactions.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(self.index(&id));
        // Routes are few: each shard keeps one copy of a name.
        match shard.names.get(&record.route) {
            Some(name) => record.route = Arc::clone(name),
            None => drop(shard.names.insert(Arc::clone(&record.route))),
        }
        self.insert(&mut shard, &id.into(), record, number);
    }

    /// Takes over an event that a file held.
    pub(super) fn restore_event(&self, number: u64, event: EventKey, until: Timestamp) {
        let mut shard = self.shard(usize::from(event.part()));
        self.remember(&mut shard, event, until, number);
    }

    // === Callbacks ===

    /// Asks whether a callback may be delivered. `Ok(None)`: not before what is under way has ended.
    pub(super) fn claim(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Hold>, Held> {
        let index = usize::from(ask.scope().part());
        let mut shard = self.shard(index);
        let mut wait = false;
        for event in ask.events {
            match shard.events.get(event) {
                Some(Mark::Delivered(until, _)) if *until > now => return Err(Held::Duplicate),
                Some(Mark::InFlight) => wait = true,
                Some(Mark::Delivered(..)) | None => {}
            }
        }
        if wait {
            return Ok(None);
        }
        let mut hold = Hold {
            shard: index,
            interaction: None,
            events: ask.events.to_vec(),
            question: None,
            stale: false,
        };
        if let Some(granted) = ask.granted {
            let id = self.adopted(&mut shard, ask)?;
            let Some(slot) = shard.interactions.get_mut(&*granted.interaction) else {
                return Err(unknown());
            };
            let Some(stale) = slot.record.admits(ask, now)? else { return Ok(None) };
            hold.question = slot.record.begin(ask.report);
            hold.stale = stale;
            hold.interaction = Some(id);
        }
        for event in &hold.events {
            if shard.events.insert(*event, Mark::InFlight).is_none() {
                self.events.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Some(hold))
    }

    /// The id of the callback's interaction, which is known from now on.
    fn adopted(&self, shard: &mut Shard, ask: &Ask<'_>) -> Result<Arc<str>, Held> {
        let Some(granted) = ask.granted else { return Err(unknown()) };
        if let Some((id, _)) = shard.interactions.get_key_value(&*granted.interaction) {
            return Ok(Arc::clone(id));
        }
        if self.settings.unknown == Unknown::Refuse {
            return Err(unknown());
        }
        if !self.reserve() {
            return Err(Held::Refused(full()));
        }
        let id: Arc<str> = (*granted.interaction).into();
        let captures: Vec<_> = ask.captures.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let captures = captures.join("&").into();
        let record = Interaction::new(Arc::clone(ask.route), captures, granted.issued, granted.expires);
        let mut record = record.followed(ask.follow, ask.notifies).limited(granted.uses);
        record.provider = ask.provider.cloned();
        self.metrics.interaction_adopted(ask.route);
        self.insert(shard, &id, record, self.number());
        Ok(id)
    }

    /// The agent took the callback. Returns the journal's number of the change.
    pub(super) fn settle(&self, hold: &Hold, report: &Report, event_id: Option<&str>, now: Timestamp) -> u64 {
        let mut shard = self.shard(hold.shard);
        let mut until = now.plus(self.settings.remember);
        let mut changes = Vec::with_capacity(3);
        if let Some(id) = &hold.interaction
            && let Some(slot) = shard.interactions.get_mut(id)
        {
            let record = &mut slot.record;
            let ended = record.settle(report, hold.question, event_id, now);
            until = record.expires();
            if ended {
                self.metrics.interaction_ended(&record.route, record.state.name());
            }
            if self.journal.is_some() {
                changes.push(change(id, slot));
            }
            self.reschedule(&mut shard, id);
        }
        for event in &hold.events {
            let number = self.number();
            self.remember(&mut shard, *event, until, number);
            if self.journal.is_some() {
                changes.push(Change::Event(number, *event, until));
            }
        }
        self.journal.as_ref().map_or(0, |journal| journal.record(changes))
    }

    /// The callback was not delivered: everything is as before.
    pub(super) fn release(&self, hold: &Hold) {
        let mut shard = self.shard(hold.shard);
        for event in &hold.events {
            if matches!(shard.events.get(event), Some(Mark::InFlight)) {
                shard.events.remove(event);
                self.events.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(slot) = hold.interaction.as_ref().and_then(|id| shard.interactions.get_mut(id)) {
            slot.record.release();
        }
    }

    fn remember(&self, shard: &mut Shard, event: EventKey, until: Timestamp, number: u64) {
        if shard.events.insert(event, Mark::Delivered(until, number)).is_none() {
            self.events.fetch_add(1, Ordering::Relaxed);
        }
        shard.ends.push(Reverse((until, event.0)));
        if self.events.load(Ordering::Relaxed) > self.settings.events_max
            && let Some(Reverse((_, oldest))) = shard.ends.pop()
        {
            self.forget(shard, EventKey(oldest));
            self.metrics.event_forgotten();
        }
    }

    pub(super) fn forget(&self, shard: &mut Shard, event: EventKey) {
        if let Some(Mark::Delivered(_, number)) = shard.events.get(&event).copied() {
            shard.events.remove(&event);
            self.events.fetch_sub(1, Ordering::Relaxed);
            if let Some(journal) = &self.journal {
                journal.record([Change::EventGone(number)]);
            }
        }
    }

    /// A record is to be looked at sooner than its shard's clock knew.
    pub(super) fn reschedule(&self, shard: &mut Shard, id: &Arc<str>) {
        let Some(slot) = shard.interactions.get_mut(id) else { return };
        let look = slot.record.next_look();
        if look < slot.look {
            slot.look = look;
            shard.looks.push(Reverse((look, Arc::clone(id))));
        }
    }
}

/// What the file is to hold of a record, which has no number and no key that JSON lacks.
fn change(id: &Arc<str>, slot: &Slot) -> Change {
    Change::Interaction(slot.number, Arc::clone(id), serde_json::to_vec(&slot.record).unwrap_or_default())
}

pub(super) fn full() -> Refusal {
    Refusal::new(Denial::StoreFull, "the ledger is full")
}

fn unknown() -> Held {
    Held::Refused(Refusal::new(Denial::InteractionUnknown, "the ledger does not know it"))
}

//! The ledger in memory: interactions and delivered events in shards. A callback locks only one shard. Every change is
//! recorded in the commit queue while its shard is locked, so that the file receives the changes in the same order as
//! the memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::dedup::Dedup;
use super::event_memory::{EventLog, FingerprintKey, Oldest, is_inherited, window_of};
use super::file::{Change, CommitQueue};
use super::matching::Matching;
use super::new_record::{adopted_record, opened_record};
use super::outcome::NO_ROUTE;
use crate::config::StoreSettings;
use crate::denial::{Denial, Refusal};
use crate::interaction::{Ask, Claim, ClaimError, EventKey, EventState, Interaction, State};
use crate::observe::Metrics;
use crate::policy::Minted;
use crate::time::Timestamp;

/// The number of shards of the ledger in memory.
pub(super) const SHARDS: usize = 64;

/// A time before every deadline.
const EPOCH: Timestamp = Timestamp::from_unix_ms(0);
/// A time after every deadline.
pub(super) const NEVER: Timestamp = Timestamp::from_unix_ms(i64::MAX);

/// A limit for the heap `checks` of a shard. The heap is rebuilt without outdated entries if it has more than `2 *
/// interactions + STALE_CHECKS_MAX` entries.
const STALE_CHECKS_MAX: usize = 1024;

/// A claimed callback, until the claim is settled or released. The last field of each variant is the replay window in
/// seconds, as [`window_of`] rounds it: the time after the delivery during which a replay may pass the signature check.
#[derive(Debug)]
pub(super) enum Hold {
    /// A callback of an interaction: the id of the interaction, and the claim.
    Interaction(Box<str>, Claim, u32),
    /// A callback without an interaction: the keys of its event.
    Dedup(Vec<EventKey>, u32),
}

/// An interaction in its shard.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) record: Interaction,
    /// The number of the interaction, which is the key of its record in the ledger's file.
    pub(super) number: u64,
    /// The time of the next check of the interaction's deadlines. The shard's heap `checks` can contain outdated
    /// entries with other times.
    pub(super) next_check: Timestamp,
}

/// A shard of the ledger in memory.
#[derive(Debug)]
pub(super) struct Shard {
    /// The names of the routes. All interactions of a route in this shard share one copy of its name.
    pub(super) names: HashSet<Arc<str>>,
    pub(super) interactions: HashMap<Arc<str>, Box<Slot>>,
    /// The times of the next checks, each with the id of the interaction whose deadlines must be checked.
    pub(super) checks: BinaryHeap<Reverse<(Timestamp, Arc<str>)>>,
    /// The delivered events of the interactions.
    pub(super) events: EventLog,
    /// The ids of the ended interactions that may still have events. These events are removed first when room is
    /// needed.
    pub(super) over: VecDeque<Arc<str>>,
    /// The ids of the interactions that are retained only for display, in the order in which their tokens expired. A
    /// full ledger removes these interactions first.
    pub(super) kept: VecDeque<Arc<str>>,
}

/// The ledger in memory: interactions and delivered events.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Vec<Mutex<Shard>>,
    pub(super) dedup: Mutex<Dedup>,
    /// The number of interactions. Interactions that were revoked before the ledger contained them are not counted
    /// here.
    pub(super) interactions: AtomicUsize,
    /// The number of interactions that are retained only for display.
    pub(super) kept: AtomicUsize,
    /// The shard from which a full ledger removes the next interaction that is retained only for display.
    pub(super) next_eviction: AtomicUsize,
    /// The number of delivered events, with and without an interaction.
    pub(super) events: AtomicUsize,
    /// The time of the oldest event of each shard ([`Oldest::to_bits`]). The last element is for the events without an
    /// interaction. An element is [`Oldest::FIRST`] if its shard may have events of ended interactions.
    pub(super) oldest: Vec<AtomicU64>,
    pub(super) fingerprints: FingerprintKey,
    /// The ids of the interactions whose request was not sent and whose token nobody has. A full ledger removes these
    /// interactions.
    pub(super) unsent: Mutex<VecDeque<Arc<str>>>,
    /// The number of interactions that were revoked before the ledger contained them.
    pub(super) tombstones: AtomicUsize,
    /// The shard at which the next [`Store::pass`](super::Store::pass) begins.
    pub(super) next_pass: AtomicUsize,
    /// The key is the id of a process. The value is the number of interactions in this ledger that were handed over and
    /// whose tokens that process minted.
    pub(super) origins: Mutex<HashMap<Box<str>, usize>>,
    /// The interactions that callbacks without a token find by the provider's id.
    pub(super) matching: Mutex<Matching>,
    pub(super) settings: StoreSettings,
    pub(super) commit_queue: Option<Arc<CommitQueue>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Shard {
    fn new() -> Self {
        Self {
            names: HashSet::new(),
            interactions: HashMap::new(),
            checks: BinaryHeap::new(),
            events: EventLog::new(1),
            over: VecDeque::new(),
            kept: VecDeque::new(),
        }
    }
}

impl Memory {
    pub(super) fn new(
        settings: StoreSettings,
        fingerprints: FingerprintKey,
        commit_queue: Option<Arc<CommitQueue>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            dedup: Mutex::new(Dedup::new(fingerprints)),
            oldest: (0..=SHARDS).map(|_| AtomicU64::new(Oldest::NONE.to_bits())).collect(),
            fingerprints,
            interactions: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            next_eviction: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            unsent: Mutex::default(),
            tombstones: AtomicUsize::new(0),
            next_pass: AtomicUsize::new(0),
            origins: Mutex::default(),
            matching: Mutex::default(),
            settings,
            commit_queue,
            metrics,
        }
    }

    /// Returns the number of interactions and the number of delivered events. Interactions that are retained only for
    /// display are not counted.
    pub(super) fn counts(&self) -> (usize, usize) {
        let kept = self.kept.load(Ordering::Relaxed);
        (self.interactions.load(Ordering::Relaxed).saturating_sub(kept), self.events.load(Ordering::Relaxed))
    }

    /// Returns the sum of the bytes of an interaction id. The sum modulo [`SHARDS`] is the index of the interaction's
    /// shard. The ids are random, so each shard gets about the same number of interactions.
    pub(super) fn index(id: &str) -> usize {
        id.bytes().fold(0, |sum, byte| sum + usize::from(byte))
    }

    #[allow(clippy::indexing_slicing, reason = "the index is taken modulo the number of shards")]
    pub(super) fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index % SHARDS].lock()
    }

    /// Records the new state of an interaction in the commit queue. Returns the sequence number of the change.
    pub(super) fn write(&self, id: &Arc<str>, slot: &Slot) -> u64 {
        self.commit_queue.as_ref().map_or(0, |commit_queue| commit_queue.record([change(id, slot)]))
    }

    /// Returns the next unused number for a record in the file. Returns 0 if the ledger is not in a file.
    pub(super) fn number(&self) -> u64 {
        self.commit_queue.as_ref().map_or(0, |commit_queue| commit_queue.number())
    }

    // === Opening interactions ===

    /// Reserves room for one more interaction. Returns false if the ledger is full.
    fn reserve(&self) -> bool {
        let max = self.settings.interactions_max;
        let more = |count: usize| (count < max).then_some(count + 1);
        self.interactions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Reserves room for one more interaction. If the ledger is full, first removes one interaction: one that is
    /// retained only for display, or one whose request was not sent. Returns false if there is still no room. The
    /// caller must not have locked a shard.
    fn reserve_or_evict(&self) -> bool {
        self.reserve() || ((self.evict_kept() || self.evict_unsent()) && self.reserve())
    }

    /// Removes one interaction whose request was not sent and whose token nobody has. Returns false if there is none.
    fn evict_unsent(&self) -> bool {
        loop {
            let Some(id) = self.unsent.lock().pop_front() else { return false };
            let mut shard = self.shard(Self::index(&id));
            let unsent = shard.interactions.get(&id).is_some_and(|slot| slot.record.state == State::NotSent);
            if unsent && let Some(changes) = self.remove(&mut shard, &id) {
                if let Some(commit_queue) = &self.commit_queue {
                    commit_queue.record(changes);
                }
                return true;
            }
        }
    }

    /// Removes an interaction and its events. Returns the changes for the commit queue, or `None` if the interaction
    /// does not exist.
    pub(super) fn remove(&self, shard: &mut Shard, id: &Arc<str>) -> Option<Vec<Change>> {
        let slot = shard.interactions.remove(id)?;
        if let Some(origin) = slot.record.origin() {
            self.uncount_origin(origin);
        }
        if slot.record.is_matched() {
            self.matching.lock().remove(id, &slot.record);
        }
        self.kept.fetch_sub(usize::from(slot.record.is_kept), Ordering::Relaxed);
        let mut changes = self.drop_events(&mut shard.events, slot.record.delivered_events());
        self.note_oldest(Self::index(id), shard);
        let count = if *slot.record.route == *NO_ROUTE { &self.tombstones } else { &self.interactions };
        count.fetch_sub(1, Ordering::Relaxed);
        // The interaction is removed from the file after its events. If the process ends in between, no event in the
        // file lacks its interaction.
        changes.push(Change::InteractionGone(slot.number));
        Some(changes)
    }

    /// Records a minted interaction. Returns the sequence number of the change.
    pub(super) fn open(&self, minted: &Minted, now: Timestamp) -> Result<u64, Refusal> {
        if !self.reserve_or_evict() {
            return Err(full());
        }
        let id: Arc<str> = minted.interaction.as_str().into();
        let record = opened_record(minted, now);
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
        if let Some(origin) = record.origin() {
            self.count_origin(origin);
        }
        if record.is_matched() {
            self.matching.lock().add(id, &record);
        }
        let next_check = record.next_look(EPOCH);
        shard.checks.push(Reverse((next_check, Arc::clone(id))));
        let slot = Box::new(Slot { record, number, next_check });
        shard.interactions.entry(Arc::clone(id)).insert_entry(slot).into_mut()
    }

    // === Callbacks ===

    /// Claims a callback. Returns `Ok(None)` if the caller must wait for the end of another delivery.
    pub(super) fn claim(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Hold>, ClaimError> {
        let Some(id) = ask.interaction() else {
            return match self.dedup.lock().claim(ask.events, self.remembered_since(now)) {
                EventState::Delivered => Err(ClaimError::Duplicate),
                EventState::Delivering => Ok(None),
                EventState::Unknown => Ok(Some(Hold::Dedup(ask.events.to_vec(), window(ask)))),
            };
        };
        if ask.granted.is_some() {
            self.make_room_for_one();
        }
        let mut shard = self.shard(Self::index(id));
        let shard = &mut *shard;
        let is_known =
            |event: &EventKey| shard.events.get(self.fingerprints.fingerprint(id, *event)).is_some();
        let known: Vec<_> = ask.events.iter().chain(ask.repeats).copied().filter(is_known).collect();
        let slot = match shard.interactions.get_mut(id) {
            Some(slot) => slot,
            None => self.adopt(shard, ask, id, now)?,
        };
        let mut known = known;
        if !slot.record.inherited().is_empty() {
            let all = ask.events.iter().chain(ask.repeats).copied();
            known.extend(all.filter(|event| is_inherited(&slot.record, id, *event)));
        }
        let claim = slot.record.claim(ask, now, |event| known.contains(&event))?;
        Ok(claim.map(|claim| Hold::Interaction(id.into(), claim, window(ask))))
    }

    /// Adds an interaction that the ledger does not contain. The record is made from the callback's token.
    fn adopt<'s>(
        &self,
        shard: &'s mut Shard,
        ask: &Ask<'_>,
        id: &str,
        now: Timestamp,
    ) -> Result<&'s mut Slot, ClaimError> {
        let record = adopted_record(ask, self.settings.unknown, now).map_err(ClaimError::Refused)?;
        if !self.reserve() {
            return Err(ClaimError::Refused(full()));
        }
        self.metrics.interaction_adopted(ask.route);
        Ok(self.insert(shard, &id.into(), record, self.number()))
    }

    /// Releases the claim of a callback that was not delivered.
    pub(super) fn release(&self, hold: &Hold) {
        match hold {
            Hold::Dedup(keys, _) => self.dedup.lock().release(keys),
            Hold::Interaction(id, claim, _) => {
                let mut shard = self.shard(Self::index(id));
                if let Some(slot) = shard.interactions.get_mut(&**id) {
                    slot.record.release(claim);
                }
            }
        }
    }

    /// Schedules a check of an interaction's deadlines, if a deadline passes before the next scheduled check.
    pub(super) fn reschedule(&self, shard: &mut Shard, id: &Arc<str>, now: Timestamp) {
        let Some(slot) = shard.interactions.get_mut(id) else { return };
        let next_check = slot.record.next_look(now);
        if next_check < slot.next_check {
            slot.next_check = next_check;
            shard.checks.push(Reverse((next_check, Arc::clone(id))));
        }
        // Outdated entries stay in the heap. When they are the majority, the heap is rebuilt without them.
        if shard.checks.len() > 2 * shard.interactions.len() + STALE_CHECKS_MAX {
            let checks = shard.interactions.iter().filter(|(_, slot)| slot.next_check < NEVER);
            shard.checks = checks.map(|(id, slot)| Reverse((slot.next_check, Arc::clone(id)))).collect();
        }
    }
}

/// Returns the change that writes an interaction to the file. The serialization cannot fail, because every value of a
/// record can be written as JSON.
pub(super) fn change(id: &Arc<str>, slot: &Slot) -> Change {
    Change::Interaction(slot.number, Arc::clone(id), serde_json::to_vec(&slot.record).unwrap_or_default())
}

/// Returns the replay window of a callback in seconds: the time after the delivery during which a replay may pass the
/// signature check. The log of events rounds the window in the same way, so that memory and file contain the same
/// value.
fn window(ask: &Ask<'_>) -> u32 {
    let window = ask.replay_window.map_or(u64::MAX, |window| window.as_secs());
    window_of(u32::try_from(window).unwrap_or(u32::MAX))
}

pub(super) fn full() -> Refusal {
    Refusal::new(Denial::StoreFull, "the ledger is full")
}

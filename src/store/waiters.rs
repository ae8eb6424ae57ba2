//! The claims that wait for the end of another claim.
//!
//! When a delivery fails, one of the claims that wait for it is woken and tries next: all of them want the same delivery,
//! as a rule. When a delivery succeeds, all of them are woken, because each of them ends then. The end of a claim wakes
//! no claim of another interaction or event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::memory::Hold;
use crate::interaction::{Ask, EventKey};

const WAITING: u8 = 0;
/// Woken alone. If it does not claim, it must wake the others.
const WOKEN_ALONE: u8 = 1;
const WOKEN_WITH_ALL: u8 = 2;

/// What a claim waits for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum WaitKey {
    /// A delivery for the interaction with this id.
    Interaction(Box<str>),
    /// The delivery of an event without an interaction.
    Event(EventKey),
}

impl WaitKey {
    /// Returns the keys that a claim waits for.
    pub(super) fn of_ask(ask: &Ask<'_>) -> Vec<Self> {
        match ask.granted {
            Some(granted) => vec![Self::Interaction(granted.interaction.as_ref().into())],
            None => ask.events.iter().copied().map(Self::Event).collect(),
        }
    }

    /// Returns the keys of the claims that wait for the end of a claim.
    fn of_hold(hold: &Hold) -> Vec<Self> {
        match hold {
            Hold::Interaction(id, ..) => vec![Self::Interaction(id.clone())],
            Hold::Dedup(keys, _) => keys.iter().copied().map(Self::Event).collect(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    state: AtomicU8,
    woken: Notify,
}

impl Entry {
    /// Wakes the claim. Returns false if it was woken before.
    fn wake(&self, state: u8) -> bool {
        let woken = self.state.compare_exchange(WAITING, state, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if woken {
            self.woken.notify_one();
        }
        woken
    }
}

/// The waiting claims, by what they wait for and in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<HashMap<WaitKey, BTreeMap<u64, Arc<Entry>>>>,
    /// The number of waiting claims. Most claims end while nobody waits.
    count: AtomicUsize,
    next_ticket: AtomicU64,
}

/// A waiting claim. Dropping it ends the wait.
pub(super) struct Waiter<'w> {
    waiters: &'w Waiters,
    keys: &'w [WaitKey],
    ticket: u64,
    entry: Arc<Entry>,
}

impl Waiters {
    /// Registers a claim that may have to wait. It must be registered before its attempt, so that a claim that ends after
    /// the attempt wakes it.
    pub(super) fn register<'w>(&'w self, keys: &'w [WaitKey]) -> Waiter<'w> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry { state: AtomicU8::new(WAITING), woken: Notify::new() });
        let mut waiting = self.waiting.lock();
        for key in keys {
            waiting.entry(key.clone()).or_default().insert(ticket, Arc::clone(&entry));
        }
        Waiter { waiters: self, keys, ticket, entry }
    }

    /// Wakes the claims that wait for the end of this claim: all of them if its callback was delivered, or one of them.
    pub(super) fn claim_ended(&self, hold: &Hold, was_delivered: bool) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.wake(&WaitKey::of_hold(hold), was_delivered);
        }
    }

    fn wake(&self, keys: &[WaitKey], all: bool) {
        let waiting = self.waiting.lock();
        for entries in keys.iter().filter_map(|key| waiting.get(key)) {
            let mut entries = entries.values();
            if all {
                entries.for_each(|entry| {
                    entry.wake(WOKEN_WITH_ALL);
                });
            } else {
                entries.any(|entry| entry.wake(WOKEN_ALONE));
            }
        }
    }
}

impl Waiter<'_> {
    /// Waits until the claim should be tried again.
    pub(super) async fn woken(&self) {
        self.entry.woken.notified().await;
    }

    /// Ends the wait of a claim that has succeeded. Its own end will wake the others.
    pub(super) fn succeeded(self) {
        self.entry.state.store(WOKEN_WITH_ALL, Ordering::SeqCst);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock();
        for key in self.keys {
            if let Some(entries) = waiting.get_mut(key) {
                entries.remove(&self.ticket);
                if entries.is_empty() {
                    waiting.remove(key);
                }
            }
        }
        drop(waiting);
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        if self.entry.state.load(Ordering::SeqCst) == WOKEN_ALONE {
            self.waiters.wake(self.keys, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(waiters: &[Waiter<'_>]) -> usize {
        waiters.iter().filter(|waiter| waiter.entry.state.load(Ordering::SeqCst) != WAITING).count()
    }

    #[test]
    fn a_failed_delivery_wakes_one_of_those_who_wait_for_it() {
        let waiters = Waiters::default();
        let keys = [WaitKey::Event(EventKey(1)), WaitKey::Event(EventKey(2))];
        let others = [WaitKey::Interaction("int_a".into())];
        let other = waiters.register(&others);
        let mut waiting: Vec<_> = (0..100).map(|_| waiters.register(&keys)).collect();
        let hold = Hold::Dedup(vec![EventKey(1)], 0);
        waiters.claim_ended(&hold, false);
        assert_eq!(woken(&waiting), 1);
        // It claims and fails, and then the next one is woken.
        waiting.remove(0).succeeded();
        assert_eq!(woken(&waiting), 0);
        waiters.claim_ended(&hold, false);
        assert_eq!(woken(&waiting), 1);
        // It gives up, and then the others must not be forgotten.
        drop(waiting.remove(0));
        assert_eq!((waiting.len(), woken(&waiting)), (98, 98));
        // A delivery ends the wait of everybody.
        let again: Vec<_> = (0..10).map(|_| waiters.register(&keys)).collect();
        waiters.claim_ended(&hold, true);
        assert_eq!(woken(&again), 10);
        assert_eq!(other.entry.state.load(Ordering::SeqCst), WAITING, "it waits for another claim");
        drop((waiting, again, other));
        assert!(waiters.waiting.lock().is_empty());
        assert_eq!(waiters.count.load(Ordering::SeqCst), 0);
    }
}

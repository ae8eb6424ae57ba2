//! The claims that wait for the end of another claim.
//!
//! A claim of an interaction waits for the end of any delivery of this interaction, even of another event, because that
//! delivery may consume the last use of the token. A claim without an interaction waits only for deliveries of its own
//! events.
//!
//! When a delivery fails, one of the waiting claims is woken and tries to claim. The other claims continue to wait,
//! because most of them are for the same event. If the woken claim does not succeed, it wakes all other claims. When a
//! delivery succeeds, all waiting claims are woken, because most of them are duplicates now. A claim that does not
//! succeed waits again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::memory::Hold;
use crate::interaction::{Ask, EventKey};

const WAITING: u8 = 0;
/// The state of a claim that was woken alone. If this claim does not succeed, it must wake the other waiting claims.
const WOKEN_ALONE: u8 = 1;
const WOKEN_WITH_ALL: u8 = 2;

/// Identifies the deliveries for which a claim waits.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum WaitKey {
    /// A delivery for the interaction with this id.
    Interaction(Box<str>),
    /// The delivery of an event without an interaction.
    Event(EventKey),
}

impl WaitKey {
    /// Returns the keys of the deliveries for which this claim waits.
    pub(super) fn of_ask(ask: &Ask<'_>) -> Vec<Self> {
        match ask.interaction() {
            Some(interaction) => vec![Self::Interaction(interaction.into())],
            None => ask.events.iter().copied().map(Self::Event).collect(),
        }
    }

    /// Returns the keys under which other claims wait for the end of this claim.
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
    /// Wakes the waiting claim. Returns false if the claim was woken before.
    fn wake(&self, state: u8) -> bool {
        let woken = self.state.compare_exchange(WAITING, state, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if woken {
            self.woken.notify_one();
        }
        woken
    }
}

/// The waiting claims. For each key, the claims are in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<HashMap<WaitKey, BTreeMap<u64, Arc<Entry>>>>,
    /// The number of waiting claims. While the number is 0, the end of a claim takes no lock. This is the usual case.
    count: AtomicUsize,
    next_ticket: AtomicU64,
}

/// A registered claim that may wait. Dropping this value ends the registration. If the claim was woken alone and has
/// not succeeded, the drop also wakes the other waiting claims.
pub(super) struct Waiter<'w> {
    waiters: &'w Waiters,
    keys: &'w [WaitKey],
    ticket: u64,
    entry: Arc<Entry>,
}

impl Waiters {
    /// Registers a claim that may have to wait. The caller must register the claim before it tries to claim. Otherwise,
    /// another claim could end after the attempt and before the registration, and would not wake this claim.
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

    /// Wakes claims that wait for the end of this claim. If the callback was delivered, wakes all of them. Otherwise
    /// wakes one claim for each key.
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
    /// Waits until the claim is woken and should be tried again.
    pub(super) async fn woken(&self) {
        self.entry.woken.notified().await;
    }

    /// Records that the claim has succeeded, so that dropping this value wakes no waiting claims. They are woken later,
    /// when the successful claim ends.
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
        // The woken claim succeeds, and its delivery fails afterwards. This failure must wake the next claim.
        waiting.remove(0).succeeded();
        assert_eq!(woken(&waiting), 0);
        waiters.claim_ended(&hold, false);
        assert_eq!(woken(&waiting), 1);
        // The woken claim ends without success. All other claims must then be woken.
        drop(waiting.remove(0));
        assert_eq!((waiting.len(), woken(&waiting)), (98, 98));
        // A successful delivery wakes all waiting claims.
        let again: Vec<_> = (0..10).map(|_| waiters.register(&keys)).collect();
        waiters.claim_ended(&hold, true);
        assert_eq!(woken(&again), 10);
        assert_eq!(other.entry.state.load(Ordering::SeqCst), WAITING, "it waits for another claim");
        drop((waiting, again, other));
        assert!(waiters.waiting.lock().is_empty());
        assert_eq!(waiters.count.load(Ordering::SeqCst), 0);
    }
}

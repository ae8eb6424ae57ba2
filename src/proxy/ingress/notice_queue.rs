//! The pending notices of one route, and the order of their delivery.
//!
//! Very many notices may become pending at once, for example after an outage of a provider. A later notice does not
//! have to wait until all these notices are delivered. The queue selects in turn the oldest new notice, the newest
//! notice, and a notice whose previous delivery failed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::interaction::NoticeId;
use crate::store::DueNotice;

/// The maximum number of notices of one route that are delivered concurrently. The limit is per route, so that a slow
/// agent path of one route does not delay the notices of other routes.
const CONCURRENT_MAX: usize = 16;

/// The pending notices of one route.
#[derive(Default)]
pub(super) struct NoticeQueue {
    waiting: Mutex<Waiting>,
    /// The number of tasks that deliver notices of the route. Each task holds a [`Slot`] and delivers one notice at a
    /// time.
    slots: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    /// Notices that were not sent yet, the oldest first.
    new: VecDeque<DueNotice>,
    /// Notices whose previous delivery failed.
    retries: VecDeque<DueNotice>,
    /// The interaction id and the notice id of every notice in `new` and `retries`. If a notice waits longer than its
    /// lease, the ledger returns the notice again. This set then prevents a second entry for the notice.
    queued: HashSet<(Arc<str>, NoticeId)>,
    turn: u8,
}

impl Waiting {
    fn next(&mut self) -> Option<DueNotice> {
        self.turn = (self.turn + 1) % 3;
        let preferred = match self.turn {
            0 => self.retries.pop_front(),
            1 => self.new.pop_front(),
            _ => self.new.pop_back(),
        };
        let next = preferred.or_else(|| self.new.pop_front()).or_else(|| self.retries.pop_front())?;
        self.queued.remove(&(next.id.clone(), next.notice));
        Some(next)
    }
}

/// Counts one task that delivers the notices of a route, one after the other. Dropping this value decrements the count,
/// even after a panic.
pub(super) struct Slot(Arc<NoticeQueue>);

impl Slot {
    /// Removes and returns the next notice of the route. Returns `None` if no notice is waiting.
    pub(super) fn next(&self) -> Option<DueNotice> {
        self.0.waiting.lock().next()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.fetch_sub(1, Ordering::SeqCst);
    }
}

impl NoticeQueue {
    /// Adds a notice to the queue, unless the queue already contains the notice.
    pub(super) fn push(&self, due: DueNotice) {
        let mut waiting = self.waiting.lock();
        if !waiting.queued.insert((due.id.clone(), due.notice)) {
            return;
        }
        if due.is_retry { waiting.retries.push_back(due) } else { waiting.new.push_back(due) }
    }

    /// Counts a new delivery task until the returned slot is dropped. Returns `None` if no notice is waiting, or if
    /// [`CONCURRENT_MAX`] tasks deliver notices of the route already.
    pub(super) fn slot(self: &Arc<Self>) -> Option<Slot> {
        if self.is_empty() {
            return None;
        }
        let more = |slots: usize| (slots < CONCURRENT_MAX).then_some(slots + 1);
        let taken = self.slots.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }

    /// Reports whether no notice is waiting in the queue.
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.new.is_empty() && waiting.retries.is_empty()
    }

    /// Reports whether no notice is waiting in the queue or being delivered.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.slots.load(Ordering::SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::interaction::{Follow, Interaction};
    use crate::time::Timestamp;

    fn due(id: &str, is_retry: bool) -> DueNotice {
        let at = Timestamp::from_unix_secs;
        let record = Interaction::new("r".into(), "".into(), at(0), at(10));
        let notice = record.followed(&Follow::default(), true).pass(at(10)).notice.unwrap();
        DueNotice { id: id.into(), route: "r".into(), notice, is_retry }
    }

    #[test]
    fn a_new_notice_does_not_wait_for_all_older_ones_or_for_retries() {
        let queue = Arc::new(NoticeQueue::default());
        (0..1000).for_each(|n| queue.push(due(&format!("old-{n}"), false)));
        (0..1000).for_each(|n| queue.push(due(&format!("retry-{n}"), true)));
        let slot = queue.slot().unwrap();
        let next = |count: usize| -> Vec<_> { (0..count).map(|_| slot.next().unwrap().id).collect() };
        next(30);
        queue.push(due("new", false));
        let served = next(3);
        assert!(served.iter().any(|id| **id == *"new"), "{served:?}");
        // The oldest notices and the retries are also delivered, each kind in its order.
        let rest: Vec<_> = std::iter::from_fn(|| slot.next().map(|due| due.id)).collect();
        assert_eq!(rest.len(), 2000 + 1 - 33);
        let retries: Vec<_> = rest.iter().filter(|id| id.starts_with("retry-")).collect();
        let numbers: Vec<usize> = retries.iter().map(|id| id["retry-".len()..].parse().unwrap()).collect();
        assert!(numbers.is_sorted() && rest[..60].iter().filter(|id| id.starts_with("old-")).count() == 40);
        drop(slot);
        assert!(queue.is_idle());
    }

    #[test]
    fn a_notice_waits_once() {
        let queue = Arc::new(NoticeQueue::default());
        for is_retry in [false, true, false] {
            queue.push(due("a", is_retry));
        }
        let slot = queue.slot().unwrap();
        assert!(slot.next().is_some() && slot.next().is_none());
        // A notice that was removed from the queue may be added again.
        queue.push(due("a", true));
        assert!(slot.next().is_some() && slot.next().is_none());
    }

    #[tokio::test]
    async fn a_delivery_that_panics_gives_its_slot_back() {
        let queue = Arc::new(NoticeQueue::default());
        for round in 0..2 * CONCURRENT_MAX {
            queue.push(due("a", false));
            let slot = queue.slot().unwrap_or_else(|| panic!("no slot in round {round}"));
            let delivery = tokio::spawn(async move {
                let due = slot.next();
                tokio::time::sleep(Duration::ZERO).await;
                assert!(due.is_none(), "as a fault in the delivery might");
            });
            assert!(delivery.await.unwrap_err().is_panic());
        }
        assert!(queue.is_idle());
    }

    #[test]
    fn the_number_of_slots_is_limited() {
        let queue = Arc::new(NoticeQueue::default());
        (0..100).for_each(|_| queue.push(due("a", false)));
        let slots: Vec<_> = std::iter::from_fn(|| queue.slot()).collect();
        assert_eq!(slots.len(), CONCURRENT_MAX);
    }
}

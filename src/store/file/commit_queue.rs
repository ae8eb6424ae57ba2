//! The queue of changes that are written to the ledger's file. Changes that arrive during a commit are written together
//! in the next commit. A caller that needs a durable change waits for the commit of this change. Only one thread writes
//! the file (`store/file_writer.rs`). Changes that nobody waits for are deferred (`deferred.rs`).
//!
//! While the disk fails or hangs, the store accepts no new interactions and callbacks. This limits the size of the
//! queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tokio::time::timeout;

use super::change::Change;
use super::deferred::Deferred;
use crate::observe::Metrics;

/// The size of the queued changes, in bytes, above which the store accepts no new interactions and callbacks. The
/// requests in progress can still add changes. Each request waits for its own change, so even 50,000 concurrent
/// requests add less than this size.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The maximum number of deferred changes in one commit. Such a commit takes a few milliseconds longer, and later
/// changes wait for its end.
const DEFERRED_PER_COMMIT: usize = 128;
/// The number of deferred changes at which the ledger stops applying deadlines. It applies deadlines again when the
/// writer has written some of these changes.
const DEFERRED_MAX: usize = 4096;

/// The health of the store: of the ledger's file, or of Redis or Valkey.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Health {
    /// Writes to the file succeed.
    Healthy,
    /// The queue is full. The store accepts no new interactions and callbacks until the writer takes the queued
    /// changes.
    Busy,
    /// The disk has not completed a write for `store.grace`.
    Hanging,
    /// The disk reported an error. Callgate tries to write again.
    Failing,
    /// The thread that writes the ledger's file has ended. Callgate must be restarted.
    Gone,
    /// Redis or Valkey has not responded, or has accepted no change, for `store.grace`.
    Away,
    /// Some nodes of Redis or Valkey have not responded for `store.grace`, while other nodes respond. Or a node is
    /// full: it accepts changes to its records, but no new records.
    Partial,
    /// Redis or Valkey responds, but must not be used because of its version, its role or its settings.
    Unusable,
}

impl Health {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Healthy,
            1 => Self::Busy,
            2 => Self::Hanging,
            3 => Self::Failing,
            _ => Self::Gone,
        }
    }

    /// Returns the reason why the store accepts no new interactions and callbacks. Returns `None` if the store accepts
    /// them now or within moments.
    pub fn why_not(self) -> Option<&'static str> {
        match self {
            Self::Healthy | Self::Busy | Self::Partial => None,
            Self::Hanging => Some("the disk of the ledger's file does not answer"),
            Self::Failing => Some("the ledger's file cannot be written"),
            Self::Gone => Some("the thread that writes the ledger's file has ended"),
            Self::Away => Some("the store does not answer, or takes no changes"),
            Self::Unusable => Some("the settings of the store cannot keep a promise; the log says which"),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    changes: Vec<Change>,
    /// The queued changes that nobody waits for.
    deferred: Deferred,
    /// The approximate size of `changes` in memory, in bytes.
    bytes: usize,
    /// The sequence number of the last queued change.
    sequence: u64,
    /// The start of the current commit. `None` while the writer commits nothing.
    writing: Option<Instant>,
    /// Whether the queue is closed, so that further changes are discarded.
    closed: bool,
    /// Whether the writer has closed the file.
    ended: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.deferred.is_empty()
    }

    /// Discards the queued changes.
    fn clear(&mut self) {
        (self.changes, self.deferred, self.bytes) = (Vec::new(), Deferred::default(), 0);
    }
}

/// Queues changes to the ledger's file, and waits until they are durable.
#[derive(Debug)]
pub(in crate::store) struct CommitQueue {
    shared: Arc<Shared>,
    numbers: AtomicU64,
    /// Receives the sequence number of the last durable change.
    durable: watch::Receiver<u64>,
    clock: fn() -> Instant,
}

/// The state that the commit queue shares with its writer.
#[derive(Debug)]
pub(in crate::store) struct Shared {
    queue: Mutex<Queue>,
    /// Notified when there are changes to write, and when the queue is closed.
    wake: Condvar,
    /// Notified when the writer has closed the file.
    end: Condvar,
    /// The [`Health`] as a number. It is changed only while the queue is locked, and is read without the lock.
    health: AtomicU8,
    grace: Duration,
    pub(in crate::store) metrics: Arc<Metrics>,
}

impl CommitQueue {
    /// Creates a commit queue without changes, for an empty file. The writer uses the returned sender to report the
    /// sequence number of the last durable change.
    pub(in crate::store) fn new(
        grace: Duration,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
    ) -> (Self, watch::Sender<u64>) {
        let shared = Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            end: Condvar::new(),
            health: AtomicU8::new(Health::Healthy as u8),
            grace,
            metrics,
        };
        let (sender, durable) = watch::channel(0);
        let numbers = AtomicU64::new(1);
        (Self { shared: Arc::new(shared), numbers, durable, clock }, sender)
    }

    /// Returns the state that the commit queue shares with its writer.
    pub(in crate::store) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Returns the function that reads the monotonic clock.
    pub(in crate::store) fn clock(&self) -> fn() -> Instant {
        self.clock
    }

    /// Sets the highest number of the records in the file. New records get higher numbers.
    pub(in crate::store) fn continue_after(&self, number_max: u64) {
        self.numbers.fetch_max(number_max.saturating_add(1), Ordering::Relaxed);
    }

    /// Returns the next unused number of a record.
    pub(in crate::store) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the sequence number of the last queued change.
    pub(in crate::store) fn sequence(&self) -> u64 {
        self.shared.queue.lock().sequence
    }

    /// Queues changes, which are written in one commit. Returns their sequence number for [`CommitQueue::durable`].
    /// Returns 0, which counts as durable, if there are no changes.
    pub(in crate::store) fn record(&self, changes: impl IntoIterator<Item = Change>) -> u64 {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            // These changes will not be written, so no caller may see them as durable.
            return u64::MAX;
        }
        let before = queue.changes.len();
        for change in changes {
            queue.bytes += change.bytes();
            queue.deferred.supersede(change.key());
            queue.changes.push(change);
        }
        if queue.changes.len() == before {
            return 0;
        }
        queue.sequence += 1;
        let sequence = queue.sequence;
        if queue.bytes > QUEUE_BYTES_MAX && self.shared.health() == Health::Healthy {
            self.shared.set_health(Health::Busy);
        }
        drop(queue);
        if before == 0 {
            self.shared.wake.notify_one();
        }
        sequence
    }

    /// Queues changes that nobody waits for. [`CommitQueue::durable`] does not wait for these changes either. A crash
    /// may lose them. Callgate then repeats the work that led to the changes, for example the check of a deadline.
    pub(in crate::store) fn defer(&self, changes: impl IntoIterator<Item = Change>) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return;
        }
        changes.into_iter().for_each(|change| queue.deferred.push(change));
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Reports whether the queue has room for further deferred changes.
    pub(in crate::store) fn may_defer(&self) -> bool {
        self.shared.queue.lock().deferred.len() < DEFERRED_MAX
    }

    /// Returns the sequence number of the last durable change.
    pub(in crate::store) fn durable_now(&self) -> u64 {
        *self.durable.borrow()
    }

    /// Returns a receiver of the sequence number of the last durable change.
    pub(in crate::store) fn durable_changes(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// Waits until all changes up to this sequence number are durable. Returns false if they are not durable after
    /// `store.grace`, or will never be durable.
    pub(in crate::store) async fn durable(&self, sequence: u64) -> bool {
        let mut durable = self.durable.clone();
        let reached = durable.wait_for(|durable| *durable >= sequence);
        // A request must not wait for a hanging disk forever. After `store.grace`, it ends without an acknowledgement.
        timeout(self.shared.grace, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Reports whether the store accepts new interactions and callbacks.
    pub(in crate::store) fn accepts_changes(&self) -> bool {
        self.shared.health.load(Ordering::Relaxed) == Health::Healthy as u8
    }

    /// Updates and returns the health of the ledger's file. The writer itself cannot report a hanging disk, because the
    /// disk blocks the writer.
    pub(in crate::store) fn refresh_health(&self) -> Health {
        let queue = self.shared.queue.lock();
        let health = self.shared.health();
        let since = queue.writing.map(|began| (self.clock)().saturating_duration_since(began));
        let hangs = since.is_some_and(|since| since >= self.shared.grace);
        if hangs && matches!(health, Health::Healthy | Health::Busy) {
            self.shared.set_health(Health::Hanging);
            log::error!(
                "the disk has not written the ledger's changes for {} s, and Callgate accepts nothing new until it has",
                self.shared.grace.as_secs_f64()
            );
            return Health::Hanging;
        }
        health
    }

    /// Writes the queued changes and closes the ledger's file. Waits for at most `store.grace`.
    pub(in crate::store) fn close(&self) {
        let mut queue = self.shared.queue.lock();
        if std::mem::replace(&mut queue.closed, true) {
            return;
        }
        self.shared.wake.notify_one();
        let waited = self.shared.end.wait_while_for(&mut queue, |queue| !queue.ended, self.shared.grace);
        if waited.timed_out() {
            log::error!("the ledger's file could not be closed: its disk does not answer");
        }
    }
}

impl Shared {
    fn health(&self) -> Health {
        Health::of(self.health.load(Ordering::Relaxed))
    }

    /// Sets the health of the ledger's file. The caller must have locked the queue.
    fn set_health(&self, to: Health) {
        self.health.store(to as u8, Ordering::Relaxed);
        self.metrics.store_failed(to.why_not().is_some());
    }

    /// Records that the previous batch was written. Then moves the queued changes into `batch`, which must be empty. If
    /// `wait` is true and no changes are queued, first waits for changes. Returns the sequence number of the last
    /// change. Returns `None` if the queue is closed and empty.
    pub(in crate::store) fn next_batch(
        &self,
        batch: &mut Vec<Change>,
        wait: bool,
        clock: fn() -> Instant,
    ) -> Option<u64> {
        let mut queue = self.queue.lock();
        queue.writing = None;
        match self.health() {
            Health::Healthy => {}
            Health::Busy => self.set_health(Health::Healthy),
            Health::Hanging
            | Health::Failing
            | Health::Gone
            | Health::Away
            | Health::Partial
            | Health::Unusable => {
                self.set_health(Health::Healthy);
                log::info!("the ledger's file is written again, and is complete");
            }
        }
        while queue.is_empty() && !queue.closed && wait {
            self.wake.wait(&mut queue);
        }
        if queue.is_empty() && queue.closed {
            return None;
        }
        std::mem::swap(batch, &mut queue.changes);
        queue.bytes = 0;
        let deferred_max = if queue.closed { usize::MAX } else { DEFERRED_PER_COMMIT };
        queue.deferred.take(deferred_max, batch);
        queue.writing = Some(clock());
        Some(queue.sequence)
    }

    /// Records that the disk reported an error.
    pub(in crate::store) fn set_failing(&self) {
        let _queue = self.queue.lock();
        self.set_health(Health::Failing);
    }

    /// Records that the writer thread ends, and that Callgate must be restarted.
    pub(in crate::store) fn set_gone(&self) {
        let _queue = self.queue.lock();
        self.set_health(Health::Gone);
    }

    /// Discards the queued changes. The caller rewrites the file from memory, and the memory includes the changes of
    /// interactions and events. The changes of the inbox are not in memory, so this method returns them. Also returns
    /// the sequence number of the last change.
    pub(in crate::store) fn discard_pending(&self) -> (u64, Vec<Change>) {
        let mut queue = self.queue.lock();
        let mut changes = std::mem::take(&mut queue.changes);
        queue.deferred.take(usize::MAX, &mut changes);
        changes.retain(Change::is_of_inbox);
        queue.clear();
        (queue.sequence, changes)
    }

    /// Waits for `delay`, or until the commit queue is closed. Returns whether the commit queue is closed.
    pub(in crate::store) fn wait_or_close(&self, delay: Duration) -> bool {
        let mut queue = self.queue.lock();
        self.wake.wait_while_for(&mut queue, |queue| !queue.closed, delay);
        queue.closed
    }
}

/// A guard that the writer of the ledger's file drops when it ends. Dropping the guard closes and empties the queue,
/// and logs a panic of the writer.
pub(in crate::store) struct EndGuard(pub(in crate::store) Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        if std::thread::panicking() {
            log::error!("the ledger's writer has failed, and Callgate accepts nothing new until a restart");
            self.0.set_health(Health::Gone);
        }
        queue.closed = true;
        queue.clear();
    }
}

/// A guard that the writer drops after it has closed the ledger's file. Dropping the guard reports that the file is
/// closed.
pub(in crate::store) struct FileClosedGuard(pub(in crate::store) Arc<Shared>);

impl Drop for FileClosedGuard {
    fn drop(&mut self) {
        self.0.queue.lock().ended = true;
        self.0.end.notify_all();
    }
}

#[cfg(test)]
#[path = "commit_queue_tests.rs"]
mod tests;

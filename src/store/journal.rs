//! What goes into the ledger's file. Changes are gathered while one commit is under way and go into the next one
//! together; who needs a change to be safe waits for the commit that holds it. One thread writes
//! ([`super::writer`]), and nobody else has the file.
//!
//! Health is what the file can do now: while its disk fails or hangs nothing new is begun, and what waits is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tokio::time::timeout;

use super::change::Change;
use crate::observe::Metrics;

/// Most bytes of changes that wait for their commit before nothing new is begun. Each exchange waits for its own
/// change, so that even 50,000 of them at once stay below; beyond it only what has begun adds to it.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// How the ledger's file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Health {
    /// It takes everything.
    Well,
    /// It takes what waits, and nothing new until then.
    Busy,
    /// Its disk has not answered for `store.grace`.
    Hanging,
    /// Its disk reported an error, and is tried again.
    Failing,
    /// Nobody writes it any more, and only a restart helps.
    Gone,
}

impl Health {
    fn of(word: u8) -> Self {
        match word {
            0 => Self::Well,
            1 => Self::Busy,
            2 => Self::Hanging,
            3 => Self::Failing,
            _ => Self::Gone,
        }
    }

    /// Why nothing is taken, in words; `None`: it is, now or in a moment.
    pub fn why_not(self) -> Option<&'static str> {
        match self {
            Self::Well | Self::Busy => None,
            Self::Hanging => Some("the disk of the ledger's file does not answer"),
            Self::Failing => Some("the ledger's file cannot be written"),
            Self::Gone => Some("nothing writes the ledger's file any more"),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    changes: Vec<Change>,
    /// About how much memory the changes take.
    bytes: usize,
    /// The number of the last change.
    sequence: u64,
    /// Since when the writer is at a commit.
    writing: Option<Instant>,
    /// Nothing is taken any more.
    closed: bool,
    /// The writer is gone.
    ended: bool,
}

/// The changes on their way to the file.
#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    numbers: AtomicU64,
    /// Every change up to this one is safe.
    safe: watch::Receiver<u64>,
    clock: fn() -> Instant,
}

/// What the journal shares with its writer.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write, or nothing any more.
    wake: Condvar,
    /// The writer has ended.
    end: Condvar,
    /// A [`Health`]; changed under the lock of the queue, read without it.
    health: AtomicU8,
    grace: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl Journal {
    /// Makes the journal of a file whose last number is known. Returns it with what [`Journal::start`] takes.
    pub(super) fn new(
        number_max: u64,
        grace: Duration,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
    ) -> (Self, watch::Sender<u64>) {
        let shared = Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            end: Condvar::new(),
            health: AtomicU8::new(Health::Well as u8),
            grace,
            metrics,
        };
        let (sender, safe) = watch::channel(0);
        let numbers = AtomicU64::new(number_max.saturating_add(1));
        (Self { shared: Arc::new(shared), numbers, safe, clock }, sender)
    }

    /// Returns what the journal shares with its writer.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Returns the monotonic clock.
    pub(super) fn clock(&self) -> fn() -> Instant {
        self.clock
    }

    /// A number for something new.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the last change.
    pub(super) fn sequence(&self) -> u64 {
        self.shared.queue.lock().sequence
    }

    /// Takes changes; returns the number by which [`Journal::durable`] knows the last one. Of no changes that is 0,
    /// which is always safe: a number that no commit will ever reach would be waited for in vain.
    pub(super) fn record(&self, changes: impl IntoIterator<Item = Change>) -> u64 {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            // Nobody writes them any more, and nobody is told that they are safe.
            return u64::MAX;
        }
        let before = queue.changes.len();
        for change in changes {
            queue.bytes += change.bytes();
            queue.changes.push(change);
        }
        if queue.changes.len() == before {
            return 0;
        }
        queue.sequence += 1;
        let sequence = queue.sequence;
        if queue.bytes > QUEUE_BYTES_MAX && self.shared.health() == Health::Well {
            self.shared.turn(Health::Busy);
        }
        drop(queue);
        if before == 0 {
            self.shared.wake.notify_one();
        }
        sequence
    }

    /// Waits until everything up to this change is safe; false: it is not, and may never be.
    pub(super) async fn durable(&self, sequence: u64) -> bool {
        let mut safe = self.safe.clone();
        let reached = safe.wait_for(|safe| *safe >= sequence);
        // A disk that hangs must not hold every exchange for ever; what is not known to be safe is not acknowledged.
        timeout(self.shared.grace, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Whether something new may be begun.
    pub(super) fn takes_more(&self) -> bool {
        self.shared.health.load(Ordering::Relaxed) == Health::Well as u8
    }

    /// Looks how the file is: a disk that hangs says nothing by itself.
    pub(super) fn look(&self) -> Health {
        let queue = self.shared.queue.lock();
        let health = self.shared.health();
        let since = queue.writing.map(|began| (self.clock)().saturating_duration_since(began));
        let hangs = since.is_some_and(|since| since >= self.shared.grace);
        if hangs && matches!(health, Health::Well | Health::Busy) {
            self.shared.turn(Health::Hanging);
            log::error!(
                "the disk has not taken the ledger's changes for {} s: nothing is taken until it does",
                self.shared.grace.as_secs_f64()
            );
            return Health::Hanging;
        }
        health
    }

    /// Writes what is left, and closes the file. Waits for a disk that hangs no longer than `store.grace`.
    pub(super) fn close(&self) {
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

    /// The queue must be locked.
    fn turn(&self, to: Health) {
        self.health.store(to as u8, Ordering::Relaxed);
        self.metrics.store_failed(to.why_not().is_some());
    }

    /// What was taken is safe. Waits for changes and takes them into `batch`, which must be empty. Returns the number
    /// of the last one; `None`: there will be none.
    pub(super) fn take(&self, batch: &mut Vec<Change>, clock: fn() -> Instant) -> Option<u64> {
        let mut queue = self.queue.lock();
        queue.writing = None;
        match self.health() {
            Health::Well => {}
            Health::Busy => self.turn(Health::Well),
            Health::Hanging | Health::Failing | Health::Gone => {
                self.turn(Health::Well);
                log::info!("the ledger's file is written again, and holds everything");
            }
        }
        while queue.changes.is_empty() && !queue.closed {
            self.wake.wait(&mut queue);
        }
        if queue.changes.is_empty() {
            return None;
        }
        std::mem::swap(batch, &mut queue.changes);
        queue.bytes = 0;
        queue.writing = Some(clock());
        Some(queue.sequence)
    }

    /// The disk does not take what was taken.
    pub(super) fn fails(&self) {
        let _queue = self.queue.lock();
        self.turn(Health::Failing);
    }

    /// Forgets what waits, because it is written from memory. Returns the number of the last change.
    pub(super) fn forget(&self) -> u64 {
        let mut queue = self.queue.lock();
        queue.changes = Vec::new();
        queue.bytes = 0;
        queue.sequence
    }

    /// Waits for so long; returns whether the journal is being closed.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let mut queue = self.queue.lock();
        self.wake.wait_while_for(&mut queue, |queue| !queue.closed, pause);
        queue.closed
    }
}

/// Says when dropped that the writer ends, and whether it failed.
pub(super) struct Ending(pub(super) Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        if std::thread::panicking() {
            log::error!("the ledger's writer has failed: nothing is taken any more, until a restart");
            self.0.turn(Health::Gone);
        }
        queue.closed = true;
        queue.changes = Vec::new();
    }
}

/// Says when dropped that the file is closed.
pub(super) struct Closed(pub(super) Arc<Shared>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.queue.lock().ended = true;
        self.0.end.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    /// Seconds by which the clock of the tests is ahead.
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    static BEGAN: OnceLock<Instant> = OnceLock::new();

    fn clock() -> Instant {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let now = || runtime().block_on(async { tokio::time::sleep(Duration::ZERO).deadline().into_std() });
        *BEGAN.get_or_init(now) + Duration::from_secs(AHEAD.load(Ordering::SeqCst))
    }

    /// One that nobody writes.
    fn journal(grace: Duration) -> (Journal, watch::Sender<u64>) {
        Journal::new(0, grace, Arc::new(Metrics::new().unwrap()), clock)
    }

    fn large() -> Change {
        Change::Interaction(1, "int_a".into(), vec![0; 1 << 20])
    }

    #[tokio::test]
    async fn a_change_of_nothing_is_safe_and_any_other_waits_for_its_commit() {
        let (journal, safe) = journal(Duration::from_millis(20));
        assert_eq!(journal.record([]), 0);
        assert!(journal.durable(0).await);
        let first = journal.record([Change::EventGone(1)]);
        assert_eq!((journal.record([]), journal.sequence()), (0, first));
        assert!(!journal.durable(first).await, "nobody wrote it within the grace");
        safe.send_replace(first);
        assert!(journal.durable(first).await);
        drop(safe);
        assert!(!journal.durable(first + 1).await, "nobody writes any more");
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded() {
        let (journal, _safe) = journal(Duration::from_secs(1000));
        let fill = || {
            let mut taken = 0;
            while journal.takes_more() {
                journal.record([large()]);
                taken += 1;
            }
            taken
        };
        assert_eq!((fill(), journal.look()), (64, Health::Busy));
        let mut batch = Vec::new();
        assert!(journal.shared.take(&mut batch, clock).is_some());
        assert_eq!((batch.len(), fill(), journal.look()), (64, 64, Health::Busy));
        // What is written from memory waits no longer.
        assert_eq!(journal.shared.forget(), journal.sequence());
        assert_eq!(journal.shared.queue.lock().bytes, 0);
    }

    #[test]
    fn a_disk_that_hangs_is_noticed_and_forgiven() {
        let (journal, _safe) = journal(Duration::from_secs(10));
        let mut batch = Vec::new();
        journal.record([large()]);
        assert_eq!(journal.look(), Health::Well);
        journal.shared.take(&mut batch, clock).unwrap();
        assert_eq!(journal.look(), Health::Well);
        AHEAD.fetch_add(10, Ordering::SeqCst);
        assert_eq!((journal.look(), journal.takes_more()), (Health::Hanging, false));
        batch.clear();
        journal.record([large()]);
        journal.shared.take(&mut batch, clock).unwrap();
        assert_eq!((journal.look(), journal.takes_more()), (Health::Well, true));
    }

    #[test]
    fn a_writer_that_panics_is_said() {
        let (journal, _safe) = journal(Duration::from_secs(1000));
        let ending = Ending(Arc::clone(&journal.shared));
        let thread = std::thread::spawn(move || {
            let _ending = ending;
            panic!("as a database might");
        });
        assert!(thread.join().is_err());
        assert_eq!((journal.look(), journal.takes_more()), (Health::Gone, false));
        assert_eq!(journal.record([large()]), u64::MAX);
        journal.close();
    }
}

//! Tests the queue of changes with a clock that the tests set.

use std::sync::OnceLock;

use super::*;

/// The seconds by which the test clock is ahead.
static AHEAD: AtomicU64 = AtomicU64::new(0);
static BEGAN: OnceLock<Instant> = OnceLock::new();

fn clock() -> Instant {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let now = || runtime().block_on(async { tokio::time::sleep(Duration::ZERO).deadline().into_std() });
    *BEGAN.get_or_init(now) + Duration::from_secs(AHEAD.load(Ordering::SeqCst))
}

/// Creates a journal without a writer.
fn journal(grace: Duration) -> (Journal, watch::Sender<u64>) {
    Journal::new(grace, Arc::new(Metrics::new().unwrap()), clock)
}

fn large() -> Change {
    Change::Interaction(1, "int_a".into(), vec![0; 1 << 20])
}

#[tokio::test]
async fn an_empty_change_is_durable_and_any_other_waits_for_its_commit() {
    let (journal, durable) = journal(Duration::from_millis(20));
    assert_eq!(journal.record([]), 0);
    assert!(journal.durable(0).await);
    let first = journal.record([Change::EventGone(1)]);
    assert_eq!((journal.record([]), journal.sequence()), (0, first));
    assert!(!journal.durable(first).await, "it was not written within the grace");
    durable.send_replace(first);
    assert!(journal.durable(first).await);
    drop(durable);
    assert!(!journal.durable(first + 1).await, "the writer has ended");
}

#[test]
fn the_queue_is_bounded() {
    let (journal, _durable) = journal(Duration::from_secs(1000));
    let fill = || {
        let mut taken = 0;
        while journal.accepts_changes() {
            journal.record([large()]);
            taken += 1;
        }
        taken
    };
    assert_eq!((fill(), journal.refresh_health()), (64, Health::Busy));
    let mut batch = Vec::new();
    assert!(journal.shared.next_batch(&mut batch, true, clock).is_some());
    assert_eq!((batch.len(), fill(), journal.refresh_health()), (64, 64, Health::Busy));
    // A rewrite from memory empties the queue.
    let (last, of_inbox) = journal.shared.discard_pending();
    assert_eq!((last, of_inbox.len()), (journal.sequence(), 0));
    assert_eq!(journal.shared.queue.lock().bytes, 0);
}

#[test]
fn deferred_changes_are_bounded_and_overtaken() {
    let (journal, _durable) = journal(Duration::from_secs(1000));
    let state = |number, state: &str| Change::Interaction(number, "int_a".into(), state.as_bytes().to_vec());
    let mut count = 0;
    while journal.may_defer() {
        count += 1;
        journal.defer([state(count, "expired")]);
    }
    assert_eq!(journal.sequence(), 0, "nobody waits for a deferred change");
    // A later change of record 1 replaces its deferred change.
    assert_eq!(journal.record([state(count + 1, "settled"), state(1, "revoked")]), 1);
    let (mut batch, mut written) = (Vec::new(), std::collections::HashMap::new());
    for commit in 0.. {
        if journal.shared.queue.lock().is_empty() {
            break;
        }
        journal.shared.next_batch(&mut batch, true, clock).unwrap();
        assert!(batch.len() <= DEFERRED_PER_COMMIT + 2);
        assert_eq!(batch.first().unwrap().key().number == count + 1, commit == 0);
        for change in batch.drain(..) {
            let Change::Interaction(number, _, bytes) = change else { panic!("{change:?}") };
            assert!(written.insert(number, bytes).is_none(), "{number} was written twice");
        }
    }
    assert_eq!((written[&1].as_slice(), written[&2].as_slice()), (&b"revoked"[..], &b"expired"[..]));
    assert_eq!(written.len() as u64, count + 1);
    assert!(journal.may_defer());
}

#[test]
fn a_closed_queue_is_written_to_its_end() {
    let (journal, _durable) = journal(Duration::ZERO);
    (0..1000).for_each(|number| journal.defer([Change::EventGone(number)]));
    journal.close();
    journal.defer([Change::EventGone(1000)]);
    let mut batch = Vec::new();
    assert!(journal.shared.next_batch(&mut batch, true, clock).is_some());
    assert_eq!(batch.len(), 1000);
    batch.clear();
    assert!(journal.shared.next_batch(&mut batch, true, clock).is_none());
}

#[test]
fn a_hanging_disk_is_noticed_and_recovers() {
    let (journal, _durable) = journal(Duration::from_secs(10));
    let mut batch = Vec::new();
    journal.record([large()]);
    assert_eq!(journal.refresh_health(), Health::Healthy);
    journal.shared.next_batch(&mut batch, true, clock).unwrap();
    assert_eq!(journal.refresh_health(), Health::Healthy);
    AHEAD.fetch_add(10, Ordering::SeqCst);
    assert_eq!((journal.refresh_health(), journal.accepts_changes()), (Health::Hanging, false));
    batch.clear();
    journal.record([large()]);
    journal.shared.next_batch(&mut batch, true, clock).unwrap();
    assert_eq!((journal.refresh_health(), journal.accepts_changes()), (Health::Healthy, true));
}

#[test]
fn a_panic_of_the_writer_is_reported() {
    let (journal, _durable) = journal(Duration::from_secs(1000));
    let ending = EndGuard(Arc::clone(&journal.shared));
    let thread = std::thread::spawn(move || {
        let _ending = ending;
        panic!("as a database might");
    });
    assert!(thread.join().is_err());
    assert_eq!((journal.refresh_health(), journal.accepts_changes()), (Health::Gone, false));
    assert_eq!(journal.record([large()]), u64::MAX);
    journal.close();
}

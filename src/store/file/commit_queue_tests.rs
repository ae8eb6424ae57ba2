//! Tests the queue of changes with a clock that the tests set.

use std::sync::OnceLock;

use super::*;

/// The number of seconds by which the test clock is ahead of the real clock.
static AHEAD: AtomicU64 = AtomicU64::new(0);
static BEGAN: OnceLock<Instant> = OnceLock::new();

fn clock() -> Instant {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let now = || runtime().block_on(async { tokio::time::sleep(Duration::ZERO).deadline().into_std() });
    *BEGAN.get_or_init(now) + Duration::from_secs(AHEAD.load(Ordering::SeqCst))
}

/// Creates a commit queue without a writer.
fn commit_queue(grace: Duration) -> (CommitQueue, watch::Sender<u64>) {
    CommitQueue::new(grace, Arc::new(Metrics::new().unwrap()), clock)
}

fn large() -> Change {
    Change::Interaction(1, "int_a".into(), vec![0; 1 << 20])
}

#[tokio::test]
async fn an_empty_change_is_durable_and_any_other_waits_for_its_commit() {
    let (commit_queue, durable) = commit_queue(Duration::from_millis(20));
    assert_eq!(commit_queue.record([]), 0);
    assert!(commit_queue.durable(0).await);
    let first = commit_queue.record([Change::EventGone(1)]);
    assert_eq!((commit_queue.record([]), commit_queue.sequence()), (0, first));
    assert!(!commit_queue.durable(first).await, "it was not written within the grace");
    durable.send_replace(first);
    assert!(commit_queue.durable(first).await);
    drop(durable);
    assert!(!commit_queue.durable(first + 1).await, "the writer has ended");
}

#[test]
fn the_queue_is_bounded() {
    let (commit_queue, _durable) = commit_queue(Duration::from_secs(1000));
    let fill = || {
        let mut taken = 0;
        while commit_queue.accepts_changes() {
            commit_queue.record([large()]);
            taken += 1;
        }
        taken
    };
    assert_eq!((fill(), commit_queue.refresh_health()), (64, Health::Busy));
    let mut batch = Vec::new();
    assert!(commit_queue.shared.next_batch(&mut batch, true, clock).is_some());
    assert_eq!((batch.len(), fill(), commit_queue.refresh_health()), (64, 64, Health::Busy));
    // The queue is empty after its changes were discarded for a rewrite from memory.
    let (last, of_inbox) = commit_queue.shared.discard_pending();
    assert_eq!((last, of_inbox.len()), (commit_queue.sequence(), 0));
    assert_eq!(commit_queue.shared.queue.lock().bytes, 0);
}

#[test]
fn deferred_changes_are_bounded_and_overtaken() {
    let (commit_queue, _durable) = commit_queue(Duration::from_secs(1000));
    let state = |number, state: &str| Change::Interaction(number, "int_a".into(), state.as_bytes().to_vec());
    let mut count = 0;
    while commit_queue.may_defer() {
        count += 1;
        commit_queue.defer([state(count, "expired")]);
    }
    assert_eq!(commit_queue.sequence(), 0, "nobody waits for a deferred change");
    // A later change of record 1 replaces its deferred change.
    assert_eq!(commit_queue.record([state(count + 1, "settled"), state(1, "revoked")]), 1);
    let (mut batch, mut written) = (Vec::new(), std::collections::HashMap::new());
    for commit in 0.. {
        if commit_queue.shared.queue.lock().is_empty() {
            break;
        }
        commit_queue.shared.next_batch(&mut batch, true, clock).unwrap();
        assert!(batch.len() <= DEFERRED_PER_COMMIT + 2);
        assert_eq!(batch.first().unwrap().key().number == count + 1, commit == 0);
        for change in batch.drain(..) {
            let Change::Interaction(number, _, bytes) = change else { panic!("{change:?}") };
            assert!(written.insert(number, bytes).is_none(), "{number} was written twice");
        }
    }
    assert_eq!((written[&1].as_slice(), written[&2].as_slice()), (&b"revoked"[..], &b"expired"[..]));
    assert_eq!(written.len() as u64, count + 1);
    assert!(commit_queue.may_defer());
}

#[test]
fn a_closed_queue_is_written_to_its_end() {
    let (commit_queue, _durable) = commit_queue(Duration::ZERO);
    (0..1000).for_each(|number| commit_queue.defer([Change::EventGone(number)]));
    commit_queue.close();
    commit_queue.defer([Change::EventGone(1000)]);
    let mut batch = Vec::new();
    assert!(commit_queue.shared.next_batch(&mut batch, true, clock).is_some());
    assert_eq!(batch.len(), 1000);
    batch.clear();
    assert!(commit_queue.shared.next_batch(&mut batch, true, clock).is_none());
}

#[test]
fn a_hanging_disk_is_noticed_and_recovers() {
    let (commit_queue, _durable) = commit_queue(Duration::from_secs(10));
    let mut batch = Vec::new();
    commit_queue.record([large()]);
    assert_eq!(commit_queue.refresh_health(), Health::Healthy);
    commit_queue.shared.next_batch(&mut batch, true, clock).unwrap();
    assert_eq!(commit_queue.refresh_health(), Health::Healthy);
    AHEAD.fetch_add(10, Ordering::SeqCst);
    assert_eq!((commit_queue.refresh_health(), commit_queue.accepts_changes()), (Health::Hanging, false));
    batch.clear();
    commit_queue.record([large()]);
    commit_queue.shared.next_batch(&mut batch, true, clock).unwrap();
    assert_eq!((commit_queue.refresh_health(), commit_queue.accepts_changes()), (Health::Healthy, true));
}

#[test]
fn a_wait_for_the_disk_ends_after_its_delay_or_when_the_queue_is_closed() {
    let (commit_queue, _durable) = commit_queue(Duration::ZERO);
    assert!(!commit_queue.shared.wait_or_close(Duration::ZERO), "the queue is open");
    let (ended, end) = std::sync::mpsc::channel();
    let shared = Arc::clone(&commit_queue.shared);
    std::thread::spawn(move || ended.send(shared.wait_or_close(Duration::MAX)));
    commit_queue.close();
    assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(true));
}

#[test]
fn an_error_of_the_disk_is_reported_until_the_disk_works_again() {
    let (commit_queue, _durable) = commit_queue(Duration::from_secs(1000));
    let failed = || {
        let text = commit_queue.shared.metrics.text().unwrap();
        (
            commit_queue.refresh_health(),
            commit_queue.accepts_changes(),
            text.contains("\ncallgate_store_failed 1\n"),
        )
    };
    assert_eq!(failed(), (Health::Healthy, true, false));
    commit_queue.shared.set_failing();
    commit_queue.record([large()]);
    assert_eq!(failed(), (Health::Failing, false, true));
    assert!(commit_queue.shared.next_batch(&mut Vec::new(), true, clock).is_some());
    assert_eq!(failed(), (Health::Healthy, true, false));
    commit_queue.shared.set_gone();
    assert_eq!(failed(), (Health::Gone, false, true));
}

#[test]
fn a_panic_of_the_writer_is_reported() {
    let (commit_queue, _durable) = commit_queue(Duration::from_secs(1000));
    let ending = EndGuard(Arc::clone(&commit_queue.shared));
    let thread = std::thread::spawn(move || {
        let _ending = ending;
        panic!("as a database might");
    });
    assert!(thread.join().is_err());
    assert_eq!((commit_queue.refresh_health(), commit_queue.accepts_changes()), (Health::Gone, false));
    assert_eq!(commit_queue.record([large()]), u64::MAX);
    commit_queue.close();
}

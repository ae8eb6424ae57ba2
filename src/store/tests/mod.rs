//! Tests the claims of the store with a commit queue whose commits the test controls.

mod file_tests;
mod ledger_tests;
mod reading_tests;

use std::pin::pin;
use std::task::{Context, Waker};

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::event_memory::FingerprintKey;
use super::file::CommitQueue;
use super::ledger::Store;
use super::memory::Memory;
use crate::config::StoreSettings;
use crate::denial::Denial;
use crate::interaction::{Ask, ClaimError, EventKey, Follow, Report};
use crate::observe::Metrics;
use crate::time::Timestamp;
use crate::token::Granted;

pub(super) fn settings() -> StoreSettings {
    StoreSettings {
        path: None,
        redis: None,
        unknown: crate::config::Unknown::Adopt,
        interactions_max: 10,
        events_max: 10,
        remember: Duration::from_secs(60),
        keep_ended: Duration::ZERO,
        grace: Duration::from_millis(500),
    }
}

/// Creates a store without a thread that writes its file. A test uses the returned sender to report changes as durable.
fn store() -> (Store, watch::Sender<u64>) {
    let settings = settings();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (commit_queue, durable) =
        CommitQueue::new(settings.grace, Arc::clone(&metrics), crate::clock::instant);
    let commit_queue = Arc::new(commit_queue);
    let key = FingerprintKey::random();
    let reader = super::file::MessageReader::default();
    let backing = super::inbox::Backing::File(Arc::clone(&commit_queue), reader);
    let inbox = super::Inbox::new(key, backing, Arc::clone(&metrics));
    let memory = Arc::new(Memory::new(settings, key, Some(Arc::clone(&commit_queue)), metrics));
    (Store::with(memory, Some(commit_queue), inbox), durable)
}

#[tokio::test]
async fn a_settlement_that_is_dropped_during_its_commit_wakes_waiting_claims() {
    let (store, durable) = store();
    let (route, events) = (Arc::from("r"), [EventKey(1)]);
    let path = crate::path::CanonicalPath::parse("/a").unwrap();
    let captures = crate::path::Template::parse("/a").unwrap().capture(&path);
    let (follow, report) = (Follow::default(), Report::default());
    let ask = Ask { events: &events, ..Ask::new(&route, &captures, &follow, &report) };
    let now = Timestamp::from_unix_ms(0);
    let patience = Duration::from_secs(5);
    let first = store.claim(&ask, now, patience).await.unwrap();
    let mut second = pin!(store.claim(&ask, now, patience));
    let mut context = Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending(), "the event is being delivered");
    {
        let mut settling = pin!(first.settle(&report, None, now));
        assert!(settling.as_mut().poll(&mut context).is_pending(), "the change is not durable");
    }
    assert!(second.as_mut().poll(&mut context).is_pending(), "the change is not durable");
    durable.send_replace(1);
    let Err(error) = second.await else { panic!("the event was delivered twice") };
    assert_eq!(error, ClaimError::Duplicate);
}

/// Returns the content of a token that expires one second after the Unix epoch.
fn granted() -> Granted {
    Granted {
        interaction: "int_a".into(),
        issued: Timestamp::from_unix_ms(0),
        expires: Timestamp::from_unix_ms(1000),
        uses: None,
        owner: None,
        is_opaque: false,
    }
}

/// A claim is denied because of an earlier change. The denial is returned only after this change is durable. Otherwise,
/// a crash could undo the change, and the same callback would get another result.
#[tokio::test]
async fn a_denial_waits_until_the_changes_behind_it_are_durable() {
    let path = crate::path::CanonicalPath::parse("/a").unwrap();
    let captures = crate::path::Template::parse("/a").unwrap().capture(&path);
    let (route, other, events) = (Arc::from("r"), Arc::from("other"), [EventKey(1)]);
    let (follow, report) = (Follow::default(), Report::default());
    let granted = granted();
    let ask =
        Ask { granted: Some(&granted), events: &events, ..Ask::new(&route, &captures, &follow, &report) };
    let patience = Duration::from_secs(5);
    let (now, late) = (Timestamp::from_unix_ms(0), Timestamp::from_unix_ms(1000));
    // The last element is the expected denial. `None` means that the result must be a duplicate.
    let expected = [
        ("duplicate", ask, now, false, None),
        ("over", Ask { events: &[], ..ask }, late, false, Some(Denial::InteractionOver)),
        (
            "another route",
            Ask { route: &other, events: &[], ..ask },
            now,
            false,
            Some(Denial::InteractionUnknown),
        ),
        ("revoked", Ask { events: &[], ..ask }, now, true, Some(Denial::InteractionRevoked)),
    ];
    for (name, ask_again, at, revoked, denial) in expected {
        let (store, durable) = store();
        let mut context = Context::from_waker(Waker::noop());
        let first = store.claim(&ask, now, patience).await.unwrap();
        {
            let mut settling = pin!(first.settle(&report, None, now));
            assert!(settling.as_mut().poll(&mut context).is_pending(), "{name}");
        }
        if revoked {
            let mut revoking = pin!(store.revoke("int_a", false, now));
            assert!(revoking.as_mut().poll(&mut context).is_pending(), "{name}");
        }
        let mut denied = pin!(store.claim(&ask_again, at, patience));
        assert!(denied.as_mut().poll(&mut context).is_pending(), "{name}: the change is not durable");
        durable.send_replace(u64::MAX - 1);
        let Err(error) = denied.await else { panic!("{name}: the callback was claimed") };
        match (&error, denial) {
            (ClaimError::Duplicate, None) => {}
            (ClaimError::Refused(refusal), Some(denial)) => assert_eq!(refusal.denial, denial, "{name}"),
            _ => panic!("{name}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_denial_whose_changes_do_not_become_durable_is_no_denial() {
    let (store, durable) = store();
    drop(durable);
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut revoking = pin!(store.revoke("int_a", false, Timestamp::from_unix_ms(0)));
        let _ = revoking.as_mut().poll(&mut context);
    }
    let path = crate::path::CanonicalPath::parse("/a").unwrap();
    let captures = crate::path::Template::parse("/a").unwrap().capture(&path);
    let (route, follow, report) = (Arc::from("r"), Follow::default(), Report::default());
    let granted = granted();
    let ask = Ask { granted: Some(&granted), ..Ask::new(&route, &captures, &follow, &report) };
    let claimed = store.claim(&ask, Timestamp::from_unix_ms(0), Duration::from_secs(5)).await;
    let Err(ClaimError::Refused(refusal)) = claimed else { panic!("{claimed:?}") };
    assert_eq!(refusal.denial, Denial::StoreUnavailable);
}

//! Tests the claims of the store with a journal whose commits the test controls.

use std::pin::pin;
use std::task::{Context, Waker};

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::file::Journal;
use super::ledger::Store;
use super::memory::Memory;
use super::waiters::Waiters;
use crate::config::StoreSettings;
use crate::interaction::{Ask, ClaimError, EventKey, Follow, Report};
use crate::observe::Metrics;
use crate::time::Timestamp;

/// Creates a store whose journal has no writer. A test uses the returned sender to report changes as durable.
fn store() -> (Store, watch::Sender<u64>) {
    let settings = StoreSettings {
        path: None,
        unknown: crate::config::Unknown::Adopt,
        interactions_max: 10,
        events_max: 10,
        remember: Duration::from_secs(60),
        grace: Duration::from_millis(500),
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let (journal, durable) = Journal::new(settings.grace, Arc::clone(&metrics), crate::clock::instant);
    let journal = Arc::new(journal);
    let memory = Arc::new(Memory::new(settings, Some(Arc::clone(&journal)), metrics));
    (Store { memory, journal: Some(journal), waiters: Waiters::default() }, durable)
}

#[tokio::test]
async fn a_settlement_that_is_dropped_during_its_commit_wakes_waiting_claims() {
    let (store, durable) = store();
    let (route, events) = (Arc::from("r"), [EventKey(1)]);
    let path = crate::path::CanonicalPath::parse("/a").unwrap();
    let captures = crate::path::Template::parse("/a").unwrap().capture(&path);
    let (follow, report) = (Follow::default(), Report::default());
    let ask = Ask {
        route: &route,
        provider: None,
        captures: &captures,
        granted: None,
        events: &events,
        event_id: None,
        follow: &follow,
        notifies: false,
        report: &report,
    };
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

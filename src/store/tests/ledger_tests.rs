//! Tests of the ledger in memory, and of a simulated ledger that several processes share.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::interaction::{Ask, EventKey, Follow, Interaction, Report, UnmatchedCallback};
use crate::path::{CanonicalPath, Captures, Template};
use crate::store::event_memory::FingerprintKey;
use crate::store::hand_over::HandedRecords;
use crate::store::inbox::{Backing, Inbox, SharedMessages};
use crate::store::ledger::Store;
use crate::store::memory::Memory;
use crate::store::outcome::Passed;
use crate::store::redis::SimulatedLedger;
use crate::time::Timestamp;
use crate::token::Granted;

const NOW: Timestamp = SimulatedLedger::BEGIN;
const HOUR: Duration = Duration::from_secs(3600);

/// Returns the stores of processes that share a simulated ledger.
async fn shared<const N: usize>() -> [Store; N] {
    let (ledger, processes) = SimulatedLedger::start(|_| {}).await;
    let store = |shared| {
        let (key, metrics) = (FingerprintKey::random(), Arc::clone(&ledger.metrics));
        let messages = SharedMessages::new(Arc::clone(&shared), ledger.settings.grace);
        let inbox = Inbox::new(key, Backing::Shared(messages), Arc::clone(&metrics));
        let memory = Memory::new(ledger.settings.clone(), key, None, metrics);
        let mut store = Store::with(Arc::new(memory), None, inbox);
        store.shared = Some(shared);
        store
    };
    processes.map(store)
}

fn in_memory() -> Store {
    let settings = super::file_tests::settings(None);
    super::file_tests::start_with(&settings, NOW).unwrap()
}

/// Applies all deadlines that have passed.
async fn pass(store: &Store) -> Passed {
    let mut all = Passed { has_more: true, ..Passed::default() };
    while all.has_more {
        let Passed { notices, elsewhere, has_more } = store.pass(NOW).await;
        all.notices.extend(notices);
        all.elsewhere.extend(elsewhere);
        all.has_more = has_more;
    }
    all
}

fn captures() -> Captures {
    Template::parse("/a").unwrap().capture(&CanonicalPath::parse("/a").unwrap())
}

fn granted(id: &str) -> Granted {
    Granted {
        interaction: id.into(),
        issued: NOW,
        expires: NOW.plus(HOUR),
        uses: None,
        owner: None,
        is_opaque: false,
    }
}

#[tokio::test(start_paused = true)]
async fn failed_deliveries_are_counted_and_a_lost_message_has_a_notice() {
    let (route, captures, follow, report) = ("r".into(), captures(), Follow::default(), Report::default());
    let granted = granted("int_a");
    let ask = Ask::new(&route, &captures, &follow, &report);
    let events = [EventKey(1)];
    let ask = Ask { granted: Some(&granted), events: &events, notifies: true, adopts: true, ..ask };
    let delivery_max = Duration::from_secs(5);
    let ask = Ask { delivery_max, ..ask };
    let [in_redis] = shared().await;
    for store in [in_memory(), in_redis] {
        let what = if store.is_shared() { "shared" } else { "in memory" };
        let undelivered = async || {
            let record = store.read("int_a").await.unwrap().unwrap();
            record.undelivered().map_or(0, |undelivered| undelivered.count)
        };
        for count in 1..=2 {
            store.claim(&ask, NOW, HOUR).await.unwrap().fail(NOW).await;
            assert_eq!(undelivered().await, count, "{what}");
        }
        assert!(pass(&store).await.notices.is_empty(), "{what}: the provider repeats the callback");
        store.undelivered("int_a", NOW).await.unwrap();
        assert_eq!(undelivered().await, 3, "{what}");
        // The deadline that has changed is applied by the next scheduled check.
        tokio::time::advance(Duration::from_secs(1)).await;
        let notices = pass(&store).await.notices;
        let about: Vec<_> = notices.iter().map(|notice| (&*notice.id, notice.is_retry)).collect();
        assert_eq!(about, [("int_a", false)], "{what}");
        // When the agent accepts this callback, its two failed attempts are subtracted. A shared ledger does not
        // subtract them, because it does not record which callback an attempt belongs to.
        let claimed = store.claim(&ask, NOW, HOUR).await.unwrap();
        claimed.settle(&report, None, NOW).await.unwrap();
        assert_eq!(undelivered().await, if store.is_shared() { 3 } else { 1 }, "{what}");
    }
}

#[tokio::test]
async fn a_callback_without_a_token_finds_its_interaction_by_the_id_of_the_provider() {
    let store = in_memory();
    let record = |id: &str| {
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR)).matched();
        json!({ "id": id, "record": record })
    };
    let records = json!([record("int_a"), record("int_b")]);
    let records: HandedRecords = serde_json::from_value(records).unwrap();
    assert_eq!(store.take_over(records).await.unwrap(), ["int_a", "int_b"]);
    for (id, provider_id) in [("int_a", "first"), ("int_b", "other"), ("int_a", "work")] {
        store.bind(id, provider_id, NOW).await.unwrap();
    }
    let (route, captures, granted) = ("r".into(), captures(), granted("int_b"));
    let matched = async |matching, id: Option<&str>, has_token: bool| {
        let follow = Follow { matching, ..Follow::default() };
        let report = Report { id: id.map(Into::into), ..Report::default() };
        let ask = Ask::new(&route, &captures, &follow, &report);
        let ask = Ask { granted: has_token.then_some(&granted), ..ask };
        store.matched(&ask).await.unwrap().map(|id| id.to_string())
    };
    let (deliver, refuse) = (Some(UnmatchedCallback::Deliver), Some(UnmatchedCallback::Refuse));
    for (matching, id, has_token, expected) in [
        (deliver, Some("work"), false, Some("int_a")),
        (refuse, Some("work"), false, Some("int_a")),
        (deliver, Some("other"), false, Some("int_b")),
        (deliver, Some("first"), false, None),
        (deliver, None, false, None),
        (deliver, Some("work"), true, None),
        (None, Some("work"), false, None),
    ] {
        let found = matched(matching, id, has_token).await;
        assert_eq!(found.as_deref(), expected, "{matching:?} {id:?} {has_token}");
    }
    store.handed_over(&["int_a".to_owned()]).await;
    assert_eq!(matched(deliver, Some("work"), false).await, None, "the interaction was removed");
    assert_eq!(matched(deliver, Some("other"), false).await.as_deref(), Some("int_b"));
}

/// If another process finds the expired deadline of an interaction, it asks the owner to apply the deadline. If the
/// owner cannot be reached, that process applies the deadline itself and sends the notice.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_applied_by_the_process_to_which_it_is_passed() {
    let follow = Follow { deadline: Some(Duration::from_secs(30)), ..Follow::default() };
    for (name, by) in [("the owner", 0), ("another process", 1)] {
        let processes = shared().await;
        let [owner, other] = &processes;
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR)).followed(&follow, true);
        owner.shared.as_ref().unwrap().open("int_a", record).await.unwrap();
        tokio::time::advance(Duration::from_secs(31)).await;
        let found = pass(other).await;
        let elsewhere: Vec<_> = found.elsewhere.iter().map(|(owner, id)| (&*owner.address, &**id)).collect();
        assert_eq!((found.notices.len(), elsewhere), (0, vec![("process-0:80", "int_a")]), "{name}");
        for process in &processes {
            let found = pass(process).await;
            assert_eq!((found.notices.len(), found.elsewhere.len()), (0, 0), "{name}: the id is hidden");
        }
        processes[by].apply_here(found.elsewhere.into_iter().map(|(_, id)| id));
        let applied = pass(&processes[by]).await;
        let notices: Vec<_> = applied.notices.iter().map(|notice| &*notice.id).collect();
        assert_eq!((notices, applied.elsewhere.len()), (vec!["int_a"], 0), "{name}");
    }
}

//! Tests of the ledger in memory, and of a simulated ledger that several processes share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::denial::Denial;
use crate::inbox::Outcome;
use crate::ingress::Kept;
use crate::interaction::{
    Ask, ClaimError, Event, EventKey, Follow, InformedBy, Inherited, Interaction, Report, State,
    UnmatchedCallback,
};
use crate::path::{CanonicalPath, Captures, Template};
use crate::replica::{Incarnation, Owner};
use crate::store::event_memory::FingerprintKey;
use crate::store::hand_over::HandedRecords;
use crate::store::inbox::{Backing, Inbox, SharedMessages};
use crate::store::ledger::Store;
use crate::store::memory::{Memory, NEVER, SHARDS};
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

#[tokio::test(start_paused = true)]
async fn a_settled_callback_is_recorded_for_all_processes_and_its_repetition_is_a_duplicate() {
    let (route, captures, follow) = ("r".into(), captures(), Follow::default());
    let granted = granted("int_a");
    let last = Report { end: Some(Event::Completed), ..Report::default() };
    for (name, stores) in [("in memory", vec![in_memory()]), ("shared", Vec::from(shared::<2>().await))] {
        let (store, other) = (&stores[0], stores.last().unwrap());
        for (key, report) in [(1, &Report::default()), (2, &last)] {
            let ask = Ask::new(&route, &captures, &follow, report);
            let ask = Ask { granted: Some(&granted), events: &[EventKey(key)], adopts: true, ..ask };
            store.claim(&ask, NOW, HOUR).await.unwrap().settle(report, None, NOW).await.unwrap();
            let repeated = other.claim(&ask, NOW, HOUR).await.map(drop);
            assert_eq!(repeated, Err(ClaimError::Duplicate), "{name}: {key}");
        }
        let record = other.read("int_a").await.unwrap().unwrap();
        let informed: Vec<_> = record.informed().iter().map(|informed| informed.by).collect();
        assert_eq!(record.state, State::Done, "{name}");
        assert_eq!(informed, [InformedBy::Callback, InformedBy::FinalCallback], "{name}");
    }
}

#[tokio::test]
async fn a_callback_in_the_inbox_informs_the_agent_only_when_the_agent_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = super::file_tests::settings(Some(&folder.path().join("ledger")));
    let store = super::file_tests::start_with(&settings, NOW).unwrap();
    let (inbox, routes) = (store.inbox(), ["r".into()]);
    inbox.configure(Arc::default(), &[("r".into(), true)]);
    let (captures, follow, granted) = (captures(), Follow::default(), granted("int_a"));
    let report = Report { end: Some(Event::Completed), ..Report::default() };
    let ask = Ask::new(&routes[0], &captures, &follow, &report);
    let ask = Ask { granted: Some(&granted), events: &[EventKey(1)], adopts: true, ..ask };
    let head = json!({
        "route": "r", "interaction": "int_a", "client": "127.0.0.1", "is_tls": false, "method": "POST",
        "target": "/in", "headers": [], "received": NOW.unix_ms(), "body_bytes": 0, "is_progress": false,
    });
    let message = (Kept::from_bytes(&serde_json::to_vec(&head).unwrap()).unwrap(), Bytes::new());
    let claimed = store.claim(&ask, NOW, HOUR).await.unwrap();
    store.accept(claimed, message, (&report, None), NOW).await.unwrap();
    let told = async || {
        let record = store.read("int_a").await.unwrap().unwrap();
        let informed: Vec<_> = record.informed().iter().map(|informed| informed.by).collect();
        (record.state, informed)
    };
    assert_eq!(told().await, (State::Done, vec![]));
    let started = inbox.start(&routes, NOW).unwrap();
    started.end(Outcome::Accepted, "200", (NOW, false, 0)).await.unwrap();
    store.message_received("int_a", NOW);
    assert_eq!(told().await, (State::Done, vec![InformedBy::FinalCallback]));
}

#[test]
fn the_interactions_are_spread_evenly_over_the_shards() {
    let mut counts = [0; SHARDS];
    for _ in 0..100 * SHARDS {
        counts[Memory::index(&crate::random::new_id("int_").unwrap()) % SHARDS] += 1;
    }
    assert!(counts.iter().all(|count| (30..300).contains(count)), "{counts:?}");
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

#[tokio::test(start_paused = true)]
async fn a_callback_with_an_unknown_provider_id_is_refused_if_its_route_says_so() {
    let [in_redis] = shared().await;
    for (name, store) in [("in memory", in_memory()), ("shared", in_redis)] {
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR)).matched();
        match &store.shared {
            Some(shared) => shared.open("int_a", record).await.unwrap(),
            None => {
                let records = json!([{ "id": "int_a", "record": record }]);
                store.take_over(serde_json::from_value(records).unwrap()).await.map(drop).unwrap();
            }
        }
        store.bind("int_a", "work", NOW).await.unwrap();
        let (route, captures) = ("r".into(), captures());
        for (matching, id, expected) in [
            (UnmatchedCallback::Deliver, "work", Ok(Some("int_a"))),
            (UnmatchedCallback::Refuse, "work", Ok(Some("int_a"))),
            (UnmatchedCallback::Deliver, "unknown", Ok(None)),
            (UnmatchedCallback::Refuse, "unknown", Err(Denial::InteractionUnknown)),
        ] {
            let follow = Follow { matching: Some(matching), ..Follow::default() };
            let report = Report { id: Some(id.into()), ..Report::default() };
            let claimed = store.claim(&Ask::new(&route, &captures, &follow, &report), NOW, HOUR).await;
            let found = match &claimed {
                Ok(claimed) => Ok(claimed.interaction()),
                Err(ClaimError::Refused(refusal)) => Err(refusal.denial),
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(found, expected, "{name}: {matching:?} {id}");
        }
    }
}

#[tokio::test]
async fn an_interaction_that_is_taken_over_twice_is_counted_while_it_is_open() {
    for (first, second, open) in [
        (State::Open, State::Open, "1"),
        (State::Open, State::Done, "0"),
        (State::Done, State::Open, "0"),
        (State::Open, State::Revoked, "0"),
    ] {
        let store = in_memory();
        for state in [first, second] {
            let mut record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR));
            record.state = state;
            let records = json!([{ "id": "int_a", "record": record }]);
            store.take_over(serde_json::from_value(records).unwrap()).await.unwrap();
        }
        let text = store.memory.metrics.text().unwrap();
        let counted =
            text.lines().find_map(|line| line.strip_prefix("callgate_interactions_open{route=\"r\"} "));
        assert_eq!(counted.unwrap_or("0"), open, "{first:?}, {second:?}");
    }
}

#[tokio::test]
async fn the_origin_of_interactions_is_known_until_the_last_one_has_left() {
    let (store, [origin, other]) = (in_memory(), [(); 2].map(|()| Incarnation::random().unwrap()));
    for id in ["int_a", "int_b"] {
        let mut record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR));
        record.leave(&origin.to_string(), Inherited { key: [1, 2], events: Vec::new() });
        let records = json!([{ "id": id, "record": record }]);
        store.take_over(serde_json::from_value(records).unwrap()).await.unwrap();
    }
    for (id, is_known) in [(None, true), (Some("int_a"), true), (Some("int_b"), false)] {
        store.handed_over(&Vec::from_iter(id.map(str::to_owned))).await;
        assert_eq!([origin, other].map(|one| store.inherits(one)), [is_known, false], "without {id:?}");
        assert_eq!(store.inherited(), Vec::from_iter(is_known.then(|| origin.to_string())));
    }
}

#[tokio::test(start_paused = true)]
async fn new_interactions_belong_to_the_address_that_their_process_has_learned() {
    let [store, other] = shared().await;
    let follow = Follow { deadline: Some(Duration::from_secs(30)), ..Follow::default() };
    let opened = async |id: &str| {
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR)).followed(&follow, true);
        store.shared.as_ref().unwrap().open(id, record).await.unwrap();
        tokio::time::advance(Duration::from_secs(31)).await;
        let found = pass(&other).await.elsewhere.into_iter();
        found.filter(|(_, found)| **found == *id).map(|(owner, _)| owner).collect::<Vec<_>>()
    };
    let first = opened("int_a").await.remove(0);
    let learned = Owner { address: "learned:80".into(), ..first };
    store.set_own(&learned);
    assert_eq!(opened("int_b").await, [learned]);
}

#[tokio::test(start_paused = true)]
async fn a_callback_waits_for_its_provider_id_while_a_response_of_its_route_is_outstanding() {
    let [in_redis] = shared().await;
    for (name, store) in [("in memory", in_memory()), ("shared", in_redis)] {
        let store = Arc::new(store);
        let (captures, routes) = (captures(), ["r", "other"].map(Arc::from));
        let follow = Follow { matching: Some(UnmatchedCallback::Deliver), ..Follow::default() };
        let report = Report { id: Some("work".into()), ..Report::default() };
        // Returns the seconds for which a callback of each route waits.
        let waits = async || {
            let mut seconds = [0; 2];
            for (route, seconds) in routes.iter().zip(&mut seconds) {
                let began = crate::clock::instant();
                let found = store.matched(&Ask::new(route, &captures, &follow, &report)).await;
                assert_eq!(found.unwrap(), None, "{name}");
                *seconds = (crate::clock::instant() - began).as_secs();
            }
            seconds
        };
        assert_eq!(waits().await, [0, 0], "{name}: no request was sent");
        let first = store.await_response(&routes[0]).await;
        let second = store.await_response(&routes[0]).await;
        assert_eq!(waits().await, [10, 0], "{name}: two responses are outstanding");
        drop(first);
        assert_eq!(waits().await, [10, 0], "{name}: one response is outstanding");
        let answered = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            drop(second);
        };
        assert_eq!(tokio::join!(waits(), answered).0, [4, 0], "{name}: the response has no id");
        assert_eq!(waits().await, [0, 0], "{name}: no response is outstanding");
    }
}

#[tokio::test]
async fn outdated_checks_of_deadlines_are_removed_when_they_are_the_majority() {
    let store = in_memory();
    // The ids of ten interactions in the same shard.
    let ids: Vec<_> = (0..10).map(|number| format!("int_{number}{}", 9 - number)).collect();
    for id in &ids {
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR));
        let records = json!([{ "id": id, "record": record }]);
        store.take_over(serde_json::from_value(records).unwrap()).await.unwrap();
    }
    let mut shard = store.memory.shard(Memory::index(&ids[0]));
    let (mut before, mut rebuilt) = (shard.checks.len(), 0);
    for _ in 0..5000 {
        let id: Arc<str> = ids[0].as_str().into();
        shard.interactions.get_mut(&id).unwrap().next_check = NEVER;
        store.memory.reschedule(&mut shard, &id, NOW);
        let after = shard.checks.len();
        if after <= before {
            assert_eq!((before, after), (2 * 10 + 1024, 10));
            assert!(ids.iter().all(|id| shard.checks.iter().any(|check| *check.0.1 == **id)));
            rebuilt += 1;
        }
        before = after;
    }
    assert_eq!(rebuilt, 4);
}

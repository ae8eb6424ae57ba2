//! Tests of the inbox over a real file, without a server.

use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::backing::Backing;
use super::index::Index;
use crate::config::{StoreSettings, Unknown};
use crate::denial::Denial;
use crate::inbox::{InboxSettings, MessageState, Next, Outcome};
use crate::ingress::Kept;
use crate::interaction::{Ask, EventKey, Follow, Report};
use crate::observe::Metrics;
use crate::path::{CanonicalPath, Template};
use crate::store::{Leased, Settling, Store};
use crate::time::Timestamp;

pub(super) const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

pub(super) fn open(path: &Path) -> Store {
    let settings = StoreSettings {
        path: Some(path.to_str().unwrap().into()),
        redis: None,
        keep_ended: Duration::ZERO,
        unknown: Unknown::Refuse,
        interactions_max: 10,
        events_max: 100_000,
        remember: Duration::from_secs(3600),
        grace: Duration::from_secs(10),
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::start(&settings, metrics, crate::clock::instant, NOW).unwrap();
    configure(&store, InboxSettings::default());
    store
}

fn configure(store: &Store, settings: InboxSettings) {
    store.inbox().configure(Arc::new(settings), &[("r".into(), true)]);
}

fn kept(interaction: Option<&str>, bytes: usize) -> Kept {
    kept_with(interaction, bytes, false)
}

fn kept_with(interaction: Option<&str>, bytes: usize, is_progress: bool) -> Kept {
    let head = json!({
        "route": "r", "interaction": interaction, "client": "127.0.0.1", "is_tls": false, "method": "POST",
        "target": "/in", "headers": [["content-type", "text/plain"]], "received": NOW.unix_ms(), "body_bytes": bytes,
        "is_progress": is_progress,
    });
    Kept::from_bytes(&serde_json::to_vec(&head).unwrap()).unwrap()
}

/// Accepts a message with this event. Returns the message id, or the code of the denial.
async fn accept(
    store: &Store,
    event: u128,
    interaction: Option<&str>,
    body: Bytes,
) -> Result<String, &'static str> {
    accept_kept(store, event, (kept(interaction, body.len()), body)).await
}

async fn accept_kept(store: &Store, event: u128, message: (Kept, Bytes)) -> Result<String, &'static str> {
    let (route, events) = (Arc::from("r"), [EventKey(event)]);
    let captures = Template::parse("/a").unwrap().capture(&CanonicalPath::parse("/a").unwrap());
    let (follow, report) = (Follow::default(), Report::default());
    let ask = Ask { events: &events, ..Ask::new(&route, &captures, &follow, &report) };
    let claimed = store.claim(&ask, NOW, Duration::ZERO).await.map_err(|_| "claim")?;
    store.accept(claimed, message, (&report, None), NOW).await.map_err(|refusal| refusal.denial.code())
}

pub(super) fn routes() -> [Arc<str>; 1] {
    ["r".into()]
}

#[tokio::test]
async fn messages_survive_the_compaction_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let store = open(&path);
    let body = Bytes::from(vec![b'x'; 64 << 10]);
    for event in 0..600 {
        accept(&store, event, None, body.clone()).await.unwrap();
    }
    let large = std::fs::metadata(&path).unwrap().len();
    for number in 1..=590 {
        assert!(store.inbox().erase(number).await.unwrap());
    }
    // Compaction runs between commits, so further commits are necessary.
    for event in 600..2000 {
        accept(&store, event, None, Bytes::from_static(b"small")).await.unwrap();
        if std::fs::metadata(&path).unwrap().len() < large / 4 {
            break;
        }
    }
    assert!(std::fs::metadata(&path).unwrap().len() < large / 4, "the file was compacted");
    let whole = |message: Option<crate::store::Message>| message.unwrap().body == body;
    assert!(whole(store.inbox().read(591).await.unwrap()), "the reader follows the file");
    drop(store);
    let store = open(&path);
    for number in 591..=600 {
        assert!(whole(store.inbox().read(number).await.unwrap()), "{number}");
    }
    assert!(store.inbox().read(590).await.unwrap().is_none());
    // New numbers follow the highest number that was assigned before the restart.
    let id = accept(&store, 5000, None, Bytes::new()).await.unwrap();
    let last = store.inbox().list(&crate::store::MessageFilter::default(), usize::MAX).pop().unwrap();
    assert_eq!(store.inbox().number_of(&id), Some(last.number));
}

#[tokio::test]
async fn an_interaction_waits_for_its_head_and_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    for (event, interaction) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        accept(&store, event, Some(interaction), Bytes::from_static(b"body")).await.unwrap();
    }
    let inbox = store.inbox();
    let (first, third) = (inbox.start(&routes(), NOW).unwrap(), inbox.start(&routes(), NOW).unwrap());
    assert_eq!((first.number, third.number), (1, 3));
    assert!(inbox.start(&routes(), NOW).is_none(), "2 and 4 wait for 1");
    let next = first.end(Outcome::Failed(None), "500", (NOW, false, 999)).await.unwrap();
    assert_eq!(next, Some(Next::Due(NOW.plus(Duration::from_millis(999)))));
    assert!(inbox.start(&routes(), NOW).is_none());
    let again = inbox.start(&routes(), NOW.plus(Duration::from_secs(1))).unwrap();
    assert_eq!((again.number, again.attempt), (1, 2));
    assert_eq!(
        again.end(Outcome::Gone, "410", (NOW, false, 0)).await.unwrap().clone(),
        Some(Next::Dead(crate::inbox::Cause::Gone))
    );
    let second = inbox.start(&routes(), NOW).unwrap();
    assert_eq!(second.number, 2);
    // An attempt without an outcome is repeated.
    drop(second);
    let second = inbox.start(&routes(), NOW).unwrap();
    assert_eq!((second.number, second.attempt), (2, 1));
    second.end(Outcome::Accepted, "200", (NOW, false, 0)).await.unwrap();
    // A revocation marks waiting messages as dead, and does not interrupt an attempt.
    let fourth = inbox.start(&routes(), NOW).unwrap();
    accept(&store, 5, Some("a"), Bytes::new()).await.unwrap();
    inbox.revoked("a", NOW);
    fourth.end(Outcome::Accepted, "200", (NOW, false, 0)).await.unwrap();
    let states: Vec<_> = inbox
        .list(&crate::store::MessageFilter::default(), 10)
        .iter()
        .map(|view| (view.number, view.state))
        .collect();
    assert_eq!(states, [(1, MessageState::Dead), (3, MessageState::Leased), (5, MessageState::Dead)]);
    assert_eq!(inbox.undelivered("a").map(|(count, _)| count), Some(2));
}

#[tokio::test]
async fn a_full_inbox_releases_the_claim() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    configure(&store, InboxSettings { bytes_max: 1000, ..InboxSettings::default() });
    assert_eq!(accept(&store, 1, None, Bytes::from(vec![0; 2000])).await, Err("inbox_full"));
    accept(&store, 1, None, Bytes::from_static(b"small")).await.unwrap();
    assert_eq!(accept(&store, 1, None, Bytes::from_static(b"small")).await, Err("claim"), "a duplicate");
    // An erased message makes room.
    configure(&store, InboxSettings { messages_max: 1, ..InboxSettings::default() });
    assert_eq!(accept(&store, 2, None, Bytes::new()).await, Err("inbox_full"));
    assert!(store.inbox().erase(1).await.unwrap());
    let id = accept(&store, 2, None, Bytes::new()).await.unwrap();
    assert_eq!(store.inbox().number_of(&id), Some(2));
    for wrong in ["msg_2", "msg_2_0", "2", "", "msg_3_0000000000000000"] {
        assert_eq!(store.inbox().number_of(wrong), None, "{wrong}");
    }
}

/// Checks the memory that a waiting message needs: an entry in a map, and a pair in each of two sets. The nodes of a
/// B-tree are at least half full.
#[test]
fn a_waiting_message_needs_little_memory() {
    let entry = size_of::<u64>() + size_of::<super::entry::Entry>();
    let places = 2 * size_of::<(u64, u64)>();
    assert!(2 * (entry + places) <= 250, "{entry} {places}");
    assert_eq!(Index::default().count, 0);
}

#[tokio::test]
async fn overtaken_progress_stays_away_even_if_the_disk_fails_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let store = open(&path);
    configure(&store, InboxSettings { coalesces_progress: true, ..InboxSettings::default() });
    let progress = || (kept_with(Some("a"), 0, true), Bytes::new());
    accept_kept(&store, 1, progress()).await.unwrap();
    // The change for the last callback is queued, but the call that accepts it is dropped before the commit.
    let (mut event, mut last) = (1, None);
    while last.is_none() {
        event += 1;
        let mut exchange = Box::pin(accept_kept(&store, event, progress()));
        std::future::poll_fn(|context| Poll::Ready(exchange.as_mut().poll(context).is_ready())).await;
        last = store.inbox().index.lock().storing.back().map(|(_, number, _)| *number);
    }
    let Backing::File(commit_queue, _) = &store.inbox().backing else { panic!("not in a file") };
    assert!(commit_queue.durable(commit_queue.sequence()).await);
    commit_queue.shared().set_failing();
    store.inbox().pass(NOW);
    drop(store);
    let store = open(&path);
    let messages = store.inbox().list(&crate::store::MessageFilter::default(), 10);
    assert_eq!(messages.iter().map(|view| Some(view.number)).collect::<Vec<_>>(), [last]);
}

/// Delivers messages that are due now to an agent that rejects them with 410, so that they are dead.
async fn make_dead(store: &Store, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let started = store.inbox().start(&routes(), NOW).unwrap();
        assert_eq!(started.number, number);
        started.end(Outcome::Gone, "410", (NOW, false, 0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_replayed_message_is_delivered_before_its_successors() {
    let (folder, second) = (tempfile::tempdir().unwrap(), Duration::from_secs(1));
    let store = open(&folder.path().join("ledger"));
    for event in 1..=4 {
        accept(&store, event, Some("a"), Bytes::new()).await.unwrap();
    }
    let inbox = store.inbox();
    make_dead(&store, 1..=2).await;
    // The third message waits for its backoff.
    let third = inbox.start(&routes(), NOW).unwrap();
    third.end(Outcome::Failed(None), "500", (NOW, false, 999)).await.unwrap();
    inbox.replay(2, NOW).await.unwrap();
    let later = NOW.plus(second);
    let started = inbox.start(&routes(), later).unwrap();
    assert_eq!(started.number, 2);
    assert!(inbox.start(&routes(), later).is_none(), "3 waits for 2");
    // A message is replayed while a later one is being delivered.
    started.end(Outcome::Accepted, "200", (later, false, 0)).await.unwrap();
    let third = inbox.start(&routes(), later).unwrap();
    inbox.replay(1, later).await.unwrap();
    assert!(inbox.start(&routes(), later).is_none(), "1 waits for 3, which is being delivered");
    third.end(Outcome::Failed(None), "500", (later, false, 0)).await.unwrap();
    for number in [1, 3, 4] {
        let started = inbox.start(&routes(), later).unwrap();
        assert_eq!(started.number, number);
        assert!(inbox.start(&routes(), later).is_none(), "one at a time");
        started.end(Outcome::Accepted, "200", (later, false, 0)).await.unwrap();
    }
}

#[tokio::test]
async fn the_time_for_attempts_of_a_slow_replay_begins_with_its_first_attempt() {
    let (folder, minute) = (tempfile::tempdir().unwrap(), Duration::from_secs(60));
    let path = folder.path().join("ledger");
    let settings = || InboxSettings { tried_for: 10 * minute, ..InboxSettings::default() };
    let mut store = open(&path);
    configure(&store, settings());
    for event in 1..=5 {
        accept(&store, event, None, Bytes::new()).await.unwrap();
    }
    make_dead(&store, 1..=5).await;
    let rate = Some(crate::time::parse_rate("12/h").unwrap());
    let filter = crate::store::MessageFilter::default();
    assert_eq!(store.inbox().replay_many(&filter, None, rate, NOW).await.unwrap(), 5);
    // The messages are due after 0, 5, 10, 15 and 20 minutes, and each of them is attempted for 10 minutes.
    assert_eq!(store.inbox().pass(NOW.plus(9 * minute)).given_up, Vec::<u64>::new());
    assert_eq!(store.inbox().pass(NOW.plus(11 * minute)).given_up, [1]);
    drop(store);
    store = open(&path);
    configure(&store, settings());
    assert_eq!(store.inbox().pass(NOW.plus(16 * minute)).given_up, [2]);
    // The clock is set back by ten minutes: the fifth message is still due in four minutes.
    let back = NOW.plus(6 * minute);
    assert!(store.inbox().pass(back).set_back.is_some());
    assert_eq!(store.inbox().pass(back.plus(13 * minute)).given_up, [3, 4]);
    assert_eq!(store.inbox().pass(back.plus(14 * minute)).given_up, [5]);
}

#[tokio::test]
async fn a_message_that_is_being_delivered_outlasts_its_route() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    for event in 1..=3 {
        accept(&store, event, None, Bytes::new()).await.unwrap();
    }
    let inbox = store.inbox();
    let (first, second) = (inbox.start(&routes(), NOW).unwrap(), inbox.start(&routes(), NOW).unwrap());
    let settings = InboxSettings { drops_removed_routes: true, ..InboxSettings::default() };
    inbox.configure(Arc::new(settings), &[("other".into(), true)]);
    assert_eq!(inbox.route_removed("r", NOW), 1, "only the third message waits");
    let states = || -> Vec<_> {
        let messages = inbox.list(&crate::store::MessageFilter::default(), 10);
        messages.iter().map(|view| (view.number, view.state)).collect()
    };
    let (dead, leased) = (MessageState::Dead, MessageState::Leased);
    assert_eq!(states(), [(1, leased), (2, leased), (3, dead)]);
    let ended = first.end(Outcome::Accepted, "200", (NOW, false, 0)).await;
    assert_eq!(ended.unwrap(), Some(Next::Delivered));
    second.end(Outcome::Failed(None), "500", (NOW, false, 0)).await.unwrap();
    inbox.pass(NOW);
    assert_eq!(states(), [(2, dead), (3, dead)], "nothing waits for a route that does not come back");
    // The message is removed while an attempt is in progress. The outcome of the attempt is then ignored.
    inbox.configure(Arc::default(), &[("r".into(), true)]);
    inbox.replay(3, NOW).await.unwrap();
    let third = inbox.start(&routes(), NOW).unwrap();
    inbox.index.lock().remove(3);
    assert_eq!(third.end(Outcome::Accepted, "200", (NOW, false, 0)).await.unwrap(), None);
}

#[tokio::test]
async fn a_lease_that_the_agent_did_not_receive_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    configure(&store, InboxSettings::default());
    for event in 1..=3 {
        accept(&store, event, Some("a"), Bytes::new()).await.unwrap();
    }
    let inbox = store.inbox();
    inbox.configure(Arc::default(), &[("r".into(), false)]);
    let lease = |now: Timestamp| inbox.lease(Some("a"), &routes(), (2, 1 << 20), now);
    let numbers = |leased: &[Leased]| leased.iter().map(|one| one.number).collect::<Vec<_>>();
    let pulled = inbox.pulled(Some("a"));
    let mut first = lease(NOW);
    assert_eq!(numbers(&first), [1, 2]);
    first.remove(0).received();
    drop(first);
    // The end of the lease wakes agents that wait.
    pulled.await;
    let second = lease(NOW);
    assert_eq!(numbers(&second), [2, 3]);
    // When the value for an expired lease is dropped, the next lease of the same message continues.
    let later = NOW.plus(inbox.settings().lease);
    inbox.pass(later);
    let third = lease(later);
    assert_eq!(numbers(&third), [1, 2]);
    drop(second);
    assert_eq!(numbers(&lease(later)), [3]);
    assert!(inbox.view(2).is_some_and(|view| view.state == MessageState::Leased));
    third.into_iter().for_each(|one| one.postpone(later.plus(Duration::from_secs(5))));
    assert_eq!(numbers(&lease(later)), [3]);
    assert_eq!(numbers(&lease(later.plus(Duration::from_secs(5)))), [1, 2]);
}

#[tokio::test]
async fn an_acknowledged_message_is_removed_and_its_interaction_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let store = open(&path);
    let interactions = [Some("a"), Some("b"), None, Some("a")];
    for (event, interaction) in (1..).zip(interactions) {
        accept(&store, event, interaction, Bytes::new()).await.unwrap();
    }
    let (inbox, routes) = (store.inbox(), routes());
    inbox.configure(Arc::default(), &[("r".into(), false)]);
    let leased = inbox.lease(None, &routes, (3, 1 << 20), NOW);
    leased.into_iter().for_each(Leased::received);
    let any = Settling { interaction: None, routes: &routes, attempt: None };
    let of = |interaction| Settling { interaction: Some(interaction), ..any };
    for (name, settling) in [
        ("another interaction", of("b")),
        ("another route", Settling { routes: &["other".into()], ..any }),
        ("another attempt", Settling { attempt: Some(2), ..any }),
    ] {
        let refused = inbox.taken(settling, 1, NOW).await.unwrap_err().denial;
        assert_eq!(refused, Denial::MessageUnknown, "{name}");
    }
    // The fourth message is not pulled. The agent can acknowledge it nevertheless, because its lease may have expired.
    let of_attempt = Settling { attempt: Some(1), ..any };
    for (number, settling) in [(1, of_attempt), (2, of("b")), (3, any), (4, any)] {
        let interaction = interactions[number as usize - 1];
        let now = NOW.plus(Duration::from_secs(number));
        assert_eq!(inbox.taken(settling, number, now).await.unwrap().as_deref(), interaction, "{number}");
        let refused = inbox.taken(settling, number, now).await.unwrap_err().denial;
        assert_eq!(refused, Denial::MessageUnknown, "{number} again");
        assert!(inbox.read(number).await.unwrap().is_none(), "{number}");
    }
    let text = inbox.metrics.text().unwrap();
    assert!(text.contains("callgate_inbox_delay_seconds_sum{route=\"r\"} 10\n"), "1 s, 2 s, 3 s and 4 s");
    drop(store);
    let left = open(&path).inbox().list(&crate::store::MessageFilter::default(), 10);
    assert!(left.is_empty(), "after a restart");
}

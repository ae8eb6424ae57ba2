//! Tests the store with files that the test writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::StoreSettings;
use crate::interaction::{Ask, ClaimError, EventKey, Follow, Interaction, Report};
use crate::observe::Metrics;
use crate::store::event_memory::FingerprintKey;
use crate::store::file::{LedgerFile, NO_OWNER, Record, StoredEvent};
use crate::store::file_writer::write_snapshot;
use crate::store::ledger::Store;
use crate::store::memory::Memory;
use crate::store::outcome::Revoked;
use crate::time::Timestamp;
use crate::token::Granted;

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);
const HOUR: Duration = Duration::from_secs(3600);
const OWNER: u64 = 1;
/// The key of an event that belongs to an interaction. Its highest bits look random, as in files of earlier versions of
/// Callgate.
const OF_INTERACTION: EventKey = EventKey(0xa1b2_c3d4_0000_0000_0000_0000_0000_0001);
/// The key of an event that belongs to no interaction. Its highest bits look random, as in files of earlier versions of
/// Callgate.
const WITHOUT_INTERACTION: EventKey = EventKey(0xa1b2_c3d4_0000_0000_0000_0000_0000_0002);

/// Writes a file in the format of earlier versions of Callgate. The file contains the numbers `about`, one interaction
/// and these events.
fn write_former_file(path: &Path, about: &[(&str, u64)], events: &[(u64, u128, u64)]) {
    let database = redb::Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(redb::TableDefinition::<&str, u64>::new("about")).unwrap();
        for (name, value) in about {
            table.insert(name, value).unwrap();
        }
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(HOUR));
        let record = serde_json::to_vec(&record).unwrap();
        let table = redb::TableDefinition::<u64, (&str, &[u8])>::new("interactions");
        write.open_table(table).unwrap().insert(OWNER, ("int_a", &*record)).unwrap();
        let table = redb::TableDefinition::<u64, (u128, i64, u64)>::new("events");
        let mut table = write.open_table(table).unwrap();
        for (number, event, owner) in events {
            table.insert(number, (*event, NOW.plus(HOUR).unix_ms(), *owner)).unwrap();
        }
    }
    write.commit().unwrap();
}

pub(super) fn settings(path: Option<&Path>) -> StoreSettings {
    StoreSettings {
        path: path.map(|path| path.to_str().unwrap().into()),
        redis: None,
        unknown: crate::config::Unknown::Refuse,
        interactions_max: 10,
        events_max: 10,
        remember: HOUR,
        keep_ended: Duration::ZERO,
        grace: Duration::from_secs(10),
    }
}

pub(super) fn start_with(settings: &StoreSettings, now: Timestamp) -> Result<Store, String> {
    let metrics = Arc::new(Metrics::new().unwrap());
    Store::start(settings, metrics, crate::clock::instant, now).map_err(|error| error.to_string())
}

fn start(path: &Path) -> Result<Store, String> {
    start_with(&settings(Some(path)), NOW)
}

/// Delivers an event with this key. Returns false if the event is a duplicate.
async fn delivers(store: &Store, key: EventKey, has_interaction: bool) -> bool {
    delivers_at(store, has_interaction.then_some("int_a"), key, None, NOW).await
}

/// Delivers an event for the interaction with this id. Returns false if the event is a duplicate.
async fn delivers_at(
    store: &Store,
    id: Option<&str>,
    key: EventKey,
    replay_window: Option<Duration>,
    now: Timestamp,
) -> bool {
    let path = crate::path::CanonicalPath::parse("/a").unwrap();
    let captures = crate::path::Template::parse("/a").unwrap().capture(&path);
    let granted = id.map(|id| Granted {
        interaction: id.into(),
        issued: NOW,
        expires: now.plus(HOUR),
        uses: None,
        owner: None,
        is_opaque: false,
    });
    let (follow, report) = (Follow::default(), Report::default());
    let route = "r".into();
    let ask = Ask {
        granted: granted.as_ref(),
        events: &[key],
        replay_window,
        ..Ask::new(&route, &captures, &follow, &report)
    };
    match store.claim(&ask, now, HOUR).await {
        Ok(claimed) => claimed.settle(&report, None, now).await.map(|()| true).unwrap(),
        Err(error) => {
            assert_eq!(error, ClaimError::Duplicate);
            false
        }
    }
}

/// Asserts that the store recognizes the two events of the former file as duplicates. Also asserts that it delivers a
/// new event, whose key depends on `other`, exactly once.
async fn recognizes(store: &Store, other: u128) {
    assert!(!delivers(store, OF_INTERACTION, true).await);
    assert!(!delivers(store, WITHOUT_INTERACTION, false).await);
    for has_interaction in [true, false] {
        let other = EventKey(u128::MAX - other);
        assert!(delivers(store, other, has_interaction).await);
        assert!(!delivers(store, other, has_interaction).await);
    }
}

#[tokio::test]
async fn events_of_a_file_of_an_earlier_version_are_recognized() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let events = [(2, OF_INTERACTION.0, OWNER), (3, WITHOUT_INTERACTION.0, NO_OWNER)];
    write_former_file(&path, &[("format", 1)], &events);
    let store = start(&path).unwrap();
    assert_eq!(store.counts(), (1, 2));
    recognizes(&store, 1).await;
    drop(store);
    // The file now contains keys and fingerprints. The next start reads both.
    let store = start(&path).unwrap();
    assert_eq!(store.counts(), (1, 4));
    recognizes(&store, 2).await;
    // The file that is written from memory contains only fingerprints and the fingerprint key.
    let key = store.memory.fingerprints;
    let mut new = LedgerFile::create_beside(&folder.path().join("copy")).unwrap();
    write_snapshot(&mut new, &store.memory).unwrap();
    let mut rows = Vec::new();
    new.read(|record| rows.extend(matches!(record, Record::Event(..)).then_some(record))).unwrap();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| matches!(row, Record::Event(_, StoredEvent::Fingerprint(..), ..))));
    drop((store, new));
    let store = start(&folder.path().join("copy.new")).unwrap();
    assert_eq!(store.memory.fingerprints, key);
    recognizes(&store, 3).await;
}

#[tokio::test]
async fn an_event_that_the_file_has_twice_is_removed_from_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let events = [2, 3].map(|number| (number, OF_INTERACTION.0, OWNER));
    let events = [events, [4, 5].map(|number| (number, WITHOUT_INTERACTION.0, NO_OWNER))].concat();
    write_former_file(&path, &[("format", 1)], &events);
    let store = start(&path).unwrap();
    assert_eq!(store.counts(), (1, 2));
    drop(store);
    let mut file = LedgerFile::open(path.to_str().unwrap()).unwrap();
    let mut numbers = Vec::new();
    file.read(|record| {
        if let Record::Event(number, ..) = record {
            numbers.push(number);
        }
    })
    .unwrap();
    assert_eq!(numbers, [3, 5], "the later rows remain");
    drop(file);
    recognizes(&start(&path).unwrap(), 1).await;
}

#[test]
fn a_file_with_half_a_fingerprint_key_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    write_former_file(&path, &[("format", 1), ("fingerprint_key_2", 1)], &[]);
    let message = start(&path).unwrap_err();
    assert!(message.contains("it is damaged (one half of the fingerprint key is missing)"), "{message}");
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

/// Starts the store from a file with ten events, which fill the memory of events. Their keys are 1 to 10. Then delivers
/// two new events. Asserts that the store forgets the two oldest events, and not the new ones.
async fn forgets_the_oldest(settings: &StoreSettings, id: Option<&str>, window: Option<Duration>) {
    let what = format!("{id:?} {window:?}");
    let store = start_with(settings, after(100)).unwrap();
    assert_eq!(store.counts().1, 10, "{what}");
    for key in [11, 12] {
        let at = after(100 + key);
        assert!(delivers_at(&store, id, EventKey(key.into()), window, at).await, "{what}");
    }
    for key in 3..=12 {
        assert!(!delivers_at(&store, id, EventKey(key), window, after(120)).await, "{what}: {key}");
    }
    assert!(delivers_at(&store, id, EventKey(2), window, after(120)).await, "{what}");
    assert!(!delivers_at(&store, id, EventKey(2), window, after(120)).await, "{what}");
}

#[tokio::test]
async fn a_restart_does_not_make_former_events_newer_than_new_ones() {
    const DAY: Duration = Duration::from_secs(86_400);
    for id in [Some("int_a"), None] {
        for window in [None, Some(10 * DAY), Some(DAY), Some(Duration::from_secs(600)), Some(Duration::ZERO)]
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger");
            write_former_file(&path, &[("format", 1)], &[]);
            // The first start has a longer `store.remember` than the restart.
            let longer = StoreSettings { remember: 3 * DAY, ..settings(Some(&path)) };
            let store = start_with(&longer, NOW).unwrap();
            for key in 1..=10 {
                assert!(delivers_at(&store, id, EventKey(key.into()), window, after(key)).await);
            }
            drop(store);
            forgets_the_oldest(&settings(Some(&path)), id, window).await;
        }
    }
}

/// The events in the file can be replayed at any time. Earlier versions of Callgate stored such events with the largest
/// number as the time from which a replay is denied. New events must not be forgotten before these events.
#[tokio::test]
async fn events_of_earlier_versions_without_a_limit_are_not_newer_than_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let about = [("format", 1), ("fingerprint_key_1", 7), ("fingerprint_key_2", 8)];
    let event = |number: u64| {
        let fingerprint = FingerprintKey([7, 8]).fingerprint("int_a", EventKey(number.into()));
        (number + 1, StoredEvent::Fingerprint(fingerprint, u32::MAX).to_bits(), OWNER)
    };
    write_former_file(&path, &about, &(1..=10).map(event).collect::<Vec<_>>());
    forgets_the_oldest(&settings(Some(&path)), Some("int_a"), None).await;
}

/// The ids of two interactions in the same shard.
const TOGETHER: [&str; 2] = ["int_ab", "int_ba"];
/// The id of an interaction in another shard.
const ELSEWHERE: &str = "int_c";

#[tokio::test]
async fn outdated_ids_of_ended_interactions_remove_no_events_of_open_ones() {
    let adopting = StoreSettings { unknown: crate::config::Unknown::Adopt, ..settings(None) };
    let store = start_with(&adopting, NOW).unwrap();
    let open = TOGETHER[0];
    assert!(delivers_at(&store, Some(ELSEWHERE), EventKey(1), None, after(1)).await);
    for key in 2..=10 {
        assert!(delivers_at(&store, Some(open), EventKey(key.into()), None, after(key)).await);
    }
    {
        // Adds the id of an interaction that the ledger does not contain to the shard's list of ended interactions.
        let mut shard = store.memory.shard(Memory::index(open));
        shard.over.push_back(TOGETHER[1].into());
        store.memory.note_oldest(Memory::index(open), &shard);
    }
    assert!(delivers_at(&store, Some(open), EventKey(11), None, after(11)).await);
    assert_eq!(store.counts().1, 10);
    for key in 2..=11 {
        assert!(!delivers_at(&store, Some(open), EventKey(key), None, after(12)).await, "{key}");
    }
    assert!(delivers_at(&store, Some(ELSEWHERE), EventKey(1), None, after(12)).await, "it was the oldest");
}

#[tokio::test]
async fn events_of_ended_interactions_are_forgotten_one_interaction_after_the_other() {
    let adopting = StoreSettings { unknown: crate::config::Unknown::Adopt, ..settings(None) };
    let store = start_with(&adopting, NOW).unwrap();
    for (id, count) in [(TOGETHER[0], 3), (TOGETHER[1], 3), (ELSEWHERE, 4)] {
        for key in 1..=count {
            assert!(delivers_at(&store, Some(id), EventKey(key), None, after(1)).await);
        }
    }
    for id in TOGETHER {
        store.revoke(id, false, after(2)).await.unwrap();
    }
    for (key, count, expected) in [
        (5, 8, [true, false]),
        (6, 9, [true, false]),
        (7, 10, [true, false]),
        (8, 8, [true, true]),
        (9, 9, [true, true]),
    ] {
        assert!(delivers_at(&store, Some(ELSEWHERE), EventKey(key), None, after(3)).await);
        let forgotten = TOGETHER.map(|id| store.memory.read(id).unwrap().has_forgotten_events());
        assert_eq!((store.counts().1, forgotten), (count, expected), "{key}");
    }
}

#[tokio::test]
async fn a_restart_lists_each_ended_interaction_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let adopting = StoreSettings { unknown: crate::config::Unknown::Adopt, ..settings(Some(&path)) };
    let store = start_with(&adopting, NOW).unwrap();
    for key in 1..=3 {
        for id in TOGETHER {
            assert!(delivers_at(&store, Some(id), EventKey(key), None, NOW).await);
        }
    }
    for id in TOGETHER {
        assert_eq!(store.revoke(id, false, NOW).await.unwrap(), Revoked::Known);
    }
    drop(store);
    let store = start_with(&adopting, NOW).unwrap();
    let shard = store.memory.shard(Memory::index(TOGETHER[0]));
    assert_eq!(shard.over.iter().map(ToString::to_string).collect::<Vec<_>>(), TOGETHER);
}

/// The file must record that the events of an ended interaction are forgotten. Otherwise, late progress would be
/// delivered again after a restart.
#[tokio::test]
async fn the_file_says_that_the_events_of_an_ended_interaction_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let adopting = StoreSettings { unknown: crate::config::Unknown::Adopt, ..settings(Some(&path)) };
    let store = start_with(&adopting, NOW).unwrap();
    assert!(delivers_at(&store, Some(TOGETHER[0]), EventKey(1), None, NOW).await);
    // Delivers ten events of another interaction. They displace the event of the first interaction, which is still
    // open.
    for key in 2..=11 {
        assert!(delivers_at(&store, Some(ELSEWHERE), EventKey(key.into()), None, after(key)).await);
    }
    assert_eq!(store.revoke(TOGETHER[0], false, after(12)).await.unwrap(), Revoked::Known);
    assert!(delivers_at(&store, Some(ELSEWHERE), EventKey(12), None, after(12)).await);
    assert!(store.memory.read(TOGETHER[0]).unwrap().has_forgotten_events());
    drop(store);
    let store = start_with(&adopting, NOW).unwrap();
    assert!(store.memory.read(TOGETHER[0]).unwrap().has_forgotten_events());
}

/// Returns the number of interactions that are not retained only for display, and the number of interactions that are.
fn counts(store: &Store) -> (usize, usize) {
    (store.counts().0, store.kept())
}

#[tokio::test]
async fn interactions_that_are_retained_for_display_are_counted_separately_and_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let keeping = StoreSettings {
        unknown: crate::config::Unknown::Adopt,
        keep_ended: 2 * HOUR,
        interactions_max: 3,
        ..settings(Some(&folder.path().join("ledger")))
    };
    let (expired, over) = (NOW.plus(HOUR), NOW.plus(2 * HOUR));
    let store = start_with(&keeping, NOW).unwrap();
    for (key, id) in (1..).zip([TOGETHER[0], TOGETHER[1], ELSEWHERE]) {
        assert!(delivers_at(&store, Some(id), EventKey(key), None, NOW).await);
    }
    for id in TOGETHER {
        store.revoke(id, false, NOW).await.unwrap();
    }
    // The third interaction ends when its token expires.
    let second = Duration::from_secs(1);
    for (name, now, expected) in [
        ("revoked", NOW, (3, 0)),
        ("before the tokens expire", expired.minus(second), (3, 0)),
        ("expired", expired, (0, 3)),
        ("before the end of the retention", over.minus(second), (0, 3)),
        ("two have been ended for long", over, (0, 1)),
    ] {
        store.pass(now).await;
        assert_eq!(counts(&store), expected, "{name}");
    }
    drop(store);
    let store = start_with(&keeping, over).unwrap();
    store.pass(over).await;
    assert_eq!(counts(&store), (0, 1), "after a restart");
    for (key, expected) in [(4, (1, 1)), (5, (2, 1)), (6, (3, 0))] {
        let id = format!("int_new_{key}");
        assert!(delivers_at(&store, Some(&id), EventKey(key), None, over).await);
        assert_eq!(counts(&store), expected, "{key}");
    }
}

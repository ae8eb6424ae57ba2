//! Tests the store with files that the test writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::file::{LedgerFile, NO_OWNER, Record, StoredEvent};
use super::ledger::Store;
use super::writer::write_snapshot;
use crate::config::StoreSettings;
use crate::interaction::{Ask, ClaimError, EventKey, Follow, Interaction, Report};
use crate::observe::Metrics;
use crate::time::Timestamp;
use crate::token::Granted;

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);
const HOUR: Duration = Duration::from_secs(3600);
const OWNER: u64 = 1;
/// The keys of two events. Their highest bits are random, as in the keys that earlier versions of Callgate wrote.
const OF_INTERACTION: EventKey = EventKey(0xa1b2_c3d4_0000_0000_0000_0000_0000_0001);
const WITHOUT_INTERACTION: EventKey = EventKey(0xa1b2_c3d4_0000_0000_0000_0000_0000_0002);

/// Writes a file with one interaction and these events, in the format of the versions that stored the keys of events.
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

fn start(path: &Path) -> Result<Store, String> {
    let settings = StoreSettings {
        path: Some(path.to_str().unwrap().into()),
        unknown: crate::config::Unknown::Refuse,
        interactions_max: 10,
        events_max: 10,
        remember: HOUR,
        grace: Duration::from_secs(10),
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    Store::start(&settings, metrics, crate::clock::instant).map_err(|error| error.to_string())
}

/// Delivers an event with this key. Returns false if it is a duplicate.
async fn delivers(store: &Store, key: EventKey, has_interaction: bool) -> bool {
    let path = crate::path::CanonicalPath::parse("/a").unwrap();
    let captures = crate::path::Template::parse("/a").unwrap().capture(&path);
    let granted = Granted { interaction: "int_a".into(), issued: NOW, expires: NOW.plus(HOUR), uses: None };
    let (follow, report) = (Follow::default(), Report::default());
    let ask = Ask {
        route: &"r".into(),
        provider: None,
        captures: &captures,
        granted: has_interaction.then_some(&granted),
        events: &[key],
        repeats: &[],
        replay_window: None,
        event_id: None,
        follow: &follow,
        notifies: false,
        report: &report,
    };
    match store.claim(&ask, NOW, HOUR).await {
        Ok(claimed) => claimed.settle(&report, None, NOW).await.map(|()| true).unwrap(),
        Err(error) => {
            assert_eq!(error, ClaimError::Duplicate);
            false
        }
    }
}

/// Asserts that the store recognizes the events of the former file, and that it delivers another event exactly once.
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
    // The next start reads both kinds of rows.
    let store = start(&path).unwrap();
    assert_eq!(store.counts(), (1, 4));
    recognizes(&store, 2).await;
    // A rewritten file has only fingerprints and the fingerprint key.
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

//! Tests of the size of the records, by which Callgate decides whether the file must be compacted.

use redb::backends::InMemoryBackend;

use super::*;
use crate::interaction::Interaction;
use crate::store::file::NO_OWNER;

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

fn database() -> Database {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    create(&database).unwrap();
    database
}

fn size(database: &Database) -> i64 {
    read(database, drop).unwrap()
}

/// Returns the change that writes an interaction of this route, and the size of its id and its record.
fn interaction(number: u64, id: &str, route: &str) -> (Change, i64) {
    let record = Interaction::new(route.into(), "".into(), NOW, NOW);
    let record = serde_json::to_vec(&record).unwrap();
    let bytes = (id.len() + record.len()) as i64;
    (Change::Interaction(number, id.into(), record), bytes)
}

/// Returns changes of all kinds, each with the number of bytes by which the records grow.
fn steps() -> Vec<(Change, i64)> {
    let event = |number, owner| Change::Event(number, StoredEvent::Fingerprint(7, 0), NOW, owner);
    let message = |number, head: usize, body: usize| {
        Change::Message(number, vec![b'h'; head].into(), vec![b'b'; body].into())
    };
    let state = |number, bytes| Change::MessageState(number, vec![b's'; bytes]);
    let ((short, short_bytes), (long, long_bytes)) = (interaction(1, "a", "r"), interaction(1, "a", "long"));
    let (other, other_bytes) = interaction(2, "other", "r");
    vec![
        (Change::FingerprintKey([1, 2]), 0),
        (short, INTERACTION_BYTES + short_bytes),
        (long, long_bytes - short_bytes),
        (other, INTERACTION_BYTES + other_bytes),
        (event(1, 1), EVENT_BYTES),
        (event(1, NO_OWNER), 0),
        (event(2, 2), EVENT_BYTES),
        (event(3, 2), EVENT_BYTES),
        (Change::EventGone(2), -EVENT_BYTES),
        (Change::EventGone(2), 0),
        (message(1, 100, 1000), 1124),
        (message(1, 110, 1200), 210),
        (message(2, 10, 0), 34),
        (message(3, 20, 70), 114),
        (state(1, 50), 50),
        (state(1, 45), -5),
        (state(3, 9), 9),
        (state(4, 9), 0),
        (Change::MessageGone(3), -123),
        (Change::MessageGone(3), 0),
        (Change::MessageNumber(9), 0),
        (Change::InteractionGone(2), -INTERACTION_BYTES - other_bytes),
        (Change::InteractionGone(2), 0),
    ]
}

#[test]
fn each_change_says_by_how_many_bytes_the_records_have_grown() {
    let (database, mut total) = (database(), 0);
    for (change, bytes) in steps() {
        let key = change.key();
        assert_eq!(commit(&database, &[change]).unwrap(), bytes, "{key:?}");
        total += bytes;
        assert_eq!(size(&database), total, "the file is read again after {key:?}");
    }
}

#[test]
fn a_commit_says_by_how_many_bytes_all_of_its_changes_have_grown_the_records() {
    let database = database();
    let (changes, bytes): (Vec<_>, Vec<i64>) = steps().into_iter().unzip();
    let total: i64 = bytes.iter().sum();
    assert_eq!(commit(&database, &changes).unwrap(), total);
    assert_eq!(size(&database), total);
}

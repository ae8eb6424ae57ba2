//! The tables of the ledger's file: writes changes to them, and reads the records.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::change::{Change, StoredEvent};
use super::message_tables::{self, MessageTables};
use super::record::{ABOUT, Order, Record, corrupted};
use crate::time::Timestamp;

/// Maps the number of an interaction to its id and its record (JSON).
const INTERACTIONS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("interactions");
/// Maps the number of an event to the event ([`StoredEvent::to_bits`]), the end of its retention (Unix milliseconds)
/// and the number of its interaction.
const EVENTS: TableDefinition<'_, u64, (u128, i64, u64)> = TableDefinition::new("events");
/// The keys of the two halves of the fingerprint key in the table [`ABOUT`].
const FINGERPRINT_KEY: [&str; 2] = ["fingerprint_key_1", "fingerprint_key_2"];

/// The version of the file format.
const FORMAT: u64 = 1;
/// The size of an event in the file, in bytes.
const EVENT_BYTES: i64 = 40;
/// The size of an interaction in the file, in bytes, without its id and its record.
const INTERACTION_BYTES: i64 = 16;

/// Runs an operation of the database. The database may panic if a page of the file is damaged. Such a panic is caught
/// and returned as an error.
pub(super) fn guarded<T>(operation: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // An operation that panics may leave inconsistent values in memory. The caller closes the database after an error,
    // so these values are not used.
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|panic| Err(corrupted(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown reason").to_owned()
}

/// Commits changes to the database. Returns the number of bytes by which the records have grown.
pub(super) fn commit(database: &Database, changes: &[Change]) -> Result<i64, redb::Error> {
    let mut growth = 0;
    let write = database.begin_write()?;
    {
        let mut interactions = write.open_table(INTERACTIONS)?;
        let mut events = write.open_table(EVENTS)?;
        let mut messages = MessageTables::new(&write);
        for change in changes {
            match change {
                Change::Message(..)
                | Change::MessageState(..)
                | Change::MessageGone(_)
                | Change::MessageNumber(_) => growth += messages.apply(change)?,
                Change::Event(number, event, until, owner) => {
                    let former = events.insert(number, (event.to_bits(), until.unix_ms(), *owner))?;
                    growth += if former.is_none() { EVENT_BYTES } else { 0 };
                }
                Change::EventGone(number) => {
                    growth -= if events.remove(number)?.is_some() { EVENT_BYTES } else { 0 };
                }
                Change::FingerprintKey(halves) => {
                    let mut about = write.open_table(ABOUT)?;
                    for (name, half) in FINGERPRINT_KEY.into_iter().zip(halves) {
                        about.insert(name, half)?;
                    }
                }
                Change::Interaction(number, id, bytes) => {
                    let former = interactions.insert(number, (&**id, bytes.as_slice()))?;
                    growth += bytes_of(id, bytes) - former.map_or(0, |former| value_bytes(former.value()));
                }
                Change::InteractionGone(number) => {
                    let former = interactions.remove(number)?;
                    growth -= former.map_or(0, |former| value_bytes(former.value()));
                }
            }
        }
        messages.finish()?;
    }
    write.commit()?;
    Ok(growth)
}

fn value_bytes((id, record): (&str, &[u8])) -> i64 {
    bytes_of(id, record)
}

fn bytes_of(id: &str, record: &[u8]) -> i64 {
    INTERACTION_BYTES + i64::try_from(id.len() + record.len()).unwrap_or(0)
}

/// Creates the tables of a new file. Returns an error if the file has another version of the file format.
pub(super) fn create(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(INTERACTIONS)?;
    write.open_table(EVENTS)?;
    message_tables::create(&write)?;
    let mut about = write.open_table(ABOUT)?;
    let format = about.get("format")?.map(|format| format.value());
    if format.is_none() {
        about.insert("format", FORMAT)?;
    }
    drop(about);
    write.commit()?;
    match format {
        None | Some(FORMAT) => Ok(()),
        Some(other) => Err(redb::Error::Io(std::io::Error::other(format!(
            "its format has version {other}, but this build supports only version {FORMAT}"
        )))),
    }
}

/// Reads the secret key of the fingerprints. Returns `None` if an earlier version of Callgate wrote the file.
///
/// # Errors
/// Returns an error if the key cannot be read, or if one half is missing. With a new key, the ledger would not
/// recognize the events in the file.
pub(super) fn fingerprint_key(database: &Database) -> Result<Option<[u64; 2]>, redb::Error> {
    let about = database.begin_read()?.open_table(ABOUT)?;
    let half = |name| about.get(name).map(|half| half.map(|half| half.value()));
    let [first, second] = FINGERPRINT_KEY;
    match (half(first)?, half(second)?) {
        (Some(first), Some(second)) => Ok(Some([first, second])),
        (None, None) => Ok(None),
        _ => Err(corrupted("one half of the fingerprint key is missing".to_owned())),
    }
}

/// Reads all records: first the interactions, then the events and then the messages, each in the order of their
/// numbers. Returns the size of the records, in bytes.
///
/// # Errors
/// Returns an error if a record cannot be read or is missing.
pub(super) fn read(database: &Database, mut visit: impl FnMut(Record)) -> Result<i64, redb::Error> {
    let read = database.begin_read()?;
    let mut size = 0;
    let interactions = read.open_table(INTERACTIONS)?;
    let mut order = Order::default();
    for row in interactions.iter()? {
        let (number, value) = row?;
        let (id, bytes) = value.value();
        let record = serde_json::from_slice(bytes)
            .map_err(|error| corrupted(format!("the record of {id} is invalid: {error}")))?;
        order.check(number.value())?;
        size += bytes_of(id, bytes);
        visit(Record::Interaction(number.value(), id.into(), record));
    }
    order.finish(interactions.len()?)?;
    let events = read.open_table(EVENTS)?;
    let mut order = Order::default();
    for row in events.iter()? {
        let (number, value) = row?;
        let (event, until, owner) = value.value();
        order.check(number.value())?;
        size += EVENT_BYTES;
        visit(Record::Event(
            number.value(),
            StoredEvent::from_bits(event),
            Timestamp::from_unix_ms(until),
            owner,
        ));
    }
    order.finish(events.len()?)?;
    Ok(size + message_tables::read(&read, visit)?)
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;

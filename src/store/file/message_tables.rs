//! The tables of the inbox in the ledger's file. The head, the body and the state of a message are in separate tables.
//! Therefore, Callgate reads no bodies when it starts, and each attempt to deliver a message writes only the state of
//! the message.

use std::collections::HashMap;

use bytes::Bytes;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};

use super::change::Change;
use super::record::{ABOUT, Order, Record};

/// Maps the number of a message to its head (JSON).
const HEADS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
/// Maps the number of a message to its body.
const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("message_bodies");
/// Maps the number of a message to its state (JSON). A message has no state until the first attempt to deliver it.
const STATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("message_states");
/// The key of the highest message number in the table that describes the file.
const NUMBER: &str = "message_number";
/// The size of a message in the file, in bytes, without its head, body and state: its keys in the three tables.
const MESSAGE_BYTES: i64 = 24;

/// A message as the file contains it.
#[derive(Debug)]
pub(in crate::store) struct StoredMessage {
    pub(in crate::store) head: Vec<u8>,
    pub(in crate::store) body: Vec<u8>,
    pub(in crate::store) state: Option<Vec<u8>>,
}

/// The tables of the inbox in one write transaction. They are opened when the first change of the inbox is written.
pub(super) struct MessageTables<'t> {
    write: &'t WriteTransaction,
    open: Option<OpenTables<'t>>,
    number: u64,
}

struct OpenTables<'t> {
    heads: Table<'t, u64, &'static [u8]>,
    bodies: Table<'t, u64, &'static [u8]>,
    states: Table<'t, u64, &'static [u8]>,
}

impl<'t> MessageTables<'t> {
    pub(super) fn new(write: &'t WriteTransaction) -> Self {
        Self { write, open: None, number: 0 }
    }

    /// Applies a change of the inbox to the tables. Returns the number of bytes by which the stored messages have
    /// grown.
    pub(super) fn apply(&mut self, change: &Change) -> Result<i64, redb::Error> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(OpenTables {
                heads: self.write.open_table(HEADS)?,
                bodies: self.write.open_table(BODIES)?,
                states: self.write.open_table(STATES)?,
            }),
        };
        let mut growth = 0;
        match change {
            Change::Message(number, head, body) => {
                self.number = self.number.max(*number);
                let former = open.heads.insert(number, &**head)?.map(|former| len(former.value()));
                let former_body = open.bodies.insert(number, &**body)?.map(|former| len(former.value()));
                growth += len(head) + len(body) + MESSAGE_BYTES;
                growth -= former.map_or(0, |head| head + MESSAGE_BYTES) + former_body.unwrap_or(0);
            }
            // A deferred change of the state can be written after the message was removed. The change is then ignored.
            Change::MessageState(number, state) if open.heads.get(number)?.is_some() => {
                let former = open.states.insert(number, state.as_slice())?;
                growth += len(state) - former.map_or(0, |former| len(former.value()));
            }
            Change::MessageGone(number) => {
                let head = open.heads.remove(number)?.map(|former| len(former.value()) + MESSAGE_BYTES);
                let body = open.bodies.remove(number)?.map(|former| len(former.value()));
                let state = open.states.remove(number)?.map(|former| len(former.value()));
                growth -= head.unwrap_or(0) + body.unwrap_or(0) + state.unwrap_or(0);
            }
            Change::MessageNumber(number) => self.number = self.number.max(*number),
            _ => {}
        }
        Ok(growth)
    }

    /// Writes the highest message number that was ever assigned, so that the number of a removed message is not used
    /// again.
    pub(super) fn finish(self) -> Result<(), redb::Error> {
        if self.number > 0 {
            let mut about = self.write.open_table(ABOUT)?;
            let former = about.get(NUMBER)?.map_or(0, |former| former.value());
            about.insert(NUMBER, self.number.max(former))?;
        }
        Ok(())
    }
}

fn len(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// Creates the tables of the inbox in a new file.
pub(super) fn create(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(HEADS)?;
    write.open_table(BODIES)?;
    write.open_table(STATES)?;
    Ok(())
}

/// Reads the heads and the states of all messages, in the order of their numbers. Returns the size of the messages
/// including their bodies, in bytes.
pub(super) fn read(read: &ReadTransaction, mut visit: impl FnMut(Record)) -> Result<i64, redb::Error> {
    let about = read.open_table(ABOUT)?;
    let number = about.get(NUMBER)?.map_or(0, |number| number.value());
    visit(Record::MessageNumber(number));
    let (heads, states) = (read.open_table(HEADS)?, read.open_table(STATES)?);
    let mut known = HashMap::new();
    for row in states.iter()? {
        let (number, state) = row?;
        known.insert(number.value(), state.value().to_vec());
    }
    let (mut order, mut size) = (Order::default(), 0);
    for row in heads.iter()? {
        let (number, head) = row?;
        order.check(number.value())?;
        let state = known.remove(&number.value());
        size += len(head.value()) + state.as_deref().map_or(0, len) + MESSAGE_BYTES;
        visit(Record::Message(number.value(), head.value().to_vec(), state));
    }
    order.finish(heads.len()?)?;
    let bodies = read.open_table(BODIES)?;
    // The stored bytes include the keys of the table. The size of each message already includes them.
    let keys = bodies.len()?.saturating_mul(size_of::<u64>() as u64);
    let stored = bodies.stats()?.stored_bytes().saturating_sub(keys);
    Ok(size + i64::try_from(stored).unwrap_or(i64::MAX))
}

/// Reads one message, and its body if `with_body` is true. Returns `None` if the file does not contain the message.
pub(super) fn message(
    database: &Database,
    number: u64,
    with_body: bool,
) -> Result<Option<StoredMessage>, redb::Error> {
    let read = database.begin_read()?;
    let Some(head) = read.open_table(HEADS)?.get(number)?.map(|head| head.value().to_vec()) else {
        return Ok(None);
    };
    let body = match with_body {
        true => read.open_table(BODIES)?.get(number)?.map(|body| body.value().to_vec()),
        false => None,
    };
    let state = read.open_table(STATES)?.get(number)?.map(|state| state.value().to_vec());
    Ok(Some(StoredMessage { head, body: body.unwrap_or_default(), state }))
}

/// Returns the changes that write the next messages to another file, beginning with the first message whose number is
/// above `after`. The changes contain at most `count` messages, and not many more bytes than `bytes_max`. Returns no
/// changes after the last message.
pub(super) fn after(
    database: &Database,
    after: u64,
    count: usize,
    bytes_max: usize,
) -> Result<Vec<Change>, redb::Error> {
    let read = database.begin_read()?;
    let (heads, bodies) = (read.open_table(HEADS)?, read.open_table(BODIES)?);
    let states = read.open_table(STATES)?;
    let (mut changes, mut bytes) = (Vec::new(), 0);
    for row in heads.range(after.saturating_add(1)..)?.take(count) {
        if bytes > bytes_max {
            break;
        }
        let (number, head) = row?;
        let number = number.value();
        let body = bodies.get(number)?.map(|body| Bytes::copy_from_slice(body.value()));
        let change = Change::Message(number, head.value().into(), body.unwrap_or_default());
        bytes += change.bytes();
        changes.push(change);
        if let Some(state) = states.get(number)? {
            changes.push(Change::MessageState(number, state.value().to_vec()));
        }
    }
    Ok(changes)
}

/// Returns the highest message number that was ever assigned.
pub(super) fn number(database: &Database) -> Result<u64, redb::Error> {
    let about = database.begin_read()?.open_table(ABOUT)?;
    Ok(about.get(NUMBER)?.map_or(0, |number| number.value()))
}

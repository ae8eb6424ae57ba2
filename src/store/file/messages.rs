//! Reads messages of the inbox from the ledger's file while another thread writes it.

use std::sync::Arc;

use parking_lot::RwLock;
use redb::Database;

use super::message_tables::{self, StoredMessage};
use super::tables::guarded;

/// Reads messages from the database in the ledger's file. The database is `None` while the file is closed or replaced.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct MessageReader(Arc<RwLock<Option<Arc<Database>>>>);

impl MessageReader {
    /// Replaces the database from which messages are read. Waits until no message is being read from the former
    /// database.
    pub(super) fn set(&self, database: Option<&Arc<Database>>) {
        *self.0.write() = database.map(Arc::clone);
    }

    /// Reads the message with this number. Returns `None` if the file does not contain the message. Blocks the thread
    /// until the disk responds.
    ///
    /// # Errors
    /// Returns an explanation if the file cannot be read now.
    pub(in crate::store) fn read(&self, number: u64) -> Result<Option<StoredMessage>, String> {
        self.message(number, true)
    }

    /// Reads the message with this number, but not its body, which is empty in the result.
    ///
    /// # Errors
    /// Returns an explanation if the file cannot be read now.
    pub(in crate::store) fn read_head(&self, number: u64) -> Result<Option<StoredMessage>, String> {
        self.message(number, false)
    }

    fn message(&self, number: u64, with_body: bool) -> Result<Option<StoredMessage>, String> {
        let database = self.0.read();
        let Some(database) = &*database else { return Err("the ledger's file is not open".to_owned()) };
        guarded(|| message_tables::message(database, number, with_body)).map_err(|error| error.to_string())
    }
}

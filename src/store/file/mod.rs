//! The ledger's file, and the queue of changes that are written to it.

mod change;
mod commit_queue;
mod copy_messages;
mod deferred;
mod fail_stop_storage;
mod ledger_file;
mod message_tables;
mod messages;
mod record;
mod tables;

pub(super) use change::{Change, NO_OWNER, StoredEvent};
pub use commit_queue::Health;
pub(super) use commit_queue::{CommitQueue, EndGuard, FileClosedGuard, Shared};
pub(super) use ledger_file::{Fault, FaultKind, IN_USE, LedgerFile};
pub(super) use messages::MessageReader;
pub(super) use record::Record;

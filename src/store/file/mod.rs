//! The ledger's file, and the queue of changes that are written to it.

mod backend;
mod change;
mod copy_messages;
mod deferred;
mod journal;
mod ledger_file;
mod message_tables;
mod messages;
mod record;
mod tables;

pub(super) use change::{Change, NO_OWNER, StoredEvent};
pub use journal::Health;
pub(super) use journal::{EndGuard, FileClosedGuard, Journal, Shared};
pub(super) use ledger_file::{Fault, FaultKind, IN_USE, LedgerFile};
pub(super) use messages::MessageReader;
pub(super) use record::Record;

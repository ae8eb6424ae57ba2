//! The ledger's file, and the queue of changes that are written to it.

mod backend;
mod change;
mod deferred;
mod journal;
mod ledger_file;

pub(super) use change::{Change, NO_OWNER};
pub use journal::Health;
pub(super) use journal::{EndGuard, FileClosedGuard, Journal, Shared};
pub(super) use ledger_file::{Contents, Fault, FaultKind, LedgerFile};

//! The store: the ledger of interactions and delivered events, in memory, in a file, or on Redis or Valkey. A method
//! that changes the ledger usually returns only after the change is durable, so that the caller can acknowledge the
//! change.
//!
//! To deliver a callback, a caller first claims the callback ([`Store::claim`]). After the agent has accepted the
//! callback, the caller settles the claim ([`Claimed::settle`]). Dropping the claim instead releases it, so that the
//! provider's retry is delivered.

mod claim;
mod compaction;
mod content;
mod copy;
mod dedup;
mod event_memory;
mod events;
mod file;
mod file_writer;
mod hand_over;
mod inbox;
mod ledger;
mod listing;
mod matching;
mod memory;
mod mint;
mod new_record;
mod outcome;
mod questions;
mod redis;
mod restore;
mod sweep;
#[cfg(test)]
mod tests;
mod waiting_claims;

pub use claim::Claimed;
pub use content::{CopyReport, Lost};
pub use copy::{
    Backup, BackupError, CopyError, Restored, back_up, copy as copy_ledger, restore as restore_ledger,
};
pub use file::Health;
pub use hand_over::{HandedRecords, incarnation};
pub use inbox::{
    Counts, Inbox, Leased, Message, MessageFilter, MessageHead, MessageView, PassedMessages, Replayed,
    RouteOverview, Settling, Started,
};
pub use ledger::{Store, StoreError, Walk};
pub use matching::ResponseAwaited;
pub use mint::{MintRefusal, mint};
pub(crate) use outcome::NO_ROUTE;
pub use outcome::{DueNotice, OwnedInteraction, Passed, Revoked};
pub use questions::Taken;
